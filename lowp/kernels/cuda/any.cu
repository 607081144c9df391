// The kernels that handle every format, shape and alignment by the definitions of formats/quantize.h: what the fast
// ones do not cover, and what they are tested against on the device.
#include <cuda_runtime.h>

#include "lowp/formats/quantize.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/launch.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/kernels/hadamard.h"

namespace lowp::kernels::cuda {
namespace {

using formats::BlockSpec;
using formats::Elem;
using formats::GroupParams;
using formats::GroupStats;
using formats::Rule;

__device__ float load_value(const void* x, Elem input, std::int64_t i) {
  if (input == Elem::f32) return static_cast<const float*>(x)[i];
  return formats::decode(input, static_cast<const std::uint16_t*>(x)[i]);
}

__device__ bool is_nibble(const BlockSpec& format) {
  return formats::info(format.element).is_float() && formats::info(format.element).bits == 4;
}

__device__ void store_code(void* codes, const BlockSpec& format, std::int64_t i, std::uint32_t code) {
  const int bits = formats::info(format.element).bits;
  if (bits == 32) {
    static_cast<std::uint32_t*>(codes)[i] = code;
  } else if (bits == 16) {
    static_cast<std::uint16_t*>(codes)[i] = static_cast<std::uint16_t>(code);
  } else {
    const bool integer = !formats::info(format.element).is_float();  // kept as signed bytes
    static_cast<std::uint8_t*>(codes)[i] = static_cast<std::uint8_t>(
        integer ? static_cast<int>(formats::decode(format.element, code)) : static_cast<int>(code));
  }
}

__device__ std::uint32_t load_code(const void* codes, const BlockSpec& format, std::int64_t i) {
  if (is_nibble(format)) return (static_cast<const std::uint8_t*>(codes)[i / 2] >> (i % 2 * 4)) & 0xFu;
  switch (formats::info(format.element).bits) {
    case 32:
      return static_cast<const std::uint32_t*>(codes)[i];
    case 16:
      return static_cast<const std::uint16_t*>(codes)[i];
    default:
      return static_cast<const std::uint8_t*>(codes)[i];
  }
}

__device__ GroupStats combine_over_warp(GroupStats s) {
  for (int mask = 16; mask > 0; mask /= 2) {
    GroupStats other;
    other.min = __shfl_xor_sync(0xFFFFFFFFu, s.min, mask);
    other.max = __shfl_xor_sync(0xFFFFFFFFu, s.max, mask);
    other.finite = __shfl_xor_sync(0xFFFFFFFFu, s.finite, mask);
    other.empty = __shfl_xor_sync(0xFFFFFFFFu, s.empty, mask);
    s.merge(other);
  }
  return s;
}

__device__ std::uint32_t encode_one(const AnyArgs& args, const GroupParams& p, const float* codebook, float x,
                                    std::int64_t place) {
  if (args.stochastic)
    return formats::encode_stochastic(args.format.element, formats::scale_element(args.format, p, x),
                                      formats::random_bits(args.random, static_cast<std::uint64_t>(place)));
  return args.format.rule == Rule::codebook ? formats::nearest_entry(codebook, 16, formats::divide(x, p.scale))
                                            : formats::encode_element(args.format, args.input, p, x);
}

// Value i of the run's Hadamard transform, rounded to the input's dtype: the sums of hadamard16 that lead to it.
__device__ __noinline__ float rotated_value(const void* x, Elem input, std::int64_t first, std::int64_t stride, int i) {
  float v[kHadamardRun];
#pragma unroll
  for (int j = 0; j < kHadamardRun; ++j) v[j] = hadamard_sign(load_value(x, input, first + j * stride), j);
#pragma unroll
  for (int bit = 0, count = kHadamardRun / 2; count > 0; ++bit, count /= 2)
#pragma unroll
    for (int j = 0; j < count; ++j) v[j] = i >> bit & 1 ? v[2 * j] - v[2 * j + 1] : v[2 * j] + v[2 * j + 1];
  return formats::round_to(input, v[0] * 0.25f);
}

// A warp for each group, or for each row where the scale is the matrix's or there is none.
__global__ void __launch_bounds__(256, 2) cast_any(const __grid_constant__ AnyArgs args) {
  const BlockSpec& format = args.format;
  const bool by_group = format.rule != Rule::plain && format.group_rows != 0;
  const std::int64_t height = by_group ? format.group_rows : 1;
  const std::int64_t width = by_group && format.group_cols != 0 ? format.group_cols : args.columns;
  const std::int64_t group_rows = ceil_div(args.rows, height), group_cols = ceil_div(args.columns, width);
  const std::int64_t per_expert = group_rows * group_cols;
  const int lane = threadIdx.x % 32;
  for (std::int64_t g = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; g < per_expert * args.experts;
       g += std::int64_t{gridDim.x} * blockDim.x / 32) {
    const std::int64_t expert = g / per_expert, at = g % per_expert;
    const std::int64_t group_row = at / group_cols, group_col = at % group_cols;
    const std::int64_t top = group_row * height, left = group_col * width;
    const std::int64_t rows = min(height, args.rows - top), columns = min(width, args.columns - left);
    const std::int64_t from = expert * args.rows * args.columns;
    const auto value = [&](std::int64_t r, std::int64_t c) {
      const std::int64_t row = from + (top + r) * args.row_stride, column = left + c;
      if (args.hadamard)
        return rotated_value(args.x, args.input, row + column / kHadamardRun * kHadamardRun * args.column_stride,
                             args.column_stride, static_cast<int>(column % kHadamardRun));
      return load_value(args.x, args.input, row + column * args.column_stride);
    };

    const float matrix_amax = args.amax ? bits_float(args.amax[expert].bits) : args.static_amax;
    const float tensor_scale = format.tensor_scale ? formats::choosing_scale(format, matrix_amax) : 1.0f;
    GroupStats stats;
    if (by_group) {
      for (std::int64_t i = lane; i < rows * columns; i += 32) stats.add(value(i / columns, i % columns));
      stats = combine_over_warp(stats);
    } else {
      stats.add(matrix_amax);
    }
    const GroupParams p = formats::choose_params(format, args.input, args.scaling, stats, tensor_scale);
    if (lane == 0 && format.rule != Rule::plain && (by_group || at == 0)) {
      std::int64_t to = by_group ? g : expert;
      if (by_group && args.transposed_scales)
        to = (expert * group_cols + group_col) * group_rows + group_row;
      else if (args.place.layout != formats::ScaleLayout::rows)
        to = args.place.offset(expert, group_row, group_col);
      if (formats::info(format.scale).bits > 8)
        static_cast<float*>(args.scale)[to] = p.scale;
      else
        static_cast<std::uint8_t*>(args.scale)[to] = static_cast<std::uint8_t>(
            format.tensor_scale && format.rule == Rule::nvfp4 && matrix_amax == 0 ? formats::encode(format.scale, 1.0f)
                                                                                  : p.scale_code);
      if (format.zero_point == formats::ZeroPoint::integer)
        static_cast<std::int8_t*>(args.zero_point)[to] = static_cast<std::int8_t>(p.zero_point);
      else if (format.zero_point == formats::ZeroPoint::floating)
        static_cast<float*>(args.zero_point)[to] = p.zero_point;
    }

    const float* codebook = args.codebook ? args.codebook + expert * 16 : nullptr;
    const std::int64_t to = from + top * args.columns + left;
    if (is_nibble(format)) {
      for (std::int64_t i = 2 * lane; i < rows * columns; i += 64) {
        const std::int64_t r = i / columns, c = i % columns, place = to + r * args.columns + c;
        static_cast<std::uint8_t*>(args.codes)[place / 2] =
            static_cast<std::uint8_t>(encode_one(args, p, codebook, value(r, c), place) |
                                      encode_one(args, p, codebook, value(r, c + 1), place + 1) << 4);
      }
    } else {
      for (std::int64_t i = lane; i < rows * columns; i += 32) {
        const std::int64_t r = i / columns, c = i % columns, place = to + r * args.columns + c;
        store_code(args.codes, format, place, encode_one(args, p, codebook, value(r, c), place));
      }
    }
  }
}

// The largest magnitude of each expert's rotated values, for the shapes that find_amax does not take.
__global__ void __launch_bounds__(256)
    find_rotated_amax(const void* x, Elem input, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                      std::int64_t column_stride, std::uint32_t* bits, std::int64_t step) {
  const std::int64_t from = blockIdx.y * rows * columns;
  std::uint32_t amax = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * columns;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t r = i / columns, c = i % columns;
    const float v = rotated_value(x, input, from + r * row_stride + c / kHadamardRun * kHadamardRun * column_stride,
                                  column_stride, static_cast<int>(c % kHadamardRun));
    amax = max(amax, float_bits(v) & 0x7FFFFFFFu);
  }
  atomicMax(bits + blockIdx.y * step, amax);
}

// What amax() leaves beside the magnitude.
__global__ void finish_amax(MatrixAmax* found, std::int64_t experts) {
  const std::int64_t e = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (e >= experts) return;
  found[e].tensor_scale = formats::nvfp4_tensor_scale(bits_float(found[e].bits));
  found[e].reciprocal = formats::divide(1.0f, found[e].tensor_scale);
}

__global__ void __launch_bounds__(256, 2) dequantize_any(const __grid_constant__ DequantizeTask task) {
  const BlockSpec& format = task.format;
  const bool has_scale = format.rule != Rule::plain;
  const std::int64_t height = format.group_rows == 0 ? max(task.m, std::int64_t{1}) : format.group_rows;
  const std::int64_t width = format.group_cols == 0 ? task.k : format.group_cols;
  const std::int64_t group_rows = ceil_div(task.m, height), group_cols = ceil_div(task.k, width);
  for (std::int64_t row = blockIdx.x; row < task.experts * task.m; row += gridDim.x) {
    const std::int64_t expert = row / task.m, group_row = row % task.m / height;
    for (std::int64_t column = threadIdx.x; column < task.k; column += blockDim.x) {
      GroupParams p;
      if (has_scale) {
        const std::int64_t at = (expert * group_rows + group_row) * group_cols +
                                static_cast<std::uint32_t>(column) / static_cast<std::uint32_t>(width);
        p.scale = formats::info(format.scale).bits > 8
                      ? static_cast<const float*>(task.scale)[at]
                      : formats::decode(format.scale, static_cast<const std::uint8_t*>(task.scale)[at]);
        if (format.zero_point == formats::ZeroPoint::integer)
          p.zero_point = static_cast<const std::int8_t*>(task.zero_point)[at];
        if (format.zero_point == formats::ZeroPoint::floating)
          p.zero_point = static_cast<const float*>(task.zero_point)[at];
      }
      const std::int64_t i = row * task.k + column;
      const std::uint32_t code = load_code(task.codes, format, i);
      const float tensor_scale = task.tensor_scale ? task.tensor_scale[expert] : 1.0f;
      float value = format.rule == Rule::codebook
                        ? formats::round_to(task.output, task.codebook[expert * 16 + code % 16] * p.scale)
                        : formats::decode_element(format, task.output, p, tensor_scale, code);
      if (value != value) value = bits_float(formats::kQuietNan);  // a GPU's products have another NaN
      if (task.output == Elem::f32)
        static_cast<float*>(task.out)[i] = value;
      else  // already rounded
        static_cast<std::uint16_t*>(task.out)[i] = static_cast<std::uint16_t>(
            task.output == Elem::bf16 ? float_bits(value) >> 16
                                      : formats::encode(task.output, value, formats::Overflow::to_special));
    }
  }
}

__global__ void __launch_bounds__(256)
    move_scales(const std::uint8_t* in, std::int64_t experts, formats::ScaleGrid grid, std::uint8_t* out, bool back) {
  const std::int64_t matrix = grid.h * grid.w;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < experts * matrix;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t there = grid.offset(i / matrix, i % matrix / grid.w, i % grid.w);
    if (back)
      out[i] = in[there];
    else
      out[there] = in[i];
  }
}

