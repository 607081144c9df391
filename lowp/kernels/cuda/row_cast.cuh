// Eight codes as numbers of bf16, and the two formats whose codes those are.
#pragma once

#include "lowp/kernels/cuda/cast_groups.cuh"
#include "lowp/kernels/cuda/layers.cuh"

namespace lowp::kernels::cuda {

/// The formats of casts_rows().
enum class RowCast : std::uint8_t { none, e4m3, int8 };

inline RowCast row_cast_of(const formats::BlockSpec* format) {
  if (!format) return RowCast::none;
  return format->element == Elem::e4m3 ? RowCast::e4m3 : RowCast::int8;
}
/// What their codecs want.
inline CodecArgs row_codec_args(const formats::BlockSpec& format) {
  CodecArgs args;
  args.format = format;
  if (!formats::info(format.element).is_float())
    args.range = {formats::min_value(format.element), formats::max_value(format.element)};
  return args;
}

template <RowCast>
struct RowCodecOf;
template <>
struct RowCodecOf<RowCast::e4m3> {
  using Codec = Float8Codec<Elem::bf16>;
};
template <>
struct RowCodecOf<RowCast::int8> {
  using Codec = IntegerCodec<formats::Rule::symmetric, false, Elem::bf16>;
};
template <RowCast kCast>
using RowCodec = typename RowCodecOf<kCast>::Codec;

/// The values of eight codes: exact in bf16.
template <RowCast kCast>
__device__ __forceinline__ Bf16x8 values_of_codes(std::uint64_t codes) {
  float v[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto two = static_cast<std::uint16_t>(codes >> (16 * i));
    if constexpr (kCast == RowCast::e4m3) {
      unpack_pair<Elem::f16>(ptx::cvt_f16x2_e4m3x2(two), v[2 * i], v[2 * i + 1]);
    } else {
      v[2 * i] = static_cast<float>(static_cast<std::int8_t>(two & 0xFF));
      v[2 * i + 1] = static_cast<float>(static_cast<std::int8_t>(two >> 8));
    }
  }
  return to_chunk<Elem::bf16>(v);
}

}  // namespace lowp::kernels::cuda
