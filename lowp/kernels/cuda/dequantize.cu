// Codes back to values at memory speed: eight codes a lane and step, decoded by arithmetic.
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/chunk.cuh"
#include "lowp/kernels/cuda/codec.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kSteps = 4;

struct Args {
  DequantizeTask task;
  std::uint32_t chunks = 0;          // of an expert, in eights
  std::uint32_t group_rows = 0;      // of an expert
  std::uint32_t group_cols = 0;      // of a row
  FastDivide row, group, row_group;  // by chunks of a row, chunks of a group, rows of a group
  float middle = 0;                  // of tinygemm
};

/// Where the numbers of codes come from; kBits: of a stored code.
template <Elem E>
struct FloatCodes {
  static constexpr int kBits = E == Elem::e2m1 ? 4 : 8;
  static constexpr bool kInteger = false, kTable = false;

  __device__ static void decode(const std::uint32_t (&word)[2], const float*, bool, float (&q)[8]) {
    if constexpr (E == Elem::e4m3 || E == Elem::e5m2) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto two = static_cast<std::uint16_t>(word[i / 2] >> 16 * (i % 2));
        unpack_pair<Elem::f16>(E == Elem::e4m3 ? ptx::cvt_f16x2_e4m3x2(two) : ptx::cvt_f16x2_e5m2x2(two), q[2 * i],
                               q[2 * i + 1]);
      }
    } else {
      constexpr formats::ElementFormat f = formats::info(E);
      constexpr int magnitude = f.bits - 1, a_word = 32 / kBits;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        // The sign on top; the magnitude where f32's exponent and mantissa meet, which is the value times 2^(bias -
        // 127).
        const std::uint32_t top = word[i / a_word] << (32 - f.bits - i % a_word * kBits);
        const std::uint32_t bits = (top & 0x80000000u) | (top >> (31 - magnitude - (23 - f.mantissa_bits)) &
                                                          ((1u << magnitude) - 1u) << (23 - f.mantissa_bits));
        q[i] = bits_float(bits) * exp2i(127 - f.bias);
      }
    }
  }
};
struct IntegerCodes {
  static constexpr int kBits = 8;
  static constexpr bool kInteger = true, kTable = false;

  __device__ static void decode(const std::uint32_t (&word)[2], const float*, bool is_signed, float (&q)[8]) {
    // In the last place of 2^23; signed bytes are moved by 128 there and back.
    const std::uint32_t flip = is_signed ? 0x80808080u : 0u;
    const float base = is_signed ? 8388608.0f + 128.0f : 8388608.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      q[i] =
          bits_float(__byte_perm(word[i / 4] ^ flip, 0x4B000000u, 0x7440u | static_cast<std::uint32_t>(i % 4))) - base;
  }
};
struct TableCodes {
  static constexpr int kBits = 8;
  static constexpr bool kInteger = false, kTable = true;

  __device__ static void decode(const std::uint32_t (&word)[2], const float* table, bool, float (&q)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = table[word[i / 4] >> 8 * (i % 4) & 15u];
  }
};

__device__ float load_scale(const DequantizeTask& task, std::size_t at) {
  switch (task.format.scale) {
    case Elem::e8m0: {
      const std::uint32_t code = __ldg(static_cast<const std::uint8_t*>(task.scale) + at);
      return bits_float(code == 0 ? 0x00400000u : code == 255 ? formats::kQuietNan : code << 23);
    }
    case Elem::e4m3: {
      float low, high;
      unpack_pair<Elem::f16>(ptx::cvt_f16x2_e4m3x2(__ldg(static_cast<const std::uint8_t*>(task.scale) + at)), low,
                             high);
      return low;
    }
    default:
      return __ldg(static_cast<const float*>(task.scale) + at);
  }
}
__device__ float load_zero_point(const DequantizeTask& task, std::size_t at) {
  if (task.format.zero_point == formats::ZeroPoint::integer)
    return static_cast<float>(__ldg(static_cast<const std::int8_t*>(task.zero_point) + at));
  return task.format.zero_point == formats::ZeroPoint::floating ? __ldg(static_cast<const float*>(task.zero_point) + at)
                                                                : 0.0f;
}

/// formats::decode_element without its last rounding.
template <class Codes, Elem Out>
__device__ void to_values(const Args& args, float scale, float zero, float (&q)[8]) {
  if constexpr (Codes::kInteger) {
    switch (args.task.format.rule) {
      case Rule::asymmetric:
#pragma unroll
        for (float& v : q) v = (v - zero) * scale;
        return;
      case Rule::tinygemm:
#pragma unroll
        for (float& v : q) v = round_to_input<Out>((v - args.middle) * scale) + zero;
        return;
      case Rule::bias:
#pragma unroll
        for (float& v : q) v = v * scale + zero;
        return;
      case Rule::shift:
#pragma unroll
        for (float& v : q) v = round_to_input<Out>(v - zero) * scale;
        return;
      default:
        break;
    }
  }
#pragma unroll
  for (float& v : q) v *= scale;
}

