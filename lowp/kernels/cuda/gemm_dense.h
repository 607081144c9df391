// Products of two matrices of codes of 8 bits on Hopper's tensor cores.
#pragma once

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// How the sums of a product of fp8 are kept.
enum class Sums : std::uint8_t {
  fast,      // in the tensor cores' accumulator all along K: about 13 bits once the sum outgrows its terms
  promoted,  // every 128 of K added to an f32
  scaled,    // every 128 of K multiplied by its scales and added to an f32
  integer,   // int32, exact
};

/// y [m, n] bf16 = a_scale * b_scale * sum over k of a [m, k] b [n, k] + bias. Codes are e4m3, or int8 with
/// Sums::integer. k is a multiple of 16, n of 8; matrices begin at multiples of 16 bytes.
struct DenseProduct {
  std::int64_t m = 0, n = 0, k = 0;
  Sums sums = Sums::promoted;
  const void* a = nullptr;         // [m, k]
  const void* b = nullptr;         // [n, k]
  const float* a_scale = nullptr;  // [m], or [1]; Sums::scaled: [m, k / 128]
  const float* b_scale = nullptr;  // [n], or [1]; Sums::scaled: [n / 128, k / 128], both rounded up
  bool a_scale_each = true;        // one a row, or one for all
  bool b_scale_each = true;
  const void* bias = nullptr;  // bf16 [n], or null
  // Sums::integer: with both, a is read as a - a_zero [m]; b_sum [n] holds the sums over k of b.
  const std::int8_t* a_zero = nullptr;
  const std::int32_t* b_sum = nullptr;
  void* y = nullptr;
};

/// Enqueues the product. Results do not depend on the run.
void dense_product(const DenseProduct& product, StreamHandle stream);

/// The same over experts: every 128 rows of a and y belong to one of them. `expert_of_block` [ceil(m / 128)] is in
/// device memory; blocks with a negative number are left alone. b is [experts, n, k]; its scales, one a row or one an
/// expert or, with Sums::scaled, of blocks, stand expert after expert, as b_sum does. There is no bias.
struct GroupedProduct : DenseProduct {
  std::int64_t experts = 0;
  const std::int32_t* expert_of_block = nullptr;
};
void grouped_product(const GroupedProduct& product, StreamHandle stream);

/// The tile that dense_product takes for a shape, for people: "256x128, clusters of 2 along n".
const char* dense_variant_name(const DenseProduct& product);

}  // namespace lowp::kernels::cuda
