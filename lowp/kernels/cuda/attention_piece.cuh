// A warp's 16 query rows meet a piece of a page of 8-bit keys and values in shared memory: scores, softmax, and the
// weighted sum of the values.
#pragma once

#include "lowp/kernels/cuda/attention_rows.cuh"
#include "lowp/kernels/cuda/attention_softmax.cuh"

namespace lowp::kernels::cuda {

/// The two products on the tensor cores, query rows on their side of 16: lane (g, t) has rows g and g + 8.
template <class Op>
struct Piece {
  static_assert(Op::k8Bit);
  /// Bytes of a tile of query rows in shared memory: for each 16 values of the head the operand A, 16 bytes a lane.
  static constexpr int kQueryBytes = Op::kSteps * 512;

  /// Puts rows g and g + 8 at `to`; rows as in query_pairs().
  static __device__ __forceinline__ void stage_queries(const std::uint16_t* const (&rows)[2], const float (&power)[2],
                                                       int lane, std::uint32_t to) {
    const float down[2] = {Op::query_inverse(power[0]), Op::query_inverse(power[1])};
    for (int s = 0; s < Op::kSteps; ++s) {
      const uint2 a = Op::query_pairs(rows[0], s, lane & 3), b = Op::query_pairs(rows[1], s, lane & 3);
      ptx::store_shared(to + s * 512 + lane * 16,
                        uint4{Op::query_operand(a.x, down[0]), Op::query_operand(b.x, down[1]),
                              Op::query_operand(a.y, down[0]), Op::query_operand(b.y, down[1])});
    }
  }
  static __device__ __forceinline__ void load_queries(std::uint32_t from, int step, int lane, std::uint32_t (&a)[4]) {
    const uint4 v = ptx::load_shared_16(from + step * 512 + lane * 16);
    a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
  }

  /// s[j] = the staged rows times tokens 8j .. 8j + 7 of kTiles / 2 times 16: element i of lane (g, t) is row
  /// g + 8 (i / 2), token 8j + 2t + i % 2. `tokens`: address of the first token's key.
  template <int kTiles>
  static __device__ __forceinline__ void scores(std::uint32_t queries, std::uint32_t tokens, int lane,
                                                float (&s)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (float& v : s[j]) v = 0;
    const std::uint32_t own = Op::lane_offset(lane, true);
    // Operands are loaded some chunks at a time: what a product needs has long arrived, as far as registers allow.
    constexpr int kChunks = Op::kSteps / 2, kMost = Op::kDim == 256 ? 1 : 8 / kTiles,
                  kBatch = kMost < kChunks ? kMost : kChunks;
#pragma unroll
    for (int first = 0; first < kChunks; first += kBatch) {
      std::uint32_t q[2 * kBatch][4], b[kBatch][kTiles / 2][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
#pragma unroll
        for (int j = 0; j < kTiles / 2; ++j)
          ptx::load_matrices(b[c][j], Op::chunk_address(tokens + 16 * j * Op::kRowBytes, own, 2 * (first + c)));
#pragma unroll
        for (int next = 0; next < 2; ++next) load_queries(queries, 2 * (first + c) + next, lane, q[2 * c + next]);
      }
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const std::uint32_t(&keys)[4] = b[c][j / 2];
#pragma unroll
          for (int next = 0; next < 2; ++next) {
            std::uint32_t b0, b1;
            Op::decode(keys[2 * (j % 2) + next], b0, b1);
            ptx::mma_f16(s[j], q[2 * c + next], b0, b1);
          }
        }
    }
  }

  /// What rows have gathered of the values; each_pair() says which lane has what.
  using Mixed = float[Op::kDim / 8][4];

  /// mixed += weights times values. `keep`: masks of the lane's tokens 2t, 2t + 1 and 8 + 2t, 9 + 2t, whose other
  /// values count as zeros whatever they are.
  static __device__ __forceinline__ void mix(const std::uint32_t (&weights)[4], std::uint32_t tokens, int lane,
                                             const std::uint32_t (&keep)[2], Mixed& mixed) {
    const std::uint32_t own = Op::lane_offset(lane, false);
    constexpr int kLoads = Op::kDim / 32, kBatch = Op::kDim == 256 ? 1 : 2;
#pragma unroll
    for (int first = 0; first < kLoads; first += kBatch) {
      std::uint32_t b[kBatch][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
        ptx::load_matrices_transposed(b[c], Op::chunk_address(tokens, own, 2 * (first + c)));
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          const int chunk = 2 * (first + c) + next;
          const std::uint32_t low = b[c][2 * next] & keep[0], high = b[c][2 * next + 1] & keep[1];
          // A transposed pair is two neighbouring codes of a token: even and odd values of the head are two operands.
          std::uint32_t even[2], odd[2];
          Op::decode(ptx::pick_bytes(low, 0, 0x3120), even[0], odd[0]);
          Op::decode(ptx::pick_bytes(high, 0, 0x3120), even[1], odd[1]);
          ptx::mma_f16(mixed[2 * chunk], weights, even[0], even[1]);
          ptx::mma_f16(mixed[2 * chunk + 1], weights, odd[0], odd[1]);
        }
    }
  }

