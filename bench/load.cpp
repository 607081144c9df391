#include "bench/load.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "lowp/base/error.h"

namespace lowp::bench {

std::vector<LoadRequest> random_load(const RandomLoad& what) {
  std::mt19937_64 random(what.seed);
  const auto length = [&](std::int64_t middle) {
    const auto low = static_cast<std::int64_t>(std::floor(static_cast<double>(middle) * (1 - what.ratio)));
    const auto high = static_cast<std::int64_t>(std::ceil(static_cast<double>(middle) * (1 + what.ratio)));
    return std::uniform_int_distribution<std::int64_t>(std::max<std::int64_t>(low, 1),
                                                       std::max<std::int64_t>(high, 1))(random);
  };
  std::uniform_int_distribution<std::int32_t> any(0, static_cast<std::int32_t>(what.vocab_size) - 1);
  std::vector<std::int32_t> prefix(static_cast<std::size_t>(what.prefix));
  for (auto& id : prefix) id = any(random);
  std::vector<LoadRequest> load;
  for (std::int64_t i = 0; i < what.count; ++i) {
    std::vector<std::int32_t> ids = prefix;
    for (std::int64_t n = length(what.input); n > 0; --n) ids.push_back(any(random));
    load.push_back(
        {.prompt = ids, .prompt_tokens = static_cast<std::int64_t>(ids.size()), .output_tokens = length(what.output)});
  }
  return load;
}

std::vector<LoadRequest> sharegpt_load(const std::string& path, std::int64_t count, std::int64_t output,
                                       std::uint64_t seed,
                                       const std::function<std::int64_t(const std::string&)>& tokens) {
  constexpr std::size_t kMostBytes = std::size_t{4} << 30;
  const Json all = read_json(path, {.bytes = kMostBytes});
  if (!all.is_array()) fail(ErrorCode::bad_input, "{}: expected a list of conversations", path);
  std::vector<const Json*> conversations;
  for (const Json& one : all) {
    const auto turns = one.find("conversations");
    if (turns != one.end() && turns->is_array() && turns->size() >= 2) conversations.push_back(&*turns);
  }
  std::mt19937_64 random(seed);
  std::shuffle(conversations.begin(), conversations.end(), random);
  constexpr std::int64_t kLeast = 4, kMostPrompt = 1024, kMostTotal = 2048;
  std::vector<LoadRequest> load;
  for (const Json* turns : conversations) {
    if (static_cast<std::int64_t>(load.size()) == count) break;
    const Json &first = (*turns)[0], &second = (*turns)[1];
    if (!first.contains("value") || !second.contains("value") || !first["value"].is_string() ||
        !second["value"].is_string())
      continue;
    const auto prompt = first["value"].get<std::string>();
    const std::int64_t in = tokens(prompt), out = output > 0 ? output : tokens(second["value"].get<std::string>());
    if (in < kLeast || (output <= 0 && out < kLeast) || in > kMostPrompt || in + out > kMostTotal) continue;
    load.push_back({.prompt = prompt, .prompt_tokens = in, .output_tokens = out});
  }
  if (load.empty()) fail(ErrorCode::bad_input, "{}: no conversation of a usable length", path);
  for (std::size_t i = 0; static_cast<std::int64_t>(load.size()) < count; ++i) load.push_back(load[i]);
  return load;
}

std::vector<double> arrivals(std::size_t count, double rate, double burstiness, std::uint64_t seed) {
  std::vector<double> at(count, 0);
  if (std::isinf(rate) || count == 0) return at;
  std::mt19937_64 random(seed);
  std::gamma_distribution<double> gap(burstiness, 1 / (rate * burstiness));
  double now = 0;
  for (double& t : at) t = now += gap(random);
  const double scale = static_cast<double>(count) / rate / now;
  for (double& t : at) t *= scale;
  return at;
}

}  // namespace lowp::bench
