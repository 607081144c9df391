// A server under load, from its client's side: the numbers of `vllm bench serve` by the same definitions.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "bench/load.h"
#include "lowp/base/json.h"
#include "lowp/server/http_client.h"

namespace lowp::bench {

struct ServeBench {
  std::string endpoint = "/v1/completions";
  bool chat = false;  // messages instead of prompts
  std::string model;
  server::Headers headers = {};
  Json extra = Json::object();  // more fields of every request
  bool ignore_eos = false;
  double rate = std::numeric_limits<double>::infinity(), burstiness = 1;
  std::int64_t max_concurrency = 0;  // 0: no bound; a request that waits for it has not begun
  std::uint64_t seed = 0;
  std::map<std::string, double> goodput = {};  // milliseconds by "ttft", "tpot", "e2el"
};

/// One request as its client saw it; times in seconds.
struct ServedRequest {
  bool ok = false;
  std::string error = {};
  double begin = 0, first = 0, last = 0;              // since the beginning of the run: sent, first chunk, last chunk
  std::vector<double> chunks = {};                    // when each came
  std::int64_t prompt_tokens = 0, output_tokens = 0;  // as the server counts them, if it says

  double ttft() const { return first - begin; }
  double latency() const { return last - begin; }
  double tpot() const { return output_tokens > 1 ? (latency() - ttft()) / static_cast<double>(output_tokens - 1) : 0; }
};

/// Sends the load and waits for all answers; `progress` gets the number of those that ended.
std::vector<ServedRequest> run_load(server::HttpClient& client, const ServeBench& bench,
                                    const std::vector<LoadRequest>& load,
                                    const std::function<void(std::size_t)>& progress);

/// Seconds of the processor that this process has used so far.
double processor_seconds();

struct ServeReport {
  std::vector<ServedRequest> requests;
  double duration = 0;      // from the first request sent to the last answer, seconds
  double client_share = 0;  // of one core, used by this process
  std::vector<double> percentiles = {99};
  std::vector<std::string> metrics = {"ttft", "tpot", "itl"};  // and e2el

  /// The block that `vllm bench serve` prints.
  std::string text(const ServeBench& bench) const;
  /// Under its keys.
  Json json(const ServeBench& bench) const;
};

/// numpy's: linear between the two nearest. `values` in any order; 0 of none.
double percentile(std::vector<double> values, double percent);

}  // namespace lowp::bench
