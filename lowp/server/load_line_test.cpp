#include "lowp/server/load_line.h"

#include <gtest/gtest.h>

namespace lowp::server {
namespace {

TEST(LoadLine, SaysWhatHappenedSinceTheLastLook) {
  const engine::Metrics before = {
      .prompt_tokens = 1000, .generated_tokens = 50, .prefix_queries = 900, .prefix_hits = 64};
  engine::Metrics now = before;
  EXPECT_EQ(load_line(before, now, 10), "");
  now.running = 3;
  now.waiting = 1;
  now.kv_pages = 200;
  now.kv_pages_used = 50;
  EXPECT_EQ(load_line(before, now, 10),
            "prompts 0 tok/s, answers 0.0 tok/s, running 3, waiting 1, keys and values 25 %");
  now.prompt_tokens += 2560;
  now.generated_tokens += 123;
  now.prefix_queries += 2688;
  now.prefix_hits += 128;
  EXPECT_EQ(load_line(before, now, 10),
            "prompts 256 tok/s, answers 12.3 tok/s, running 3, waiting 1, keys and values 25 %, prefixes found 5 %");
}

}  // namespace
}  // namespace lowp::server