  /// body(i, a, b): values i and i + 1 of row g + 8 * half, of all that the lane has.
  template <typename Body>
  static __device__ __forceinline__ void each_pair(const Mixed& mixed, int half, int t, const Body& body) {
#pragma unroll
    for (int j = 0; j < Op::kDim / 8; ++j) {
      const int even = j / 2 * 2, i = j % 2;
      body(16 * (j / 2) + 4 * t + 2 * i, mixed[even][2 * half + i], mixed[even + 1][2 * half + i]);
    }
  }
};

/// What a warp's rows have gathered so far.
template <class Op>
struct WarpSums {
  typename Piece<Op>::Mixed mixed;
  SoftmaxRows rows;
  ValuePower power;  // of mixed

  __device__ __forceinline__ void clear() {
    rows = SoftmaxRows();
    power = ValuePower();
#pragma unroll
    for (auto& tile : mixed)
#pragma unroll
      for (float& v : tile) v = 0;
  }
};

/// The kTiles * 8 tokens of a page from `slot` on, which stand at position `first` <= rows.last; `queries`, `page`:
/// addresses of staged queries, and of the page's keys, values and scales.
template <int kTiles, class Op>
__device__ __forceinline__ void attend(const TileRows& rows, std::uint32_t queries, std::uint32_t page, int slot,
                                       int first, int lane, WarpSums<Op>& sums) {
  const int t = lane & 3;
  const std::uint32_t keys = page + slot * Op::kRowBytes;
  float s[kTiles][4];
  Piece<Op>::scores(queries, keys, lane, s);
  // What lies beyond the last token that a row sees may be anything, and must not meet even a weight of zero.
  const int last = rows.last - first;
  const bool all = rows.sees_all(first, 8 * kTiles);
  float value_scale[2 * kTiles];
  const std::uint32_t scales = page + 2 * Op::kKeysBytes + (slot + 2 * t) * 4;
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    const float2 key = ptx::load_shared_float2(scales + 32 * j),
                 value = ptx::load_shared_float2(scales + 4 * kPageTokens + 32 * j);
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] *= i % 2 ? key.y : key.x;
    value_scale[2 * j] = 8 * j + 2 * t <= last ? value.x : 0.0f;
    value_scale[2 * j + 1] = 8 * j + 2 * t + 1 <= last ? value.y : 0.0f;
  }
  if (!all) rows.hide(s, first, t);
  float decays[2];
  sums.rows.weigh(s, rows.factor, decays);
  std::uint32_t largest = 0;
#pragma unroll
  for (const float scale : value_scale) largest = max(largest, ValuePower::field(scale));
  largest = max(largest, __shfl_xor_sync(~0u, largest, 1));
  largest = max(largest, __shfl_xor_sync(~0u, largest, 2));
  const float grown = sums.power.grow(largest), inverse = sums.power.inverse();
#pragma unroll
  for (float& d : decays) d *= grown;
#pragma unroll
  for (int j = 0; j < kTiles; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] *= value_scale[2 * j + i % 2] * inverse;
  if (__any_sync(~0u, decays[0] != 1 || decays[1] != 1)) {
#pragma unroll
    for (auto& tile : sums.mixed)
#pragma unroll
      for (int i = 0; i < 4; ++i) tile[i] *= decays[i / 2];
  }
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const std::uint32_t weights[4] = {Op::pack_weights(s[j][0], s[j][1]), Op::pack_weights(s[j][2], s[j][3]),
                                      Op::pack_weights(s[j + 1][0], s[j + 1][1]),
                                      Op::pack_weights(s[j + 1][2], s[j + 1][3])};
    const auto mask = [&](int token) {
      return (token <= last ? 0xFFFFu : 0u) | (token + 1 <= last ? 0xFFFF0000u : 0u);
    };
    const std::uint32_t keep[2] = {mask(8 * j + 2 * t), mask(8 * j + 8 + 2 * t)};
    Piece<Op>::mix(weights, keys + 8 * j * Op::kRowBytes + Op::kKeysBytes, lane, keep, sums.mixed);
  }
}

}  // namespace lowp::kernels::cuda
