// One measurement, as it is printed, stored and compared.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/base/json.h"

namespace lowp::bench {

/// A benchmark row; in JSON one object a line with exactly these keys.
struct Row {
  std::string op;      // what was computed and on which input type, e.g. "cast:bf16"
  std::string recipe;  // format or recipe
  std::int64_t m = 0, n = 0, k = 0;
  std::string device;                         // as Device::description()
  double seconds = 0;                         // median of samples
  std::uint64_t bytes = 0;                    // that must move at least
  std::uint64_t flop = 0;                     // operations that must be done: two for a multiplication with addition
  std::string limit_name;                     // what bounds it: a name of Device::limits()
  double limit = 0;                           // bytes/s or operations/s, median of probes between the samples
  double share = 0;                           // of the limit: (bytes or flop) / seconds / limit
  std::string peer;                           // whose peer_seconds these are; "" if none
  std::optional<double> peer_seconds, ratio;  // ratio = peer_seconds / seconds: above 1 this is faster
  std::vector<double> samples;                // seconds of each run, in order
};

Json to_json(const Row& row);

/// The rows of a file of JSON lines. Throws Error(io, bad_input) naming file and line.
std::vector<Row> read_rows(const std::string& path);

/// Makes `others` the peers of the rows that measured the same (op, recipe, m, n, k): fills peer, peer_seconds, ratio.
/// Returns how many rows found theirs.
std::size_t compare(std::span<Row> rows, std::span<const Row> others, const std::string& name);

}  // namespace lowp::bench
