#include "lowp/server/load_line.h"

#include <fmt/format.h>

namespace lowp::server {

std::string load_line(const engine::Metrics& before, const engine::Metrics& now, double seconds) {
  const std::uint64_t prompts = now.prompt_tokens - before.prompt_tokens,
                      answers = now.generated_tokens - before.generated_tokens,
                      queries = now.prefix_queries - before.prefix_queries, hits = now.prefix_hits - before.prefix_hits;
  if (prompts + answers + now.running + now.waiting == 0) return "";
  const auto percent = [](std::uint64_t part, std::uint64_t all) {
    return all ? 100 * static_cast<double>(part) / static_cast<double>(all) : 0;
  };
  std::string line =
      fmt::format("prompts {:.0f} tok/s, answers {:.1f} tok/s, running {}, waiting {}, keys and values {:.0f} %",
                  static_cast<double>(prompts) / seconds, static_cast<double>(answers) / seconds, now.running,
                  now.waiting, percent(now.kv_pages_used, now.kv_pages));
  if (queries > 0) line += fmt::format(", prefixes found {:.0f} %", percent(hits, queries));
  return line;
}

}  // namespace lowp::server
