#include "lowp/models/attention.h"

#include <algorithm>
#include <cmath>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/matmul.h"

namespace lowp::models {

using formats::round_to;

RopeTable::RopeTable(const Rope& rope, std::int64_t head_dim, formats::Elem compute)
    : factor_(static_cast<float>(rope.attention_factor)), head_dim_(head_dim), compute_(compute) {
  for (const double f : rope_frequencies(rope, head_dim)) frequencies_.push_back(static_cast<float>(f));
}

void RopeTable::angles(std::int64_t position, std::vector<float>& cos, std::vector<float>& sin) const {
  cos.resize(frequencies_.size());
  sin.resize(frequencies_.size());
  for (std::size_t i = 0; i < frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];
    cos[i] = round_to(compute_, std::cos(angle) * factor_);
    sin[i] = round_to(compute_, std::sin(angle) * factor_);
  }
}

void RopeTable::rotate(float* heads, std::int64_t count, std::int64_t position) const {
  thread_local std::vector<float> cos, sin;
  angles(position, cos, sin);
  const std::int64_t half = head_dim_ / 2;
  for (std::int64_t h = 0; h < count; ++h) {
    float* x = heads + h * head_dim_;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = round_to(compute_, round_to(compute_, a * cos[i]) + round_to(compute_, -b * sin[i]));
      x[i + half] = round_to(compute_, round_to(compute_, b * cos[i]) + round_to(compute_, a * sin[i]));
    }
  }
}

void attend(const AttendArgs& args, formats::Elem compute, float* out) {
  constexpr std::int64_t kRows = 16;
  const kernels::cpu::MatmulKernels& kernels = kernels::cpu::matmul_kernels();
  const std::int64_t d = args.head_dim;
  std::vector<float> queries(static_cast<std::size_t>(kRows * d)), sum(static_cast<std::size_t>(d)), scores;
  for (std::int64_t top = 0; top < args.rows; top += kRows) {
    const std::int64_t rows = std::min(kRows, args.rows - top), end = args.past + top + rows;
    // The first row's window begins first.
    const auto window_begin = [&](std::int64_t position) {
      return args.window > 0 ? std::max<std::int64_t>(0, position + 1 - args.window) : 0;
    };
    const std::int64_t begin = window_begin(args.past + top), visible = end - begin;
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(args.queries + (top + r) * args.stride, d, queries.data() + r * d);
    scores.resize(static_cast<std::size_t>(rows * visible));
    kernels.matmul(queries.data(), rows, args.keys.data() + begin * d, visible, d, scores.data(), visible);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t position = args.past + top + r, first = window_begin(position), seen = position + 1 - first;
      float* p = scores.data() + r * visible + (first - begin);
      float largest = -INFINITY;
      for (std::int64_t j = 0; j < seen; ++j) largest = std::max(largest, p[j] *= args.scale);
      float total = 0;
      for (std::int64_t j = 0; j < seen; ++j) total += p[j] = std::exp(p[j] - largest);
      kernels.weighted_sum(p, args.values.data() + first * d, seen, d, sum.data());
      float* to = out + (top + r) * args.stride;
      for (std::int64_t i = 0; i < d; ++i) to[i] = round_to(compute, sum[i] / total);
    }
  }
}

}  // namespace lowp::models
