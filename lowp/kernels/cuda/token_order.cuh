// Ids and their logits as one integer: the larger, the likelier; of equal logits the lower id.
#pragma once

#include <cstdint>

#include "lowp/base/bits.h"

namespace lowp::kernels::cuda {

/// The integers of two numbers compare as the numbers do, and those of both zeros are equal.
__device__ __forceinline__ std::uint32_t rising_bits(float x) {
  const std::uint32_t bits = float_bits(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float of_rising_bits(std::uint32_t rising) {
  return bits_float(rising & 0x80000000u ? rising & 0x7FFFFFFFu : ~rising);
}

/// Above 0 for every number.
__device__ __forceinline__ std::uint64_t token_order(float x, std::uint32_t id) {
  return static_cast<std::uint64_t>(rising_bits(x)) << 32 | (0xFFFFFFFFu - id);
}
__device__ __forceinline__ std::int32_t id_of_order(std::uint64_t order) {
  return static_cast<std::int32_t>(0xFFFFFFFFu - static_cast<std::uint32_t>(order));
}
__device__ __forceinline__ float logit_of_order(std::uint64_t order) {
  return of_rising_bits(static_cast<std::uint32_t>(order >> 32));
}

}  // namespace lowp::kernels::cuda
