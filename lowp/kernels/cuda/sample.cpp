#include "lowp/kernels/cuda/sample.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/kernels/cuda/sample_launch.h"

namespace lowp::kernels::cuda {
namespace {

void check_logits(std::int64_t vocab, std::int64_t limit) {
  LOWP_CHECK(vocab % 8 == 0 && vocab <= 1 << 19 && limit > 0 && limit <= vocab, "{} of {} logits", limit, vocab);
}

Work reads(const char* name, std::int64_t logits) { return {.name = name, .bytes = 2.0 * static_cast<double>(logits)}; }

}  // namespace

void sample(const SampleTask& task, StreamHandle stream) {
  check_logits(task.vocab, task.limit);
  const Timed timed(stream, [&] { return reads("sample", task.count * task.vocab); });
  if (task.count) launch_sample(task, stream);
}

void score(const ScoreTask& task, StreamHandle stream) {
  check_logits(task.vocab, task.limit);
  LOWP_CHECK(task.listed >= 0 && task.listed <= ScoreTask::kMostTop, "{} likeliest ids", task.listed);
  const Timed timed(stream, [&] { return reads("score", task.count * task.vocab); });
  if (task.count) launch_score(task, stream);
}

}  // namespace lowp::kernels::cuda
