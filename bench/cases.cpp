#include "bench/cases.h"

#include <algorithm>

#include "bench/cast_cases.h"
#include "bench/clock.h"
#include "bench/cuda_attention_cases.h"
#include "bench/cuda_cast_cases.h"
#include "bench/cuda_front_cases.h"
#include "bench/cuda_gemm_cases.h"
#include "bench/cuda_layer_cases.h"
#include "bench/cuda_moe_cases.h"
#include "bench/cuda_sample_cases.h"
#include "bench/gemm_cases.h"
#include "bench/sample_cases.h"
#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/base/quantile.h"

namespace lowp::bench {
namespace {

struct Family {
  std::string_view name;
  std::string_view device;  // how the device's name begins
  std::vector<Case> (*cases)(const Selection& selection);
};

constexpr Family kFamilies[] = {
    {"cast", "cpu", cast_cases},
    {"gemm", "cpu", gemm_cases},
    {"sample", "cpu", sample_cases},
    {"cast", "cuda", cuda_cast_cases},
    {"experts", "cuda", cuda_expert_cases},
    {"front", "cuda", cuda_front_cases},
    {"dequantize", "cuda", cuda_dequantize_cases},
    {"small", "cuda", cuda_small_cases},
    {"gemm", "cuda", cuda_gemm_cases},
    {"attention", "cuda", cuda_attention_cases},
    {"layers", "cuda", cuda_layer_cases},
    {"moe", "cuda", cuda_moe_cases},
    {"sample", "cuda", cuda_sample_cases},
};

const Limit& find_limit(const Device& device, std::string_view name) {
  for (const Limit& limit : device.limits())
    if (limit.name == name) return limit;
  LOWP_CHECK(false, "{} has no limit {}", device.name(), name);
}

}  // namespace

std::vector<std::string> families(const Device& device) {
  std::vector<std::string> names;
  for (const Family& family : kFamilies)
    if (device.name().starts_with(family.device)) names.emplace_back(family.name);
  return names;
}

std::vector<Case> cases(const std::string& name, const Device& device, const Selection& selection) {
  for (const Family& family : kFamilies)
    if (family.name == name && device.name().starts_with(family.device)) return family.cases(selection);
  const std::vector<std::string> known = families(device);
  fail(ErrorCode::usage, "--op {}: {} has no such kernels{}; it has {}", name, device.name(), did_you_mean(name, known),
       fmt::join(known, ", "));
}

Row measure(const Case& what, Device& device, const Effort& effort) {
  const Limit& limit = find_limit(device, what.limit_name);
  Row row;
  row.op = what.op;
  row.recipe = what.recipe;
  row.m = what.m;
  row.n = what.n;
  row.k = what.k;
  row.device = device.description();
  row.bytes = what.bytes;
  row.flop = what.flop;
  row.limit_name = what.limit_name;
  const auto share = [&] {
    return static_cast<double>(limit.of == Limit::Of::bytes ? what.bytes : what.flop) / row.seconds / row.limit;
  };
  if (what.measure) {
    what.measure(row, device, effort);
    row.share = share();
    return row;
  }
  const std::function<void()> run = what.prepare();
  device.seconds(run);
  std::vector<double> limits;
  const auto start = Clock::now();
  const auto enough = [&] {
    const int count = static_cast<int>(row.samples.size());
    return count >= effort.most || (count >= effort.least && since(start) > effort.seconds);
  };
  while (!enough()) {
    limits.push_back(device.probe(what.limit_name, what.bytes));
    row.samples.push_back(device.seconds(run));
  }
  row.seconds = median(row.samples);
  row.limit = median(limits);
  row.share = share();
  return row;
}

std::vector<Row> probe_limits(Device& device) {
  std::vector<Row> rows;
  for (const Limit& limit : device.limits()) {
    Row row;
    row.op = "probe";
    row.recipe = limit.name;
    row.device = device.description();
    row.limit_name = limit.name;
    row.share = 1;
    std::vector<double> rates;
    for (int i = 0; i < 5; ++i) rates.push_back(device.probe(limit.name));
    row.limit = median(rates);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace lowp::bench
