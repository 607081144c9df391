// Quantizing activation rows, compiled once for each instruction level: plain loops for the compiler to vectorize,
// equal bit for bit to choose_params() and encode_element() of formats/quantize.h.
#pragma once

#include <cstring>

#include "lowp/kernels/cpu/gemm/packed.h"

namespace lowp::kernels::cpu::LOWP_ISA {

inline float round_bf16(float x) {
  const std::uint32_t u = float_bits(x);
  return bits_float((u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u);
}

// As GroupStats::add over x, but for NaNs, which only clear `finite`.
inline formats::GroupStats stats_of(const float* x, std::int64_t count) {
  formats::GroupStats stats;
  std::int64_t i = 0;
  if (count >= kLanes) {
    Floats low = load(x), high = low,
           zeros = zero();  // 0 times infinity or NaN is not 0
    for (; i + kLanes <= count; i += kLanes) {
      const Floats v = load(x + i);
      low = smaller(v, low);
      high = larger(v, high);
      zeros = multiply_add(v, zero(), zeros);
    }
    float lanes[3][kLanes];
    store(lanes[0], low);
    store(lanes[1], high);
    store(lanes[2], zeros);
    stats = {.min = lanes[0][0], .max = lanes[1][0], .finite = true, .empty = false};
    for (int l = 0; l < kLanes; ++l) {
      stats.min = lanes[0][l] < stats.min ? lanes[0][l] : stats.min;
      stats.max = lanes[1][l] > stats.max ? lanes[1][l] : stats.max;
      stats.finite = stats.finite && lanes[2][l] == 0;
    }
  }
  for (; i < count; ++i) stats.add(x[i]);
  return stats;
}

inline float on_grid(const Grid& grid, float x) {
  const std::uint32_t bits = float_bits(x), magnitude = bits & 0x7FFFFFFFu;
  const std::uint32_t odd = (magnitude & grid.lsb) ? 1u : 0u;
  const std::uint32_t normal = (magnitude + grid.half + odd) & ~(grid.lsb - 1u);
  const std::uint32_t subnormal = float_bits((bits_float(magnitude) + grid.magic) - grid.magic);
  std::uint32_t rounded = magnitude < grid.smallest_normal ? subnormal : normal;
  rounded = rounded > grid.largest ? grid.largest : rounded;
  rounded = grid.has_nan && magnitude > 0x7F800000u ? magnitude : rounded;
  return bits_float(rounded | (bits & 0x80000000u));
}

// Codes of an integer activation, as floats.
inline void quantize_integers(const RowsTask& task, const formats::GroupParams& p, const float* x, std::int64_t count,
                              float* out) {
  constexpr float kFar = 1048576.0f, kRound = 12582912.0f;
  const float low = task.low, high = task.high;
  const bool narrow = task.activation->format.scale_in_input_dtype && task.compute == formats::Elem::bf16;
  const auto loop = [&](auto product) {
    for (std::int64_t i = 0; i < count; ++i) {
      float v = product(x[i] * p.multiplier);
      v = v > -kFar ? v : -kFar;
      v = v < kFar ? v : kFar;
      v = product(((v + kRound) - kRound) + p.zero_point);
      v = v > low ? v : low;
      out[i] = v < high ? v : high;
    }
  };
  if (narrow)
    loop(round_bf16);
  else
    loop([](float v) { return v; });
}

// Elements of a float activation.
inline void quantize_floats(const RowsTask& task, const formats::GroupParams& p, const float* x, std::int64_t count,
                            float* out) {
  const Grid grid = task.grid;
  if (task.activation->format.rule == formats::Rule::float8) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float quotient = x[i] / p.scale;  // before the choice, which else would be a branch
      out[i] = on_grid(grid, x[i] == 0 ? x[i] : quotient);
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      const float product = x[i] * p.multiplier;
      out[i] = on_grid(grid, x[i] == 0 ? x[i] : product);
    }
  }
}