template <Elem Out>
__device__ void store_values(void* out, std::size_t chunk, const float (&v)[8]) {
  constexpr int kWords = Chunk<Out>::kWords;
  std::uint32_t word[kWords];
  bool nan = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) nan |= v[i] != v[i];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    if constexpr (Out == Elem::f32)
      word[i] = float_bits(v[i]);
    else
      word[i] = pack_pair<Out>(v[2 * i], v[2 * i + 1]);
  }
  if (nan) {  // a GPU's NaN is another
    constexpr std::uint32_t kCode = Out == Elem::f32 ? formats::kQuietNan : Out == Elem::bf16 ? 0x7FC0u : 0x7E00u;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (v[i] == v[i]) continue;
      if constexpr (Out == Elem::f32)
        word[i] = kCode;
      else
        word[i / 2] = i % 2 ? (word[i / 2] & 0xFFFFu) | kCode << 16 : (word[i / 2] & 0xFFFF0000u) | kCode;
    }
  }
  auto* to = reinterpret_cast<uint4*>(static_cast<unsigned char*>(out) + chunk * (kWords * 4));
#pragma unroll
  for (int i = 0; i < kWords / 4; ++i)
    to[i] = make_uint4(word[4 * i], word[4 * i + 1], word[4 * i + 2], word[4 * i + 3]);
}

template <class Codes, Elem Out>
__global__ void __launch_bounds__(256) dequantize_chunks(const __grid_constant__ Args args) {
  __shared__ float table[16];
  const DequantizeTask& task = args.task;
  const std::uint32_t expert = blockIdx.y, lane = threadIdx.x % 32;
  if constexpr (Codes::kTable) {
    if (threadIdx.x < 16) table[threadIdx.x] = task.codebook[expert * 16 + threadIdx.x];
    __syncthreads();
  }
  const std::uint32_t first = (blockIdx.x * blockDim.x + threadIdx.x - lane) * kSteps + lane;
  const std::size_t base = static_cast<std::size_t>(expert) * args.chunks;
  std::uint32_t word[kSteps][2];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const std::uint32_t at = first + s * 32;
    if (at >= args.chunks) continue;
    if constexpr (Codes::kBits == 4) {
      word[s][0] = __ldg(static_cast<const std::uint32_t*>(task.codes) + base + at);
    } else {
      const uint2 two = __ldg(static_cast<const uint2*>(task.codes) + base + at);
      word[s][0] = two.x, word[s][1] = two.y;
    }
  }
  const float tensor_scale = task.format.tensor_scale ? task.tensor_scale[expert] : 1.0f;
  const bool is_signed = Codes::kInteger && formats::info(task.format.element).is_signed;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const std::uint32_t at = first + s * 32;
    if (at >= args.chunks) continue;
    float scale = 1, zero = 0;
    if (task.scale) {
      const std::uint32_t row = args.row(at), column = args.group(at - row * args.row.divisor);
      const std::size_t group =
          (static_cast<std::size_t>(expert) * args.group_rows + args.row_group(row)) * args.group_cols + column;
      scale = load_scale(task, group);
      if (task.format.tensor_scale) scale = tensor_scale * scale;
      if constexpr (Codes::kInteger) zero = load_zero_point(task, group);
    }
    float q[8];
    Codes::decode(word[s], table, is_signed, q);
    to_values<Codes, Out>(args, scale, zero, q);
    store_values<Out>(task.out, base + at, q);
  }
}

bool aligned(const void* p, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

// Calls body(codes); false if an element has none here.
template <class Body>
bool for_codes(const BlockSpec& format, const Body& body) {
  if (format.rule == Rule::codebook) return body(TableCodes()), true;
  switch (format.element) {
    case Elem::e4m3:
      return body(FloatCodes<Elem::e4m3>()), true;
    case Elem::e5m2:
      return body(FloatCodes<Elem::e5m2>()), true;
    case Elem::e2m3:
      return body(FloatCodes<Elem::e2m3>()), true;
    case Elem::e3m2:
      return body(FloatCodes<Elem::e3m2>()), true;
    case Elem::e2m1:
      return body(FloatCodes<Elem::e2m1>()), true;
    default:
      if (formats::info(format.element).is_float()) return false;
      return body(IntegerCodes()), true;
  }
}

}  // namespace

bool launch_dequantize(const DequantizeTask& task, StreamHandle stream) {
  const BlockSpec& format = task.format;
  const bool scaled = format.rule != Rule::plain;
  const std::int64_t width = !scaled || format.group_cols == 0 ? task.k : format.group_cols;
  const std::int64_t height = !scaled || format.group_rows == 0 ? task.m : format.group_rows;
  if (task.k % 8 != 0 || width % 8 != 0 || task.m * task.k / 8 >= std::int64_t{1} << 31 || task.experts > 65535)
    return false;
  if (!aligned(task.codes, 8) || !aligned(task.out, 16)) return false;
  Args args;
  args.task = task;
  if (!scaled) args.task.scale = nullptr;
  args.chunks = static_cast<std::uint32_t>(task.m * task.k / 8);
  args.group_rows = static_cast<std::uint32_t>(ceil_div(task.m, height));
  args.group_cols = static_cast<std::uint32_t>(ceil_div(task.k, width));
  args.row = FastDivide(static_cast<std::uint32_t>(task.k / 8));
  args.group = FastDivide(static_cast<std::uint32_t>(width / 8));
  args.row_group = FastDivide(static_cast<std::uint32_t>(height));
  if (format.rule == Rule::tinygemm) args.middle = (formats::max_value(format.element) + 1) / 2;
  const dim3 grid(ceil_div<std::uint32_t>(args.chunks, 256 * kSteps), static_cast<unsigned>(task.experts));
  const bool known = for_codes(format, [&](auto codes) {
    for_input(task.output,
              [&](auto out) { dequantize_chunks<decltype(codes), out()><<<grid, 256, 0, stream>>>(args); });
  });
  check_launch("dequantize_chunks");
  return known;
}

}  // namespace lowp::kernels::cuda