__global__ void __launch_bounds__(256) find_nonfinite(const void* x, Elem input, std::int64_t size, std::int64_t* out) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += std::int64_t{gridDim.x} * blockDim.x)
    if (!is_finite(load_value(x, input, i)))
      atomicMin(reinterpret_cast<unsigned long long*>(out), static_cast<unsigned long long>(i));
}

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div<std::int64_t>(std::max<std::int64_t>(threads, 1), 256), 1 << 16));
}

}  // namespace

void launch_any(const AnyArgs& args, StreamHandle stream) {
  const bool by_group = args.format.rule != Rule::plain && args.format.group_rows != 0;
  const std::int64_t height = by_group ? args.format.group_rows : 1;
  const std::int64_t width = by_group && args.format.group_cols != 0 ? args.format.group_cols : args.columns;
  const std::int64_t groups =
      args.experts * ceil_div(args.rows, height) * ceil_div(args.columns, std::max<std::int64_t>(width, 1));
  cast_any<<<blocks_for(groups * 32), 256, 0, stream>>>(args);
  check_launch("cast_any");
}

void rotated_amax(const void* x, Elem input, std::int64_t experts, std::int64_t m, std::int64_t k, bool along_m,
                  MatrixAmax* out, StreamHandle stream) {
  fill(out, 0, static_cast<std::size_t>(experts) * sizeof *out, stream);
  const dim3 grid(std::min(blocks_for(m * k), 2048u), static_cast<unsigned>(experts));
  find_rotated_amax<<<grid, 256, 0, stream>>>(x, input, along_m ? k : m, along_m ? m : k, along_m ? 1 : k,
                                              along_m ? k : 1, &out->bits,
                                              static_cast<std::int64_t>(sizeof *out / sizeof out->bits));
  finish_amax<<<blocks_for(experts), 256, 0, stream>>>(out, experts);
  check_launch("find_rotated_amax");
}

