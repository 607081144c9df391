// How fast a model runs: prefill and greedy decoding of one sequence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/models/model.h"

namespace lowp::report {

struct Speed {
  std::int64_t prefill_tokens = 0, decode_tokens = 0;
  int runs = 0;
  double prefill_seconds = 0, decode_seconds = 0;  // medians over the runs
  std::uint64_t streamed_bytes = 0;                // weights without embedding, with a tied head
  std::uint64_t peak_bytes = 0;                    // VmHWM: largest resident memory of the process

  double prefill_rate() const { return static_cast<double>(prefill_tokens) / prefill_seconds; }  // tokens/s
  double decode_rate() const { return static_cast<double>(decode_tokens) / decode_seconds; }
  double bandwidth() const { return static_cast<double>(streamed_bytes) * decode_rate(); }  // bytes/s
};

/// Token ids without meaning but the same every time, others for each `sequence`.
std::vector<std::int32_t> synthetic_prompt(std::int64_t count, std::int64_t vocab, std::int64_t sequence = 0);

/// Loads a model and times it: a warm-up, then as many runs as fit in about two seconds (3 to 9), each a prefill of 128
/// tokens in one call and 64 greedy steps, logits included. Less where the model's context is shorter. Meant for a
/// process of its own, so that peak memory is the model's. Throws Error.
Speed measure_speed(const std::string& model, models::LoadOptions options);

/// For the way from that process to its parent; parse throws Error(bad_input).
Json to_json(const Speed& speed);
Speed parse_speed(const Json& json);

}  // namespace lowp::report