// What the sum over block b of a row's elements gives its products.
inline void store_sum(PackedRows& out, std::int64_t row, std::int64_t b, float sum) {
  const std::int64_t at = b * out.rows + row;
  if (!out.float_starts.empty()) out.float_starts.data()[at] = -out.bias * sum;
  if (!out.scaled_sums.empty())
    out.scaled_sums.data()[at] = out.block_scale.empty() ? sum : sum * out.block_scale.data()[at];
}

// Elements into the row's storage, and the sums over blocks; their scales stand there already.
inline void store_row(PackedRows& out, std::int64_t row, float factor, const float* elements) {
  std::uint8_t* to = out.data.data() + row * out.stride;
  const std::int64_t k = out.k, blocks = out.blocks();
  std::memset(to, 0, static_cast<std::size_t>(out.stride));
  if (out.arithmetic == Arithmetic::int8) {
    auto* codes = reinterpret_cast<std::int8_t*>(to);
    for (std::int64_t i = 0; i < k; ++i)
      codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(elements[i] * factor));
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::int32_t sum = 0;
      const std::int64_t end = (b + 1) * out.block < k ? (b + 1) * out.block : k;
      for (std::int64_t i = b * out.block; i < end; ++i) sum += codes[i];
      out.starts.data()[b * out.rows + row] = -static_cast<std::int32_t>(out.bias) * sum;
      store_sum(out, row, b, static_cast<float>(sum));
    }
    return;
  }
  if (out.arithmetic == Arithmetic::bf16) {
    auto* halves = reinterpret_cast<std::uint16_t*>(to);
    for (std::int64_t i = 0; i < k; ++i) halves[i] = static_cast<std::uint16_t>(float_bits(elements[i]) >> 16);
  } else {
    std::memcpy(to, elements, static_cast<std::size_t>(k) * sizeof(float));
  }
  if (out.float_starts.empty() && out.scaled_sums.empty()) return;
  for (std::int64_t b = 0; b < blocks; ++b) {
    float lanes[16] = {};
    const std::int64_t first = b * out.block, end = first + out.block < k ? first + out.block : k;
    std::int64_t i = first;
    for (; i + 16 <= end; i += 16)
      for (int l = 0; l < 16; ++l) lanes[l] += elements[i + l];
    for (; i < end; ++i) lanes[i % 16] += elements[i];
    for (int w = 8; w > 0; w /= 2)
      for (int l = 0; l < w; ++l) lanes[l] += lanes[l + w];
    store_sum(out, row, b, lanes[0]);
  }
}

inline void quantize_rows(const RowsTask& task, const float* x, std::int64_t row, std::int64_t rows, float* elements) {
  PackedRows& out = *task.out;
  const std::int64_t k = out.k, blocks = out.blocks();
  if (!task.activation) {
    for (std::int64_t r = row; r < row + rows; ++r, x += k) {
      out.row_scale.data()[r] = 1;
      store_row(out, r, 1, x);
    }
    return;
  }
  const formats::BlockFormat& format = task.activation->format;
  const bool grouped = format.group_cols != 0;
  const std::int64_t width = grouped ? format.group_cols : k;
  // Twice an e2m1 element is an integer.
  const float factor = out.arithmetic == Arithmetic::int8 && !task.integers ? 2.0f : 1.0f;
  for (std::int64_t r = row; r < row + rows; ++r, x += k) {
    const float tensor_scale = format.tensor_scale ? task.tensor_scale(stats_of(x, k)) : 1.0f;
    float row_scale = tensor_scale / factor;
    for (std::int64_t g = 0; g < k; g += width) {
      const std::int64_t count = width < k - g ? width : k - g;
      const formats::GroupParams p = task.params(stats_of(x + g, count), tensor_scale);
      (task.integers ? quantize_integers : quantize_floats)(task, p, x + g, count, elements + g);
      if (grouped)
        for (std::int64_t b = g / out.block; b * out.block < g + width && b < blocks; ++b)
          out.block_scale.data()[b * out.rows + r] = p.scale;
      else
        row_scale *= p.scale;
      if (!out.zero_point.empty()) out.zero_point.data()[r] = p.zero_point;
    }
    out.row_scale.data()[r] = row_scale;
    store_row(out, r, factor, elements);
  }
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
