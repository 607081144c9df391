// RoPE, a Hadamard transform where it is asked for, and the new keys and values into their pages: a block for each row,
// head_dim / 16 threads for each of its heads.
#include <algorithm>
#include <cmath>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/front.cuh"
#include "lowp/kernels/cuda/hadamard.cuh"
#include "lowp/kernels/cuda/layers.cuh"
#include "lowp/kernels/cuda/layers_launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 384;

// What a thread has of a head: values [8 t, 8 t + 8), and those that RoPE pairs them with, half the head further.
struct Values {
  float low[8], high[8];

  __device__ __forceinline__ void load(const void* head, std::int64_t begin, int t, int half) {
    load_written(head, begin + 8 * t).values(low);
    load_written(head, begin + half + 8 * t).values(high);
  }
};

// Over the threads of a head, whose number is a power of two.
template <typename T, typename Combine>
__device__ __forceinline__ T over_head(T mine, int threads, Combine combine) {
  for (int mask = threads / 2; mask > 0; mask /= 2) mine = combine(mine, __shfl_xor_sync(0xFFFFFFFFu, mine, mask));
  return mine;
}

__device__ __forceinline__ void normalise(Values& x, const float* weight, float eps, bool round_quotient, int t,
                                          int threads) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = __fmaf_rn(x.high[i], x.high[i], __fmaf_rn(x.low[i], x.low[i], squares));
  squares = over_head(squares, threads, [](float a, float b) { return a + b; });
  const float scale =
      formats::divide(1.0f, __fsqrt_rn(formats::divide(squares, static_cast<float>(16 * threads)) + eps));
  const auto apply = [&](float(&v)[8], const float* w) {
    float factor[8];
    load_constants(w, factor);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      v[i] *= scale;
      v[i] = round_bf16(factor[i] * (round_quotient ? round_bf16(v[i]) : v[i]));
    }
  };
  apply(x.low, weight + 8 * t);
  apply(x.high, weight + 8 * threads + 8 * t);
}

// What a thread turns its values by, which are at the same places of all heads.
struct Angles {
  float cos[8], sin[8];

  __device__ __forceinline__ void rotate(Values& x) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float a = x.low[i], b = x.high[i];
      x.low[i] = round_bf16(round_bf16(a * cos[i]) - round_bf16(b * sin[i]));
      x.high[i] = round_bf16(round_bf16(b * cos[i]) + round_bf16(a * sin[i]));
    }
  }
};

// The Hadamard transform of a head, rounded to bf16.
__device__ __forceinline__ void transform(Values& x, int t, int threads) {
  hadamard_butterflies(x.low, t, threads);
  hadamard_butterflies(x.high, t, threads);
  const float factor = threads == 4 ? 0.125f : threads == 8 ? 0.0883883461f : 0.0625f;  // 1 / sqrt(16 threads)
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float a = x.low[i], b = x.high[i];
    x.low[i] = round_bf16((a + b) * factor);
    x.high[i] = round_bf16((a - b) * factor);
  }
}

// Divides by a scale where only codes of the quotient are wanted, whose magnitude is at most 448: they are those of the
// IEEE division. The reciprocal is shared, and nothing branches; a kernel that inlines sixteen divisions with a way out
// for unusual operands spends a step of one row on fetching its instructions.
class Scaled {
 public:
  __device__ __forceinline__ explicit Scaled(float scale) {
    // By powers of two to where the reciprocal is a normal number, and so is every remainder that decides.
    power_ = scale < 0x1p-40f ? 0x1p100f : scale > 0x1p60f ? 0x1p-100f : 1.0f;
    scale_ = scale * power_;
    inverse_ = formats::reciprocal(scale_);
  }
  __device__ __forceinline__ float quotient(float x) const {
    x *= power_;
    const float q = x * inverse_;
    return x == 0 ? x : __fmaf_rn(__fmaf_rn(-scale_, q, x), inverse_, q);
  }

 private:
  float power_, scale_, inverse_;
};

template <Elem kType>
__device__ __forceinline__ std::uint64_t encode(const float (&v)[8], const Scaled& scale) {
  std::uint64_t codes = 0;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    std::uint32_t two;
    const float a = scale.quotient(v[i]), b = scale.quotient(v[i + 1]);
    if constexpr (kType == Elem::e4m3)
      two = ptx::cvt_e4m3x2(a, b);
    else
      two = (static_cast<std::uint32_t>(__float2int_rn(a)) & 0xFF) |
            (static_cast<std::uint32_t>(__float2int_rn(b)) & 0xFF) << 8;
    codes |= static_cast<std::uint64_t>(two) << 8 * i;
  }
  return codes;
}

