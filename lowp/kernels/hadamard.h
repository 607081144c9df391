// The random Hadamard transform of NVFP4 training: runs of 16 values times diag(signs) H / 4. Sums go by butterflies of
// distance 1, 2, 4, 8, in f32, on every backend.
#pragma once

#include "lowp/base/bits.h"

namespace lowp::kernels {

inline constexpr int kHadamardRun = 16;

/// Bit i: whether value i of a run is negated. torchao's default vector (1 1 1 -1 1 -1 -1 -1 -1 -1 -1 1 -1 1 -1 -1).
inline constexpr std::uint32_t kHadamardSigns = 0xD7E8u;

/// Value i of a run with its sign.
LOWP_HD constexpr float hadamard_sign(float x, int i) { return kHadamardSigns >> i & 1u ? -x : x; }

/// One butterfly between values `distance` apart, for the `count` values at v.
template <int count>
LOWP_HD constexpr void hadamard_step(float* v, int distance) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int i = 0; i < count; ++i)
    if (!(i & distance)) {
      const float a = v[i], b = v[i + distance];
      v[i] = a + b;
      v[i + distance] = a - b;
    }
}

/// A whole run in place, not rounded.
LOWP_HD constexpr void hadamard16(float* v) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int i = 0; i < kHadamardRun; ++i) v[i] = hadamard_sign(v[i], i);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int distance = 1; distance < kHadamardRun; distance *= 2) hadamard_step<kHadamardRun>(v, distance);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int i = 0; i < kHadamardRun; ++i) v[i] *= 0.25f;
}

}  // namespace lowp::kernels
