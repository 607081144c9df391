// Casts of rows to formats whose groups have scales of their own, as e4m3 with one scale a row: each value goes to the
// format's grid first, by its group's scale, and then to e4m3 by the row's.
#include "lowp/kernels/cuda/cast_row.cuh"
#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/cuda/row_before.cuh"
#include "lowp/kernels/cuda/row_ptx.cuh"
#include "lowp/kernels/cuda/row_rebase.h"

namespace lowp::kernels::cuda {
namespace {

struct Args {
  BeforeArgs before;
  void* codes;
  float* scale;
  std::uint32_t bump;  // mx_bump
  bool tensor_scale;   // nvfp4 of two levels
};

/// The largest number of all threads' chunks. Every thread of the block calls it.
__device__ __forceinline__ std::uint32_t largest_of_row(const std::uint32_t (&mine)[kRowChunks]) {
  std::uint32_t most = mine[0];
#pragma unroll
  for (int i = 1; i < kRowChunks; ++i) most = max(most, mine[i]);
  return combine_over_block<Elem::f32>(most);
}

/// f32 bits of the largest magnitude among the neighbouring lanes that hold a group of kLanes chunks.
template <int kLanes>
__device__ __forceinline__ std::uint32_t group_amax(const Bf16x8& chunk) {
  std::uint32_t most = chunk.max_abs_packed();
#pragma unroll
  for (int mask = 1; mask < kLanes; mask *= 2) most = combine_across<Elem::bf16>(most, mask);
  return amax_bits<Elem::bf16>(most);
}

/// x on the grid of a float format of fewer than 8 bits.
template <Elem E>
__device__ __forceinline__ float on_grid(float x) {
  return copysignf(fminf(round_to_step<E>(x), formats::max_value(E)), x);
}

/// The power of two that takes a format's largest value to at most 448, as high as there is one.
template <Elem E>
inline constexpr int kUp = E == Elem::e4m3   ? 0
                           : E == Elem::e2m3 ? 5
                           : E == Elem::e3m2 ? 4
                                             : 6;
template <Elem E>
inline constexpr bool kFits = formats::max_value(E) * exp2i(kUp<E>) <= 448 && formats::max_value(E) * exp2i(kUp<E>) >
                                                                                  224;
static_assert(kFits<Elem::e4m3> && kFits<Elem::e2m3> && kFits<Elem::e3m2> && kFits<Elem::e2m1>);

/// Codes of eight values of an MX group whose power of two is 2^down below the row's.
template <Elem E>
__device__ __forceinline__ std::uint64_t rebased(const Bf16x8& chunk, float multiplier, int down) {
  float v[8];
  chunk.values(v);
  if constexpr (E == Elem::e4m3) {
    // f16 holds e4m3's values and all that they can become on the way to codes that are not zero.
    const std::uint32_t half = down < 15   ? (15u - down) << 10
                               : down < 25 ? 1u << (24 - down)
                                           : 0,
                        both = half * 0x10001u;
    std::uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t code = ptx::cvt_e4m3x2(v[2 * i] * multiplier, v[2 * i + 1] * multiplier);
      pair[i] = ptx::cvt_e4m3x2_f16x2(ptx::mul_f16x2(ptx::cvt_f16x2_e4m3x2(static_cast<std::uint16_t>(code)), both));
    }
    return (pair[0] | pair[1] << 16) | static_cast<std::uint64_t>(pair[2] | pair[3] << 16) << 32;
  } else {
    const float by = bits_float(static_cast<std::uint32_t>(max(127 + kUp<E> - down, 0)) << 23);
#pragma unroll
    for (float& x : v) x = on_grid<E>(x * multiplier) * by;
    return encode8_bytes<Elem::e4m3>(v);
  }
}

// Threads of a block: twice as many hold rows twice as long as kMostRow.
constexpr int kThreads = 512, kMostThreads = 1024;
static_assert(kMostThreads * kRowChunks * 8 == kMostRebasedRow);

template <Elem E, Before kBefore, int kMost = kThreads>
__global__ void __launch_bounds__(kMost) rebase_rows(const __grid_constant__ Args args) {
  ptx::launch_dependents();
  Bf16x8 row[kRowChunks];
  load_row<kBefore>(args.before, row);
  std::uint32_t code[kRowChunks];
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i)
    code[i] = fast_mx_scale_code<E, Elem::bf16>(Scaling::rceil, args.bump, group_amax<4>(row[i]));
  const std::uint32_t most = largest_of_row(code);
  if (threadIdx.x == 0) {
    const int exponent = static_cast<int>(most) - kUp<E>;
    const std::uint32_t bits = exponent > 0 ? static_cast<std::uint32_t>(exponent) << 23 : 0x00400000u >> -exponent;
    args.scale[blockIdx.x] = most == 255 ? bits_float(formats::kQuietNan) : bits_float(bits);
  }
  auto* const codes =
      static_cast<std::uint64_t*>(args.codes) + static_cast<std::int64_t>(blockIdx.x) * args.before.chunks;
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i)
    if (const int at = row_chunk(i); at < args.before.chunks)
      codes[at] = rebased<E>(row[i], mx_multiplier(Scaling::rceil, code[i]), static_cast<int>(most - code[i]));
}

