#include "lowp/ops/input_stats.h"

#include <algorithm>
#include <cmath>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/matmul.h"

namespace lowp::ops {
namespace {

constexpr std::int64_t kTile = 64;  // columns of the Gram matrix that a thread takes at a time

// gram += x^T x, tiles on and above the diagonal computed, the others mirrored.
void add_gram(std::span<const float> x, std::int64_t rows, std::int64_t k, std::vector<float>& gram) {
  std::vector<float> columns(x.size());  // [k, rows]
  parallel_for(k, kTile, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = begin; c < end; ++c) columns[c * rows + r] = x[r * k + c];
  });
  parallel_for(ceil_div(k, kTile), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> product(static_cast<std::size_t>(kTile * k));
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t top = tile * kTile, height = std::min(kTile, k - top), width = k - top;
      kernels::cpu::matmul_kernels().matmul(columns.data() + top * rows, height, columns.data() + top * rows, width,
                                            rows, product.data(), width);
      for (std::int64_t i = 0; i < height; ++i)
        for (std::int64_t j = i; j < width; ++j) {
          const float sum = gram[(top + i) * k + top + j] += product[i * width + j];
          gram[(top + j) * k + top + i] = sum;
        }
    }
  });
}

}  // namespace

void InputStats::add(std::span<const float> x, std::int64_t k, bool with_gram) {
  const auto width = static_cast<std::size_t>(k);
  if (amax.empty()) {
    amax.resize(width);
    square.resize(width);
    if (with_gram) gram.resize(width * width);
  }
  LOWP_CHECK(amax.size() == width && gram.empty() != with_gram, "statistics of {} columns, not {}", amax.size(), k);
  const std::int64_t count = static_cast<std::int64_t>(x.size()) / k;
  for (std::int64_t r = 0; r < count; ++r)
    for (std::size_t c = 0; c < width; ++c) {
      const float value = x[static_cast<std::size_t>(r) * width + c];
      amax[c] = std::max(amax[c], std::fabs(value));
      square[c] += static_cast<double>(value) * static_cast<double>(value);
    }
  if (with_gram) add_gram(x, count, k, gram);
  rows += count;
}

float InputStats::largest() const { return amax.empty() ? 0 : *std::max_element(amax.begin(), amax.end()); }

std::vector<float> InputStats::mean_square() const {
  std::vector<float> result(square.size());
  for (std::size_t c = 0; c < result.size(); ++c) result[c] = static_cast<float>(square[c] / static_cast<double>(rows));
  return result;
}

}  // namespace lowp::ops
