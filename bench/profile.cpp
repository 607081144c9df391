#include "bench/profile.h"

#include <algorithm>
#include <map>

#include "bench/clock.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/report/speed.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;

// Sequences behind a prompt, and a step of them that can be repeated.
class Step {
 public:
  Step(models::Model& model, std::int64_t sequences, std::int64_t past, std::int64_t tokens)
      : model_(model), past_(past) {
    const std::int64_t vocab = model.config().vocab_size;
    for (std::int64_t i = 0; i < sequences; ++i) {
      caches_.emplace_back(model);
      prompts_.push_back(report::synthetic_prompt(past + tokens, vocab, i));
    }
    for (std::size_t i = 0; i < caches_.size(); ++i) {
      const models::Chunk prompt{std::span(prompts_[i]).first(static_cast<std::size_t>(past)), &caches_[i]};
      if (past > 0) model.forward({&prompt, 1});
    }
  }

  /// The step, and the likeliest ids behind it.
  void run() {
    std::vector<models::Chunk> batch;
    std::vector<std::int64_t> rows;
    std::int64_t row = 0;
    for (std::size_t i = 0; i < caches_.size(); ++i) {
      caches_[i].truncate(past_);
      batch.push_back({std::span(prompts_[i]).subspan(static_cast<std::size_t>(past_)), &caches_[i]});
      row += static_cast<std::int64_t>(batch.back().tokens.size());
      rows.push_back(row - 1);
    }
    model_.forward(batch);
    model_.likeliest(rows, model_.config().vocab_size);
  }

 private:
  models::Model& model_;
  std::int64_t past_;
  std::vector<models::Cache> caches_;
  std::vector<std::vector<std::int32_t>> prompts_;
};

// Each probed when it is first wanted, behind a step: the best of some, since an idle GPU's clocks are low.
class Limits {
 public:
  explicit Limits(Device& device) : device_(device) {}

  double seconds(const cuda::Work& work) {
    const double reading = work.bytes > 0 ? work.bytes / rate("read") : 0;
    if (work.multiplies == cuda::Multiplies::nothing) return reading;
    return std::max(reading, work.flop / rate(work.multiplies == cuda::Multiplies::e4m3   ? "e4m3_product"
                                              : work.multiplies == cuda::Multiplies::int8 ? "int8_product"
                                                                                          : "bf16_product"));
  }

 private:
  double rate(const std::string& limit) {
    const auto [at, fresh] = rates_.try_emplace(limit);
    for (int i = 0; fresh && i < 5; ++i) at->second = std::max(at->second, device_.probe(limit));
    return at->second;
  }

  Device& device_;
  std::map<std::string, double> rates_;
};

// What attention does is not known where it is launched: lengths are in device memory. Windows are not looked at.
cuda::Work attention_work(const models::Model& model, cuda::Work work, std::int64_t sequences, std::int64_t past,
                          std::int64_t tokens) {
  const models::Config& c = model.config();
  const auto count = [](std::int64_t n) { return static_cast<double>(n); };
  const double seen = count(sequences) * count(tokens) * (count(past) + count(tokens + 1) / 2);  // pairs of tokens
  const auto stored = model.options().stored();
  if (work.name == "attend_prefill") work.flop = 4 * seen * count(c.num_attention_heads * c.head_dim);
  if (work.name == "attend_decode")
    work.bytes = 2 * seen * count(c.num_key_value_heads * c.head_dim) * formats::info(stored).bits / 8;
  return work;
}

StepProfile profile(models::Model& model, Limits& limits, int runs, const std::string& test, std::int64_t sequences,
                    std::int64_t past, std::int64_t tokens) {
  Step step(model, sequences, past, tokens);
  StepProfile result{.test = test};
  step.run();
  std::vector<double> whole;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    step.run();
    whole.push_back(since(start));
  }
  result.seconds = median(whole);

  std::vector<std::vector<double>> times;  // of each launch
  std::vector<cuda::TimedWork> works;
  {
    cuda::Profile profile;
    for (int i = 0; i < runs; ++i) {
      step.run();
      works = profile.take();
      times.resize(works.size());
      for (std::size_t k = 0; k < works.size(); ++k) times[k].push_back(works[k].seconds);
    }
  }
  std::map<std::string, std::pair<KernelTime, double>> by_name;  // and the time at the limits
  for (std::size_t k = 0; k < works.size(); ++k) {
    auto& [kernel, least] = by_name[works[k].name];
    kernel.name = works[k].name;
    ++kernel.calls;
    kernel.seconds += median(times[k]);
    least += limits.seconds(attention_work(model, works[k], sequences, past, tokens));
  }
  for (auto& [name, found] : by_name) {
    found.first.share = found.second / found.first.seconds;
    result.kernels.push_back(found.first);
  }
  std::sort(result.kernels.begin(), result.kernels.end(),
            [](const KernelTime& a, const KernelTime& b) { return a.seconds > b.seconds; });
  return result;
}

}  // namespace

std::vector<StepProfile> profile_model(models::Model& model, Device& device, const ModelBench& what) {
  if (!model.options().device.is_cuda())
    fail(ErrorCode::unsupported, "--profile: kernels are told apart on GPUs only (perf does it for the cpu)");
  Limits limits(device);
  std::vector<StepProfile> all;
  if (what.prefill > 0)
    all.push_back(profile(model, limits, what.runs, fmt::format("pp{}", what.prefill), 1, 0, what.prefill));
  if (what.decode > 0) all.push_back(profile(model, limits, what.runs, "tg1", 1, what.batch_prompt, 1));
  for (const std::int64_t batch : what.batches)
    if (batch > 0)
      all.push_back(profile(model, limits, what.runs, fmt::format("batch{}", batch), batch, what.batch_prompt, 1));
  return all;
}

}  // namespace lowp::bench
