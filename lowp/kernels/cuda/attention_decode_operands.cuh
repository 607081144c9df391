// The two products of attention with tokens, and values of a head, on the tensor cores' side of 16: a warp's 16 tokens
// of a page in shared memory meet 8 query rows. Types and their decoding are those of attention_operands.cuh.
//
// Lane (g, t) = (lane / 4, lane % 4) has of the scores tokens g and g + 8 of rows 2t and 2t + 1.
#pragma once

#include "lowp/kernels/cuda/attention_operands.cuh"
#include "lowp/kernels/cuda/attention_softmax.cuh"
#include "lowp/kernels/cuda/attention_work.cuh"

namespace lowp::kernels::cuda {

/// A tile of query rows, as operand B of each 16 values of the head, and what they see.
template <class Op>
struct DecodeRows {
  uint2 queries[Op::kSteps];          // of row g
  float factor[2];                    // of the scores of rows 2t, 2t + 1
  int first_token[2], last_token[2];  // that those rows see; a last of -1: there is no such row
  int last, least_last, greatest_first;

  __device__ __forceinline__ void load(const AttentionTask& task, const Group& group, const SequenceWork& work,
                                       int kv_head, int flat, int lane) {
    const int g = lane / 4, t = lane & 3, count = work.rows * group;
    const std::uint16_t* row = flat + g < count
                                   ? static_cast<const std::uint16_t*>(task.q) +
                                         flat_offset(work, flat + g, group, kv_head, task.q_stride, Op::kDim)
                                   : nullptr;
#pragma unroll
    for (int s = 0; s < Op::kSteps; ++s) queries[s] = Op::query_pairs(row, s, t);
    const float power = Op::query_power(row, t), down = Op::query_inverse(power);
    if constexpr (Op::k8Bit) {
#pragma unroll
      for (uint2& pairs : queries) pairs = {Op::query_operand(pairs.x, down), Op::query_operand(pairs.y, down)};
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int own = flat + 2 * t + h;
      const bool present = own < count;
      const int index = present ? group.divide(own) : 0;
      first_token[h] = work.first_token(task, index);
      last_token[h] = present ? work.past + index : -1;
      factor[h] = task.scale * kLog2e * __shfl_sync(~0u, power, 4 * (2 * t + h));
    }
    last = __reduce_max_sync(~0u, max(last_token[0], last_token[1]));
    least_last = __reduce_min_sync(~0u, min(last_token[0], last_token[1]));
    greatest_first = __reduce_max_sync(~0u, max(first_token[0], first_token[1]));
  }
};

/// Over the eight lanes that have the same rows.
template <typename T, typename Combine>
__device__ __forceinline__ T over_tokens(T mine, Combine combine) {
#pragma unroll
  for (int mask = 4; mask < 32; mask *= 2) mine = combine(mine, __shfl_xor_sync(~0u, mine, mask));
  return mine;
}

/// What a warp's tokens have given so far: of values g and g + 8 (8 bits: 2g and 2g + 1) of each 16 of the head, rows
/// 2t and 2t + 1.
template <class Op>
struct DecodeSums {
  float mixed[Op::kSteps][4] = {};
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // sum: of this lane's tokens
  ValuePower power;

