// Products with weights in the layout of gemm_packed_layout.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "lowp/kernels/cuda/gemm_packed_layout.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// y [m, n] bf16 = x_scale * row_scale * sum over k of x [m, k] W + bias. k is a multiple of 16, n of 8; x and y begin
/// at multiples of 16 bytes.
struct PackedProduct {
  Codes codes = Codes::bf16;
  Scales scales = Scales::none;
  std::int64_t m = 0, n = 0, k = 0;
  const void* x = nullptr;         // bf16; e4m3 with Codes::e2m1_folded where `cast` is null
  const float* x_scale = nullptr;  // or null; of row i at i * x_scale_step
  int x_scale_step = 1;
  const std::uint8_t* units = nullptr;
  const float* row_scale = nullptr;
  const void* bias = nullptr;  // bf16 [n], or null
  void* y = nullptr;
  bool overlaps_predecessor = true;  // weights are fetched while the kernel before still runs

  // Wide tiles of up to 128 rows for any m: sums in an order that n and k alone decide, so that a row always has the
  // same bits.
  bool same_order = false;

  // Where fuses_input(): x is the norm's result instead, which is not written (rows, width and out are not looked at),
  // and is put on a grid of 8 bits, its scales with the sum.
  const AddNormTask* norm = nullptr;
  const formats::BlockSpec* cast = nullptr;  // casts_rows()

  // Where fuses_gate(): y [m, n / 2] = activation(gate) * up, of outputs that are gate and up by turns, eight and
  // eight.
  std::optional<GateActivation> gate = {};
};

/// Whether the kernel for so many rows can normalise and cast what it reads; of codes, scales, m, n and k.
bool fuses_input(const PackedProduct& product);
/// Whether it can apply a gate.
bool fuses_gate(const PackedProduct& product);

/// Through what blocks of packed_products() hand each other vectors: `values` bf16 twice behind a header. All bytes are
/// 0xFF and the header's 0 before the first use; no two kernels use it at the same time.
struct ProductMail {
  static constexpr int kHeader = 16;
  void* memory = nullptr;
  int values = 0;  // a multiple of 8

  std::size_t bytes() const { return kHeader + static_cast<std::size_t>(values) * 4; }
};

/// Products of one row in one kernel, each of which may read what those before have written, from where it was written
/// to: they have the same codes and scales, and gemv is what packed_product() would launch for each. Whether `next` can
/// follow `first`.
inline constexpr int kMostChained = 4;
bool chains(const PackedProduct& first, const PackedProduct& next);
/// Values of mail that a product may take.
int mailed_values(const PackedProduct& product);
/// Enqueues up to kMostChained of them, with the numbers of one after the other.
void packed_products(std::span<const PackedProduct> products, const ProductMail& mail, StreamHandle stream);

/// Enqueues the product: up to 8 rows by gemv, beyond by wide tiles. Sums run in f32 in an order that depends on n and
/// k and on which of the kernels runs, not on m otherwise, nor on the run.
void packed_product(const PackedProduct& product, StreamHandle stream);

/// What packed_product launches for a shape, for people: "gemv", "wide, 64 rows, K in 2 parts".
std::string packed_kernel_name(const PackedProduct& product);

}  // namespace lowp::kernels::cuda
