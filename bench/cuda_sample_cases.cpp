#include "bench/cuda_sample_cases.h"

#include <algorithm>
#include <memory>

#include "bench/cuda_device.h"
#include "bench/layer_shape.h"
#include "bench/sample_cases.h"
#include "lowp/base/bits.h"
#include "lowp/base/quantile.h"
#include "lowp/engine/sampler.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/sample.h"
#include "lowp/kernels/cuda/transfer.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;

constexpr std::int32_t kEdits = 1000, kTop = 20;
constexpr int kSampleCalls = 16;

template <typename T>
cuda::Memory on_device(const std::vector<T>& values) {
  return cuda::uploaded(std::as_bytes(std::span(values)));
}

struct SampleOperands {
  cuda::SampleTask draw;
  cuda::ScoreTask score;
  cuda::Memory logits, draws, edits, changed, token, rows, tops, logprob, above, top_token, top_logprob;

  SampleOperands(const SampleWay& way, std::int64_t vocab, std::int64_t count, bool edited) {
    const std::vector<float> row = sample_logits(vocab, way.flat);
    std::vector<std::uint16_t> all;
    for (std::int64_t r = 0; r < count; ++r)
      for (const float x : row)
        all.push_back(static_cast<std::uint16_t>(float_bits(formats::round_to(formats::Elem::bf16, x)) >> 16));
    std::vector<cuda::Draw> how;
    std::vector<kernels::LogitEdit> changes;
    std::vector<std::int32_t> numbers, wanted(static_cast<std::size_t>(count), kTop);
    const engine::Sampling& s = way.sampling;
    for (std::int32_t r = 0; r < count; ++r) {
      numbers.push_back(r);
      how.push_back({.uniform = engine::uniform(1, static_cast<std::uint64_t>(r)),
                     .top_p = s.top_p,
                     .min_p = static_cast<float>(s.min_p),
                     .temperature = static_cast<float>(s.temperature),
                     .top_k = static_cast<std::int32_t>(s.top_k),
                     .row = r});
      if (!edited) continue;
      how.back().changed = r;
      how.back().edits = static_cast<std::int32_t>(changes.size());
      for (std::int32_t i = 0; i < kEdits; ++i) changes.push_back({.id = i * 97, .penalty = 1.1f});
      how.back().edits_end = static_cast<std::int32_t>(changes.size());
    }
    logits = on_device(all);
    draws = on_device(how);
    edits = on_device(changes);
    rows = on_device(numbers);
    tops = on_device(wanted);
    if (edited) changed = cuda::Memory(static_cast<std::size_t>(count * vocab) * 4);
    const auto each = static_cast<std::size_t>(count) * 4;
    for (cuda::Memory* memory : {&token, &logprob, &above}) *memory = cuda::Memory(each);
    for (cuda::Memory* memory : {&top_token, &top_logprob}) *memory = cuda::Memory(each * kTop);
    draw = {.logits = logits.as<>(),
            .vocab = vocab,
            .limit = vocab,
            .draws = draws.as<cuda::Draw>(),
            .count = count,
            .edits = edits.as<kernels::LogitEdit>(),
            .changed = changed.as<float>(),
            .token = token.as<std::int32_t>()};
    score = {.logits = logits.as<>(),
             .vocab = vocab,
             .limit = vocab,
             .row = rows.as<std::int32_t>(),
             .token = rows.as<std::int32_t>(),
             .top = tops.as<std::int32_t>(),
             .count = count,
             .listed = kTop,
             .logprob = logprob.as<float>(),
             .above = above.as<std::int32_t>(),
             .top_token = top_token.as<std::int32_t>(),
             .top_logprob = top_logprob.as<float>()};
  }
};

}  // namespace

std::vector<Case> cuda_sample_cases(const Selection& selection) {
  struct What {
    SampleWay way;
    bool edited = false, scores = false;
  };
  std::vector<What> all;
  for (const SampleWay& way : sample_ways(selection)) all.push_back({way});
  if (selection.recipes.empty()) {
    all.push_back({{"penalties", {.top_p = 0.9}}, true});
    all.push_back({{"scores", {}}, false, true});
  }
  const std::int64_t vocab = selection.n.value_or(kVocab);
  std::vector<Case> made;
  for (const What& what : all)
    for (const std::int64_t rows : selection.m ? std::vector{*selection.m} : std::vector<std::int64_t>{1, 64})
      made.push_back({"sample",
                      what.way.name,
                      rows,
                      vocab,
                      0,
                      static_cast<std::uint64_t>(rows * vocab * 2),
                      0,
                      "read",
                      {},
                      [=](Row& row, Device& device, const Effort& effort) {
                        const SampleOperands operands(what.way, vocab, rows, what.edited);
                        row.samples = graph_samples(
                            [&](std::size_t) {
                              if (what.scores)
                                cuda::score(operands.score, cuda_stream().handle());
                              else
                                cuda::sample(operands.draw, cuda_stream().handle());
                            },
                            kSampleCalls, effort.most);
                        row.seconds = median(row.samples);
                        row.limit = device.probe(row.limit_name, 0);
                      }});
  return made;
}

}  // namespace lowp::bench
