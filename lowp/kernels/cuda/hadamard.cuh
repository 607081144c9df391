// The butterflies of kernels/head_hadamard.h where lanes of a warp hold a head.
#pragma once

#include "lowp/kernels/hadamard.h"

namespace lowp::kernels::cuda {

/// Of 8 * lanes values, eight a lane, one after the other; `lanes` is a power of two, `lane` this one's number among
/// them. Without the factor. All lanes of the warp take part.
__device__ __forceinline__ void hadamard_butterflies(float (&v)[8], int lane, int lanes) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2) hadamard_step<8>(v, distance);
  for (int across = 1; across < lanes; across *= 2) {
    const bool second = lane & across;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, v[i], across);
      v[i] = second ? other - v[i] : v[i] + other;
    }
  }
}

}  // namespace lowp::kernels::cuda
