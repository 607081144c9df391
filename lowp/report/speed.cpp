#include "lowp/report/speed.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/report/machine.h"

namespace lowp::report {
namespace {

constexpr std::int64_t kPromptTokens = 128, kDecodedTokens = 64;
constexpr int kLeastRuns = 3, kMostRuns = 9;
constexpr double kEnoughSeconds = 2;

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Times {
  double prefill = 0, decode = 0;
};
Times run_once(models::Model& model, std::span<const std::int32_t> ids, std::int64_t steps) {
  models::Cache cache(model);
  const auto feed = [&](std::span<const std::int32_t> tokens) {
    const models::Chunk chunk{tokens, &cache};
    model.forward({&chunk, 1});
    const std::int64_t last = model.rows() - 1;
    return model.likeliest({&last, 1}, model.config().vocab_size)[0];
  };
  const auto start = Clock::now();
  std::int32_t next = feed(ids);
  const double prefill = since(start);
  const auto decode = Clock::now();
  for (std::int64_t i = 0; i < steps; ++i) next = feed({&next, 1});
  return {prefill, since(decode)};
}

}  // namespace

std::vector<std::int32_t> synthetic_prompt(std::int64_t count, std::int64_t vocab, std::int64_t sequence) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<std::int32_t>((i * 7919 + sequence * 104729 + 13) % vocab));
  return ids;
}

Speed measure_speed(const std::string& path, models::LoadOptions options) {
  models::Model model(path, options);
  const std::int64_t context = model.config().max_position_embeddings;
  Speed speed;
  speed.decode_tokens = std::min(kDecodedTokens, context / 2);
  speed.prefill_tokens = std::min(kPromptTokens, context - speed.decode_tokens);
  if (speed.decode_tokens < 1)
    fail(ErrorCode::unsupported, "{}: a context of {} tokens is too short to time", path, context);
  const std::vector<std::int32_t> ids = synthetic_prompt(speed.prefill_tokens, model.config().vocab_size);
  run_once(model, ids, speed.decode_tokens);
  std::vector<double> prefill, decode;
  const auto start = Clock::now();
  while (speed.runs < kLeastRuns || (speed.runs < kMostRuns && since(start) < kEnoughSeconds)) {
    const Times times = run_once(model, ids, speed.decode_tokens);
    prefill.push_back(times.prefill);
    decode.push_back(times.decode);
    ++speed.runs;
  }
  speed.prefill_seconds = median(prefill);
  speed.decode_seconds = median(decode);
  speed.streamed_bytes = model.streamed_bytes();
  speed.peak_bytes = peak_resident_bytes();
  return speed;
}

Json to_json(const Speed& speed) {
  return {{"prefill_tokens", speed.prefill_tokens},
          {"decode_tokens", speed.decode_tokens},
          {"runs", speed.runs},
          {"prefill_seconds", speed.prefill_seconds},
          {"decode_seconds", speed.decode_seconds},
          {"streamed_bytes", speed.streamed_bytes},
          {"peak_bytes", speed.peak_bytes}};
}

Speed parse_speed(const Json& json) {
  try {
    return {json.at("prefill_tokens"), json.at("decode_tokens"),  json.at("runs"),      json.at("prefill_seconds"),
            json.at("decode_seconds"), json.at("streamed_bytes"), json.at("peak_bytes")};
  } catch (const Json::exception& e) {
    fail(ErrorCode::bad_input, "speed measurement: {}", e.what());
  }
}

}  // namespace lowp::report
