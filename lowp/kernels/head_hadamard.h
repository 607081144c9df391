// The Hadamard transform of a head: its own inverse, so that values that are rotated on their way into attention are
// rotated back on their way out. Order and scale are torchao's (torchao-spec 6); all backends add in this order.
#pragma once

#include <cmath>
#include <cstdint>

namespace lowp::kernels {

inline constexpr std::int64_t kMostHadamard = 256;

/// Heads that can be rotated.
constexpr bool has_hadamard(std::int64_t dim) { return dim > 0 && dim <= kMostHadamard && (dim & (dim - 1)) == 0; }

/// v [dim] times the orthonormal Hadamard matrix in its natural (Sylvester's) order, in f32: butterflies of distance 1,
/// 2, 4, ... , then a factor 1 / sqrt(dim).
inline void hadamard_head(float* v, std::int64_t dim) {
  for (std::int64_t distance = 1; distance < dim; distance *= 2)
    for (std::int64_t begin = 0; begin < dim; begin += 2 * distance)
      for (std::int64_t i = begin; i < begin + distance; ++i) {
        const float a = v[i], b = v[i + distance];
        v[i] = a + b;
        v[i + distance] = a - b;
      }
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (std::int64_t i = 0; i < dim; ++i) v[i] *= scale;
}

}  // namespace lowp::kernels