// Stores a token's key or value at `to`, its plane's beginning, and its scale at `scale`.
template <Elem kType>
__device__ __forceinline__ void store(const Values& x, const KvPageLayout& layout, unsigned char* to, float* scale,
                                      int token, int t, int threads, bool present) {
  const int low = layout.offset(token, 8 * t), high = layout.offset(token, 8 * threads + 8 * t);
  if constexpr (kType == Elem::bf16) {
    if (!present) return;
    store_eight(to + low, 0, to_chunk<Elem::bf16>(x.low));
    store_eight(to + high, 0, to_chunk<Elem::bf16>(x.high));
  } else {
    std::uint32_t amax = 0;  // as bits: whatever is not finite wins
#pragma unroll
    for (int i = 0; i < 8; ++i)
      amax = max(amax, max(float_bits(x.low[i]) & 0x7FFFFFFFu, float_bits(x.high[i]) & 0x7FFFFFFFu));
    amax = over_head(amax, threads, [](std::uint32_t a, std::uint32_t b) { return max(a, b); });
    if (!present) return;
    constexpr float kLargest = kType == Elem::e4m3 ? 448.0f : 127.0f;
    const float found = is_finite(bits_float(amax)) ? formats::divide(bits_float(amax), kLargest) : NAN;
    const bool codes = found > 0;
    const Scaled by(codes ? found : 1.0f);
    *reinterpret_cast<std::uint64_t*>(to + low) = codes ? encode<kType>(x.low, by) : 0;
    *reinterpret_cast<std::uint64_t*>(to + high) = codes ? encode<kType>(x.high, by) : 0;
    if (t == 0) scale[token] = found;
  }
}

template <Elem kType>
__global__ void __launch_bounds__(kThreads) rotate_and_store(const __grid_constant__ RotateStoreTask task) {
  ptx::launch_dependents();
  // Positions, pages and angles were there before the step began.
  const std::int64_t row = blockIdx.x;
  const std::int32_t position = task.positions[row];
  if (position < 0) {
    if (row == 0) ptx::wait_for_predecessor();  // the grid must not end before it
    return;
  }
  const KvPageLayout layout = task.kv.layout;
  const int half = layout.head_dim / 2, threads = half / 8, t = static_cast<int>(threadIdx.x) % threads;
  const int heads = static_cast<int>(task.heads), count = heads + 2 * layout.kv_heads, slot = position % kPageTokens;
  auto* page =
      static_cast<unsigned char*>(task.kv.pages[task.sequences[row] * task.kv.max_pages + position / kPageTokens]) +
      task.kv.layer_offset;
  const std::int64_t at_angles = static_cast<std::int64_t>(position) * half + 8 * t;
  Angles angles;
  load_constants(task.cos + at_angles, angles.cos);
  load_constants(task.sin + at_angles, angles.sin);
  ptx::wait_for_predecessor();
  // All threads of a warp stay together for the shuffles: a head beyond the last is computed like a value and dropped.
  for (int first = 0; first < count; first += static_cast<int>(blockDim.x) / threads) {
    const int head = first + static_cast<int>(threadIdx.x) / threads;
    const bool is_query = head < heads, is_key = !is_query && head < heads + layout.kv_heads, present = head < count;
    const int kv_head = is_key ? head - heads : present ? head - heads - layout.kv_heads : 0;
    Values x;
    if (is_query)
      x.load(task.q, row * task.q_stride + std::int64_t{head} * layout.head_dim, t, half);
    else
      x.load(is_key ? task.k : task.v,
             row * (is_key ? task.k_stride : task.v_stride) + std::int64_t{kv_head} * layout.head_dim, t, half);
    // Norms shuffle, so that all lanes take part where any does.
    if (task.q_norm || task.k_norm) {
      const float* weight = is_query ? task.q_norm : task.k_norm;
      Values normal = x;
      normalise(normal,
                weight        ? weight
                : task.q_norm ? task.q_norm
                              : task.k_norm,
                task.eps, task.round_quotient, t, threads);
      if ((is_query || is_key) && weight) x = normal;
    }
    if (is_query || is_key) angles.rotate(x);
    if (task.hadamard_keys || task.hadamard_values) {
      Values rotated = x;
      transform(rotated, t, threads);
      if (is_query || is_key ? task.hadamard_keys : task.hadamard_values) x = rotated;
    }
    if (is_query) {
      const std::int64_t at = row * task.q_stride + std::int64_t{head} * layout.head_dim + 8 * t;
      store_eight(task.q, at, to_chunk<Elem::bf16>(x.low));
      store_eight(task.q, at + half, to_chunk<Elem::bf16>(x.high));
    }
    auto* to = page + (is_key ? layout.keys_at(kv_head) : layout.values_at(kv_head));
    auto* scale =
        reinterpret_cast<float*>(page + (is_key ? layout.key_scales_at(kv_head) : layout.value_scales_at(kv_head)));
    store<kType>(x, layout, to, scale, slot, t, threads, present && !is_query);
  }
}

}  // namespace

void launch_rotate_store(const RotateStoreTask& task, StreamHandle stream) {
  const KvPageLayout& layout = task.kv.layout;
  const std::int64_t wanted = (task.heads + 2 * layout.kv_heads) * (layout.head_dim / 16);
  const int threads = static_cast<int>(std::min<std::int64_t>(kThreads, round_up<std::int64_t>(wanted, 32)));
  const auto kernel = layout.type == Elem::bf16   ? rotate_and_store<Elem::bf16>
                      : layout.type == Elem::e4m3 ? rotate_and_store<Elem::e4m3>
                                                  : rotate_and_store<Elem::int8>;
  launch_early(kernel, task.rows, threads, task, stream);
}

}  // namespace lowp::kernels::cuda
