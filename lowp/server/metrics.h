// What /metrics tells, under the names and units of vLLM. prometheus-cpp is named in metrics.cpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lowp/engine/engine.h"

namespace lowp::server {

using Clock = std::chrono::steady_clock;

/// The life of one request, as seen from here.
struct RequestTimes {
  Clock::time_point arrival, begun, first_token, last_token;
  std::int64_t prompt_tokens = 0, generated_tokens = 0;
};

/// From the server's thread only.
class Metrics {
 public:
  /// `prefix` stands before every name: "lowp:" or "vllm:".
  Metrics(const std::string& prefix, const std::string& model, const std::string& version);
  ~Metrics();

  void token(Clock::duration since_last);
  void finished(std::string_view reason, const RequestTimes& times);
  void rejected(std::string_view reason);
  void aborted(std::string_view reason);
  void answered(std::string_view handler, std::string_view method, int status);
  void model_loaded(double seconds);

  /// The text of /metrics. `kv_usage` from 0 to 1.
  std::string text(const engine::Metrics& engine);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lowp::server