void dequantize(const DequantizeTask& task, StreamHandle stream) {
  const Timed timed(stream, [&] {
    const int bits = formats::info(task.output).bits + formats::info(task.format.element).bits;
    return Work{.name = "dequantize", .bytes = static_cast<double>(task.experts * task.m * task.k) * bits / 8};
  });
  if (launch_dequantize(task, stream)) return;
  dequantize_any<<<blocks_for(task.experts * task.m * 256), 256, 0, stream>>>(task);
  check_launch("dequantize_any");
}

void to_layout(const std::uint8_t* in, std::int64_t experts, const formats::ScaleGrid& grid, std::uint8_t* out,
               std::int64_t bytes, StreamHandle stream) {
  fill(out, 0, static_cast<std::size_t>(bytes), stream);
  move_scales<<<blocks_for(experts * grid.h * grid.w), 256, 0, stream>>>(in, experts, grid, out, false);
  check_launch("move_scales");
}

void from_layout(const std::uint8_t* in, std::int64_t experts, const formats::ScaleGrid& grid, std::uint8_t* out,
                 StreamHandle stream) {
  move_scales<<<blocks_for(experts * grid.h * grid.w), 256, 0, stream>>>(in, experts, grid, out, true);
  check_launch("move_scales");
}

void first_nonfinite(const void* x, Elem input, std::int64_t size, std::int64_t* out, StreamHandle stream) {
  fill(out, 0xFF, sizeof *out, stream);  // -1, the largest of the unsigned numbers
  find_nonfinite<<<blocks_for(size), 256, 0, stream>>>(x, input, size, out);
  check_launch("find_nonfinite");
}

}  // namespace lowp::kernels::cuda
