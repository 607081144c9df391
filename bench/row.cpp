#include "bench/row.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/file.h"

namespace lowp::bench {
namespace {

Json optional(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::optional<double> optional_number(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

Row parse_row(const Json& json) {
  Row row;
  row.op = json.at("op");
  row.recipe = json.at("recipe");
  row.m = json.at("m");
  row.n = json.at("n");
  row.k = json.at("k");
  row.device = json.at("device");
  row.seconds = json.at("seconds");
  row.bytes = json.at("bytes");
  row.flop = json.at("flop");
  row.limit_name = json.at("limit_name");
  row.limit = json.at("limit");
  row.share = json.at("share");
  row.peer = json.at("peer").is_null() ? "" : json.at("peer").get<std::string>();
  row.peer_seconds = optional_number(json.at("peer_seconds"));
  row.ratio = optional_number(json.at("ratio"));
  row.samples = json.at("samples").get<std::vector<double>>();
  return row;
}

}  // namespace

Json to_json(const Row& row) {
  return {{"op", row.op},
          {"recipe", row.recipe},
          {"m", row.m},
          {"n", row.n},
          {"k", row.k},
          {"device", row.device},
          {"seconds", row.seconds},
          {"bytes", row.bytes},
          {"flop", row.flop},
          {"limit_name", row.limit_name},
          {"limit", row.limit},
          {"share", row.share},
          {"peer", row.peer.empty() ? Json(nullptr) : Json(row.peer)},
          {"peer_seconds", optional(row.peer_seconds)},
          {"ratio", optional(row.ratio)},
          {"samples", row.samples}};
}

std::vector<Row> read_rows(const std::string& path) {
  const std::string text = read_text(path);
  std::vector<Row> rows;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}, line {}", path, number);
    const Json json = parse_json(line, where);
    try {
      rows.push_back(parse_row(json));
    } catch (const Json::exception& e) {
      fail(ErrorCode::bad_input, "{}: not a benchmark row: {}", where, e.what());
    }
  }
  return rows;
}

std::size_t compare(std::span<Row> rows, std::span<const Row> others, const std::string& name) {
  std::size_t found = 0;
  for (Row& row : rows) {
    const auto other = std::find_if(others.begin(), others.end(), [&](const Row& r) {
      return r.op == row.op && r.recipe == row.recipe && r.m == row.m && r.n == row.n && r.k == row.k && r.seconds > 0;
    });
    if (other == others.end() || row.seconds <= 0) continue;
    row.peer = name;
    row.peer_seconds = other->seconds;
    row.ratio = other->seconds / row.seconds;
    ++found;
  }
  return found;
}

}  // namespace lowp::bench