  /// The sixteen tokens of a page from `slot` on, which stand at position `first` <= rows.last; `page`: the address of
  /// the page's keys, values and scales.
  __device__ __forceinline__ void attend(const DecodeRows<Op>& rows, std::uint32_t page, int slot, int first,
                                         int lane) {
    const int g = lane / 4, t = lane & 3;
    const std::uint32_t keys = page + slot * Op::kRowBytes;
    float s[4];
    scores(rows, keys, lane, s);
    // What lies beyond the last token that a row sees may be anything, and must not meet even a weight of zero.
    const int last = rows.last - first;
    float value_scale[2];
    if constexpr (Op::k8Bit) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t scales = page + 2 * Op::kKeysBytes + (slot + g + 8 * i) * 4;
        const float key = bits_float(ptx::load_shared_4(scales)),
                    value = bits_float(ptx::load_shared_4(scales + 4 * kPageTokens));
        s[2 * i] *= key;
        s[2 * i + 1] *= key;
        value_scale[i] = g + 8 * i <= last ? value : 0.0f;
      }
    }
    if (first < rows.greatest_first || first + 15 > rows.least_last) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = first + g + 8 * (i / 2);
        if (token < rows.first_token[i % 2] || token > rows.last_token[i % 2]) s[i] = -INFINITY;
      }
    }
    float decays[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const auto larger = [](float a, float b) { return fmaxf(a, b); };
      const float top = fmaxf(most[h], over_tokens(fmaxf(s[h], s[2 + h]), larger) * rows.factor[h]);
      decays[h] = decay(most[h], top);
      most[h] = top;
      const float reference = top == -INFINITY ? 0.0f : top;
      s[h] = ptx::ex2_or_zero(__fmaf_rn(s[h], rows.factor[h], -reference));
      s[2 + h] = ptx::ex2_or_zero(__fmaf_rn(s[2 + h], rows.factor[h], -reference));
      sum[h] = sum[h] * decays[h] + (s[h] + s[2 + h]);
    }
    if constexpr (Op::k8Bit) {
      const auto larger = [](std::uint32_t a, std::uint32_t b) { return max(a, b); };
      const float grown = power.grow(
                      over_tokens(max(ValuePower::field(value_scale[0]), ValuePower::field(value_scale[1])), larger)),
                  inverse = power.inverse();
#pragma unroll
      for (int i = 0; i < 4; ++i) s[i] *= value_scale[i / 2] * inverse;
#pragma unroll
      for (float& d : decays) d *= grown;
    }
    if (__any_sync(~0u, decays[0] != 1 || decays[1] != 1)) {
#pragma unroll
      for (auto& tile : mixed)
#pragma unroll
        for (int i = 0; i < 4; ++i) tile[i] *= decays[i % 2];
    }
    const auto mask = [&](int token) {
      return (token <= last ? 0xFFFFu : 0u) | (token + 1 <= last ? 0xFFFF0000u : 0u);
    };
    mix(ptx::transpose(Op::pack_weights(s[0], s[1])), ptx::transpose(Op::pack_weights(s[2], s[3])),
        keys + Op::kKeysBytes, mask(2 * t), mask(8 + 2 * t), lane);
  }

  __device__ __forceinline__ float whole_sum(int h) const {
    return over_tokens(sum[h], [](float a, float b) { return a + b; });
  }

 private:
  static constexpr int kChunks = Op::k8Bit ? Op::kSteps / 2 : Op::kSteps;  // loads of four matrices
  static constexpr int kBatch = kChunks < 4 ? kChunks : 4;                 // that are on their way together

  static __device__ __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
    if constexpr (Op::k8Bit)
      ptx::mma_f16(d, a, b0, b1);
    else
      ptx::mma_bf16(d, a, b0, b1);
  }

  static __device__ __forceinline__ void scores(const DecodeRows<Op>& rows, std::uint32_t keys, int lane,
                                                float (&s)[4]) {
    const std::uint32_t own = Op::lane_offset(lane, false);
    float odd[4] = {};  // every second product: two chains are done sooner than one
#pragma unroll
    for (float& v : s) v = 0;
#pragma unroll
    for (int first = 0; first < kChunks; first += kBatch) {
      std::uint32_t a[kBatch][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c) ptx::load_matrices(a[c], Op::chunk_address(keys, own, 2 * (first + c)));
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
        const int chunk = first + c;
        if constexpr (Op::k8Bit) {
#pragma unroll
          for (int next = 0; next < 2; ++next) {
            std::uint32_t k[4];
            Op::decode(a[c][2 * next], k[0], k[2]);
            Op::decode(a[c][2 * next + 1], k[1], k[3]);
            const uint2 q = rows.queries[2 * chunk + next];
            multiply(next ? odd : s, k, q.x, q.y);
          }
        } else {
          multiply(chunk % 2 ? odd : s, a[c], rows.queries[chunk].x, rows.queries[chunk].y);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i] += odd[i];
  }

  __device__ __forceinline__ void mix(std::uint32_t weights0, std::uint32_t weights1, std::uint32_t values,
                                      std::uint32_t keep0, std::uint32_t keep1, int lane) {
    const std::uint32_t own = Op::lane_offset(lane, true);
#pragma unroll
    for (int first = 0; first < kChunks; first += kBatch) {
      std::uint32_t a[kBatch][4];
#pragma unroll
      for (int c = 0; c < kBatch; ++c)
        ptx::load_matrices_transposed(a[c], Op::chunk_address(values, own, 2 * (first + c)));
#pragma unroll
      for (int c = 0; c < kBatch; ++c) {
        const std::uint32_t v[4] = {a[c][0] & keep0, a[c][1] & keep0, a[c][2] & keep1, a[c][3] & keep1};
        if constexpr (Op::k8Bit) {
          // Matrices 0 and 2 are sixteen values, 1 and 3 the next. A transposed pair is two neighbouring codes of a
          // token: even values of the head become rows 0 to 7 of the operand, odd ones rows 8 to 15.
#pragma unroll
          for (int next = 0; next < 2; ++next) {
            std::uint32_t d[4];
            Op::decode(ptx::pick_bytes(v[next], 0, 0x3120), d[0], d[1]);
            Op::decode(ptx::pick_bytes(v[2 + next], 0, 0x3120), d[2], d[3]);
            multiply(mixed[2 * (first + c) + next], d, weights0, weights1);
          }
        } else {
          multiply(mixed[first + c], v, weights0, weights1);
        }
      }
    }
  }
};

}  // namespace lowp::kernels::cuda
