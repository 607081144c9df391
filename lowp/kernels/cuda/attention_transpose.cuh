// Values of e4m3, token by token as a page holds them, become rows along the tokens, as wgmma wants an 8-bit operand.
//
// The order along both sides is one that needs no shuffles. Among 16 tokens it is 0 1 8 9 2 3 10 11 ...: lane t of the
// scores' rows then has what it must hold of the weights, and a transposed pair of rows is two of its bytes. Among 16
// values of the head it is 0 2 4 ... 14 1 3 ... 15: of two neighbours, which ldmatrix moves together, each goes to a
// matrix of its own, and a lane of the sums has four neighbours.
#pragma once

#include "lowp/kernels/cuda/attention_operands.cuh"

namespace lowp::kernels::cuda {

/// One warp turns a page's values of one head at `from` into part `page` of 64 bytes of the rows of 128 bytes at `to`,
/// which are swizzled by 128 bytes. Tokens from `seen` on become zeros. Of a product with these rows, lane (g, t) then
/// has in columns 8j + 2t and 8j + 2t + 1, j even, the head's values 8j + 4t and 8j + 4t + 2; in the same columns of
/// j + 1, those behind each of them.
template <class Op>
__device__ __forceinline__ void transpose_page(std::uint32_t from, std::uint32_t to, int page, int seen, int lane) {
  static_assert(Op::kType == Elem::e4m3 && Op::kDim <= 128);
  const std::uint32_t own = Op::lane_offset(lane, false), row = to + lane * 128;
  const int t = lane & 3;
#pragma unroll
  for (int part = 0; part < kPageTokens / 16; ++part) {
    const auto mask = [&](int token) { return (token < seen ? 0xFFFFu : 0u) | (token + 1 < seen ? 0xFFFF0000u : 0u); };
    const std::uint32_t low = mask(16 * part + 2 * t), high = mask(16 * part + 8 + 2 * t);
    const std::uint32_t chunk = static_cast<std::uint32_t>((4 * page + part) ^ (lane & 7)) << 4;
    std::uint32_t in[Op::kDim / 32][4];
#pragma unroll
    for (int i = 0; i < Op::kDim / 32; ++i)
      ptx::load_matrices_transposed(in[i], Op::chunk_address(from + 16 * part * Op::kRowBytes, own, 2 * i));
#pragma unroll
    for (int i = 0; i < Op::kDim / 32; ++i) {
      const std::uint32_t a = in[i][0] & low, b = in[i][1] & high, c = in[i][2] & low, d = in[i][3] & high;
      ptx::store_matrices(row + i * 32 * 128 + chunk, ptx::pick_bytes(a, b, 0x6420), ptx::pick_bytes(a, b, 0x7531),
                          ptx::pick_bytes(c, d, 0x6420), ptx::pick_bytes(c, d, 0x7531));
    }
  }
}

}  // namespace lowp::kernels::cuda