/// The scale of an nvfp4 group of this largest magnitude: formats::choose_params. `reciprocal`: of the tensor scale.
__device__ __forceinline__ Nvfp4Scale nvfp4_scale(std::uint32_t amax, float tensor_scale, float reciprocal) {
  const float ratio = formats::divide(formats::divide(bits_float(amax), 6.0f), tensor_scale);
  const std::uint32_t code = encode_normal_e4m3(clamp(ratio, 0x1p-6f, 448.0f));
  return {code, formats::divide(reciprocal, decode_normal_e4m3(code))};
}

/// nvfp4, whose values of up to five significant bits e4m3 rounds to four. A row's tensor scale is its own.
template <Before kBefore, int kMost = kThreads>
__global__ void __launch_bounds__(kMost) round_rows(const __grid_constant__ Args args) {
  ptx::launch_dependents();
  Bf16x8 row[kRowChunks];
  load_row<kBefore>(args.before, row);
  std::uint32_t amax[kRowChunks];
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) amax[i] = group_amax<2>(row[i]);
  const std::uint32_t most = largest_of_row(amax);
  const float tensor_scale = args.tensor_scale ? formats::nvfp4_tensor_scale(bits_float(most)) : 1.0f,
              reciprocal = formats::divide(1.0f, tensor_scale);
  // Six times the scale of the largest group, at most 2688, comes to (224, 448].
  const float top = 6.0f * decode_normal_e4m3(nvfp4_scale(most, tensor_scale, reciprocal).code);
  const int exponent = static_cast<int>((float_bits(top) + 0x1FFFFFu) >> 23) - 127 - 8;
  const float down = exp2i(-exponent);
  if (threadIdx.x == 0) args.scale[blockIdx.x] = tensor_scale * exp2i(exponent);
  auto* const codes =
      static_cast<std::uint64_t*>(args.codes) + static_cast<std::int64_t>(blockIdx.x) * args.before.chunks;
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    const int at = row_chunk(i);
    if (at >= args.before.chunks) continue;
    const Nvfp4Scale scale = nvfp4_scale(amax[i], tensor_scale, reciprocal);
    const float by = decode_normal_e4m3(scale.code) * down;
    float v[8];
    row[i].values(v);
#pragma unroll
    for (float& x : v) x = x == 0 ? 0.0f : on_grid<Elem::e2m1>(x * scale.multiplier) * by;
    codes[at] = encode8_bytes<Elem::e4m3>(v);
  }
}

template <Elem E>
void launch_mx(const CastRowsTask& task, Args args, StreamHandle stream) {
  args.bump = mx_bump(E, Scaling::rceil);
  const auto kernel = task.norm                ? rebase_rows<E, Before::norm>
                      : task.gate              ? rebase_rows<E, Before::gate>
                      : task.width <= kMostRow ? rebase_rows<E, Before::nothing>
                                               : rebase_rows<E, Before::nothing, kMostThreads>;
  launch_early(kernel, task.rows, row_threads(task.width), args, stream);
}

}  // namespace

void launch_rebase_rows(const CastRowsTask& task, StreamHandle stream) {
  const Args args{.before = before_args(task),
                  .codes = task.codes,
                  .scale = task.scale,
                  .bump = 0,
                  .tensor_scale = task.format->tensor_scale};
  if (task.format->rule == formats::Rule::nvfp4) {
    const auto kernel = task.norm                ? round_rows<Before::norm>
                        : task.gate              ? round_rows<Before::gate>
                        : task.width <= kMostRow ? round_rows<Before::nothing>
                                                 : round_rows<Before::nothing, kMostThreads>;
    return launch_early(kernel, task.rows, row_threads(task.width), args, stream);
  }
  switch (task.format->element) {
    case Elem::e4m3:
      return launch_mx<Elem::e4m3>(task, args, stream);
    case Elem::e2m3:
      return launch_mx<Elem::e2m3>(task, args, stream);
    case Elem::e3m2:
      return launch_mx<Elem::e3m2>(task, args, stream);
    default:
      return launch_mx<Elem::e2m1>(task, args, stream);
  }
}

}  // namespace lowp::kernels::cuda
