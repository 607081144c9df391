// The body of every variant of the packed product: compiled once for each instruction level, over its simd_*.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "lowp/kernels/cpu/gemm/packed.h"
#include "lowp/kernels/cpu/gemm/planes.h"

namespace lowp::kernels::cpu::LOWP_ISA {

constexpr int kVectors = kPanel / kLanes;
constexpr int kTileVectors = 2;
constexpr int kStepBytes = kPanel * 4;  // of decoded weights: 4 bytes or 2 words of each output

template <int... kIndex, typename Body>
inline void unroll(std::integer_sequence<int, kIndex...>, const Body& body) {
  (body(std::integral_constant<int, kIndex>{}), ...);
}

// ---- decoding
// --------------------------------------------------------------------------------------------------------

// Plane of kPlane bits that starts at line kFirst, bits of unit kUnit moved to bit kTo.
template <bool kWords, int kPlane, int kFirst, int kTo, bool kClean, int kUnit>
inline Line plane(const std::uint8_t* half) {
  constexpr int kPerLine = lane_bits(kWords) / kPlane;
  const Line moved = shift<kUnit % kPerLine * kPlane - kTo>(load_line(half + (kFirst + kUnit / kPerLine) * 64));
  if constexpr (!kClean) return moved;
  return kWords ? keep_words(moved, ((1 << kPlane) - 1) << kTo) : keep_bytes(moved, ((1 << kPlane) - 1) << kTo);
}

// Codes of a unit; above kBits dirty unless kClean or put together from several planes.
template <bool kWords, int kBits, bool kClean, int kUnit>
inline Line unit(const std::uint8_t* half) {
  if constexpr (kBits == 8) return load_line(half + kUnit * 64);
  constexpr bool kFour = (kBits & 4) != 0, kTwo = (kBits & 2) != 0, kOne = (kBits & 1) != 0;
  constexpr bool kMask = kClean || kFour + kTwo + kOne > 1;
  constexpr int kTwoAt = kFour ? plane_lines(4) : 0, kOneAt = kTwoAt + (kTwo ? plane_lines(2) : 0);
  constexpr int kTwoTo = kFour ? 4 : 0, kOneTo = kTwoTo + (kTwo ? 2 : 0);
  if constexpr (kFour && kTwo && kOne)
    return either(plane<kWords, 4, 0, 0, kMask, kUnit>(half),
                  either(plane<kWords, 2, kTwoAt, kTwoTo, kMask, kUnit>(half),
                         plane<kWords, 1, kOneAt, kOneTo, kMask, kUnit>(half)));
  else if constexpr (kFour && kTwo)
    return either(plane<kWords, 4, 0, 0, kMask, kUnit>(half), plane<kWords, 2, kTwoAt, kTwoTo, kMask, kUnit>(half));
  else if constexpr (kFour && kOne)
    return either(plane<kWords, 4, 0, 0, kMask, kUnit>(half), plane<kWords, 1, kOneAt, kOneTo, kMask, kUnit>(half));
  else if constexpr (kTwo && kOne)
    return either(plane<kWords, 2, 0, 0, kMask, kUnit>(half), plane<kWords, 1, kOneAt, kOneTo, kMask, kUnit>(half));
  else
    return plane<kWords, kBits, 0, 0, kMask, kUnit>(half);
}

// Decodes `chunks` chunks; reading jumps by `skip` bytes of scales before every `per_step` of them.
using Decode = void (*)(const PackedMatrix& w, const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step,
                        std::int64_t skip, std::uint8_t* out);

template <typename Half>
inline void each_half_chunk(const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step, std::int64_t skip,
                            std::int64_t half_bytes, std::int64_t chunk_steps, std::uint8_t* out, const Half& half) {
  for (std::int64_t c = 0, left = 0; c < chunks; ++c, --left, out += chunk_steps * kStepBytes) {
    if (left == 0) {
      in += skip;
      left = per_step;
    }
    for (int h = 0; h < 2; ++h, in += half_bytes) half(in, out + h * 64);
  }
}

template <int kBits, bool kLookup, bool kSigned = false>
void decode_int8(const PackedMatrix& w, const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step,
                 std::int64_t skip, std::uint8_t* out) {
  const ByteTable table(w.bytes.data());
  each_half_chunk(in, chunks, per_step, skip, 64 * kBits, 8, out, [&](const std::uint8_t* half, std::uint8_t* to) {
    unroll(std::make_integer_sequence<int, units(false)>{}, [&](auto u) {
      const Line codes = unit<false, kBits, !kLookup, u>(half);
      const Line bytes = kLookup ? table(codes) : codes;
      if constexpr (kSigned)
        store_line(to + u * kStepBytes, subtract_bytes(bytes, static_cast<int>(w.bias)));
      else
        store_line(to + u * kStepBytes, bytes);
    });
  });
}

template <int kBits>
void decode_words(const PackedMatrix& w, const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step,
                  std::int64_t skip, std::uint8_t* out) {
  if constexpr (decodes_words(false, kBits)) {
    const WordTable table(w.words.data());
    each_half_chunk(in, chunks, per_step, skip, 64 * kBits, 16, out, [&](const std::uint8_t* half, std::uint8_t* to) {
      unroll(std::make_integer_sequence<int, units(true)>{},
             [&](auto u) { store_line(to + u * kStepBytes, table(unit<true, kBits, false, u>(half))); });
    });
  } else {
    const PairTable<kBits> table(w.words.data());
    each_half_chunk(in, chunks, per_step, skip, 64 * kBits, 16, out, [&](const std::uint8_t* half, std::uint8_t* to) {
      unroll(std::make_integer_sequence<int, units(false)>{}, [&](auto u) {
        Line first, second;
        table(unit<false, kBits, true, u>(half), first, second);
        store_line(to + 2 * u * kStepBytes, first);
        store_line(to + (2 * u + 1) * kStepBytes, second);
      });
    });
  }
}

// Codes that stand as they are multiplied, but with scales between them.
inline void copy_chunks(const PackedMatrix& w, const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step,
                        std::int64_t skip, std::uint8_t* out) {
  const auto bytes = static_cast<std::size_t>(w.chunk_bytes());
  for (std::int64_t c = 0; c < chunks; ++c, in += bytes, out += bytes) {
    if (c % per_step == 0) in += skip;
    std::memcpy(out, in, bytes);
  }
}

constexpr Decode kInt8[] = {decode_int8<1, false>, decode_int8<2, false>, decode_int8<3, false>, decode_int8<4, false>,
                            decode_int8<5, false>, decode_int8<6, false>, decode_int8<7, false>, copy_chunks};
constexpr Decode kWords[] = {decode_words<1>, decode_words<2>, decode_words<3>, decode_words<4>,
                             decode_words<5>, decode_words<6>, decode_words<7>, decode_words<8>};

#ifdef LOWP_HAS_AMX
// Without their bias, as bytes with a sign.
inline void signed_chunks(const PackedMatrix& w, const std::uint8_t* in, std::int64_t chunks, std::int64_t per_step,
                          std::int64_t skip, std::uint8_t* out) {
  for (std::int64_t c = 0; c < chunks; ++c) {
    if (c % per_step == 0) in += skip;
    for (std::int64_t i = 0; i < w.chunk_bytes(); i += 64, in += 64, out += 64)
      store_line(out, subtract_bytes(load_line(in), static_cast<int>(w.bias)));
  }
}

inline bool fits_signed(const PackedMatrix& w) { return w.bits < 8 || w.bias == 128; }

constexpr Decode kSigned[] = {
    decode_int8<1, false, true>, decode_int8<2, false, true>, decode_int8<3, false, true>, decode_int8<4, false, true>,
    decode_int8<5, false, true>, decode_int8<6, false, true>, decode_int8<7, false, true>, signed_chunks};

inline Decode signed_decoder(const PackedMatrix& w) {
  return w.lookup ? decode_int8<4, true, true> : kSigned[w.bits - 1];
}
#endif

inline Decode decoder(const PackedMatrix& w) {
  if (w.bits == 16) return copy_chunks;
  if (w.arithmetic != Arithmetic::int8) return kWords[w.bits - 1];
  return w.lookup ? decode_int8<4, true> : kInt8[w.bits - 1];
}

template <typename Convert>
inline void each_vector(float* out, const Convert& convert) {
#pragma GCC unroll 4
  for (int j = 0; j < kPanel; j += kLanes) store(out + j, convert(j));
}

// Scales and offsets of one block, [32] each; offsets stand `scale_bytes` behind the scales.
inline void decode_scales(const PackedMatrix& w, const std::uint8_t* in, std::int64_t scale_bytes, float* scale,
                          float* offset) {
  switch (w.scale) {
    case ScaleType::none:
      return;
    case ScaleType::e8m0:
      each_vector(scale, [&](int j) { return shifted_bytes<23>(in + j); });
      break;
    case ScaleType::e4m3:  // code << 20 is the value times 2^-120, subnormals included
      each_vector(scale, [&](int j) { return multiply(shifted_bytes<20>(in + j), broadcast(0x1p120f)); });
      break;
    case ScaleType::bf16:
      each_vector(scale, [&](int j) { return load_bf16(in + 2 * j); });
      break;
    case ScaleType::f32:
      std::memcpy(scale, in, kPanel * sizeof(float));
      break;
  }
  in += scale_bytes;
  switch (w.offset) {
    case OffsetType::none:
      return;
    case OffsetType::zero_point:
      for (int j = 0; j < kPanel; ++j) offset[j] = -scale[j] * static_cast<float>(static_cast<std::int8_t>(in[j]));
      return;
    case OffsetType::bf16:
      return each_vector(offset, [&](int j) { return load_bf16(in + 2 * j); });
    case OffsetType::f32:
      std::memcpy(offset, in, kPanel * sizeof(float));
      return;
  }
}

// ---- multiplying
// -----------------------------------------------------------------------------------------------------

// A span of k of one panel against some rows.
struct Span {
  const std::uint8_t* weight;  // decoded, [steps, kPanel, 4 bytes]; block b at b * weight_stride
  std::int64_t weight_stride;
  const float *scale, *offset;  // [blocks, kPanel]; nullptr: none
  std::int64_t scale_stride;
  const std::uint8_t* x;  // row r at r * x_stride
  std::int64_t x_stride;
  const std::uint8_t* x_tiles;  // PackedRows::tiles from these rows on, or nullptr
  std::int64_t x_at;            // byte of a row where the span begins
  // [blocks, x_rows] as in PackedRows; nullptr: none
  const float* x_scale;
  const std::int32_t* starts;
  const float *float_starts, *scaled_sums;
  std::int64_t x_rows, blocks;
  std::int64_t k;  // of a block
  bool first;      // values start at 0
};

// Where the sums of rows `row` and on begin, in blocks `stride` apart.
template <typename Start>
struct Starts {
  const Start* at;
  std::int64_t stride;
};
template <typename Dot>
inline auto starts(const Span& s, std::int64_t row) {
  if constexpr (std::is_same_v<Dot, Int8Dot>) {
    return Starts<std::int32_t>{s.starts + row, s.x_rows};
  } else {
    static constexpr float kZeros[kMaxRows] = {};
    return s.float_starts ? Starts<float>{s.float_starts + row, s.x_rows} : Starts<float>{kZeros, 0};
  }
}

// Rows of x by one pointer and few multiples of their stride, which addresses are made of. The compiler, left to
// itself, keeps a pointer for each row, and most of them on the stack.
class Rows {
 public:
  explicit Rows(std::int64_t stride) : one_(stride), three_(3 * stride), five_(5 * stride), seven_(7 * stride) {
    asm("" : "+r"(three_), "+r"(five_), "+r"(seven_));  // they are not to be computed anew
  }
  const std::uint8_t* operator()(const std::uint8_t* x, int row) const {
    switch (row) {
      case 3:
        return x + three_;
      case 5:
        return x + five_;
      case 6:
        return x + 2 * three_;
      case 7:
        return x + seven_;
      default:
        return x + row * one_;
    }
  }

 private:
  std::int64_t one_, three_, five_, seven_;
};

// kK values of k, unrolled: a loop of a few steps would end in a mispredicted branch at every block.
template <typename Dot, int R, int kK>
inline void sum_steps(const std::uint8_t* w, const std::uint8_t* x, const Rows& rows,
                      typename Dot::Sum (&sum)[R][kTileVectors]) {
#pragma GCC unroll kUnrolledSteps
  for (int step = 0; step < kK / Dot::kStep; ++step) {
    typename Dot::Weight b[kTileVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) b[v] = Dot::weight(w + step * kStepBytes + v * kLanes * 4);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Dot::Activation a = Dot::activation(rows(x, r) + step * Dot::kRowBytes);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) Dot::add(sum[r][v], b[v], a);
    }
  }
}

// The sums of a block of k values.
template <typename Dot, int R, typename Start>
inline void sum_block(const std::uint8_t* w, const std::uint8_t* x, const Rows& rows, std::int64_t k,
                      const Start* start, typename Dot::Sum (&sum)[R][kTileVectors]) {
  constexpr int kSteps = kChunk / Dot::kStep;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Dot::start(start[r]);
  for (; k >= kChunk; k -= kChunk, w += kSteps * kStepBytes, x += kSteps * Dot::kRowBytes)
    sum_steps<Dot, R, kChunk>(w, x, rows, sum);
  if (k > 0) sum_steps<Dot, R, kChunk / 2>(w, x, rows, sum);
}

// R rows x kTileVectors vectors; `values` [R, 32] gains the span's sums.
template <typename Dot, int R>
void plain_tile(const Span& s, std::int64_t row, int column, float* values) {
  const Rows rows(s.x_stride);
  auto start = starts<Dot>(s, row);
  const std::uint8_t* x = s.x + row * s.x_stride;
  for (std::int64_t b = 0; b < s.blocks; ++b) {
    typename Dot::Sum sum[R][kTileVectors];
    sum_block<Dot, R>(s.weight + b * s.weight_stride + column * 4, x, rows, s.k, start.at, sum);
    start.at += start.stride;
    x += s.k / Dot::kStep * Dot::kRowBytes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) {
        float* to = values + r * kPanel + v * kLanes;
        store(to, s.first && b == 0 ? Dot::floats(sum[r][v]) : add(load(to), Dot::floats(sum[r][v])));
      }
  }
}

// The same where blocks of the weight have scales, and (kRowScales) those of rows.
template <typename Dot, int R, bool kRowScales>
void scaled_tile(const Span& s, std::int64_t row, int column, float* values) {
  Floats total[R][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) total[r][v] = s.first ? zero() : load(values + r * kPanel + v * kLanes);
  const Rows rows(s.x_stride);
  auto start = starts<Dot>(s, row);
  const std::uint8_t* w = s.weight + column * 4;
  const std::uint8_t* x = s.x + row * s.x_stride;
  const float *scale = s.scale + column, *x_scale = kRowScales ? s.x_scale + row : nullptr;
  for (std::int64_t b = 0; b < s.blocks; ++b) {
    typename Dot::Sum sum[R][kTileVectors];
    sum_block<Dot, R>(w, x, rows, s.k, start.at, sum);
    start.at += start.stride;
    w += s.weight_stride;
    x += s.k / Dot::kStep * Dot::kRowBytes;
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) {
      const Floats of_weight = load(scale + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Floats by = kRowScales ? multiply(of_weight, broadcast(x_scale[r])) : of_weight;
        total[r][v] = multiply_add(Dot::floats(sum[r][v]), by, total[r][v]);
      }
    }
    scale += s.scale_stride;
    if (kRowScales) x_scale += s.x_rows;
    if (!s.offset) continue;
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) {
      const Floats offset = load(s.offset + b * s.scale_stride + column + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        total[r][v] = multiply_add(offset, broadcast(s.scaled_sums[b * s.x_rows + row + r]), total[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) store(values + r * kPanel + v * kLanes, total[r][v]);
}

template <typename Dot, int R>
inline void tile(const Span& s, std::int64_t row, float* values) {
  for (int column = 0; column < kPanel; column += kTileVectors * kLanes) {
    if (!s.scale) {
      plain_tile<Dot, R>(s, row, column, values + column);
    } else if constexpr (R <= kMaxScaledRows) {
      if (s.x_scale)
        scaled_tile<Dot, R, true>(s, row, column, values + column);
      else
        scaled_tile<Dot, R, false>(s, row, column, values + column);
    }
  }
}

// Rows in tiles of about the same size: the larger, the fewer loads of weights.
template <typename Dot>
void multiply_span(const Span& s, std::int64_t rows, float* values) {
  const std::int64_t tiles = ceil_div<std::int64_t>(rows, s.scale ? kMaxScaledRows : kMaxRows);
  for (std::int64_t t = 0; t < tiles; ++t) {
    const std::int64_t row = rows * t / tiles, count = rows * (t + 1) / tiles - row;
    unroll(std::make_integer_sequence<int, kMaxRows>{}, [&](auto r) {
      if (r + 1 == count) tile<Dot, r + 1>(s, row, values + row * kPanel);
    });
  }
}

#ifdef LOWP_HAS_AMX  // in amx_body.h
constexpr std::int64_t kFewRows = 4;
template <bool kInt8>
void multiply_tiles(const Span& s, std::int64_t rows, float* values);
template <bool kInt8>
void multiply_scaled_tiles(const Span& s, std::int64_t rows, float* values);
#endif

// As formats::round_to(Elem::bf16, x).
inline float to_bf16(float x) {
  const std::uint32_t u = float_bits(x);
  const std::uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u, nan = (u | 0x400000u) & 0xFFFF0000u;
  return bits_float((u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

// Row scales of both sides, the activations' zero points, bias and rounding.
inline void finish(const PackedMatrix& w, std::int64_t panel, const PackedRows& x, std::int64_t row, std::int64_t rows,
                   const float* bias, bool round, float* values) {
  const float* scale = w.row_scale.data() + panel * kPanel;
  const float* sum = x.zero_point.empty() ? nullptr : w.row_sum.data() + panel * kPanel;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float x_scale = x.row_scale.data()[row + r];
    float* v = values + r * kPanel;
    for (int j = 0; j < kPanel; ++j) v[j] = v[j] * x_scale * scale[j];
    if (sum) {
      const float zero = x.zero_point.data()[row + r] * x_scale;
      for (int j = 0; j < kPanel; ++j) v[j] -= zero * sum[j];
    }
    if (bias)
      for (int j = 0; j < kPanel; ++j) v[j] += bias[j];
    if (round)
      for (int j = 0; j < kPanel; ++j) v[j] = to_bf16(v[j]);
  }
}

// Scales of weights without any, where rows have some.
constexpr std::array<float, kPanel> kOnes = [] {
  std::array<float, kPanel> ones{};
  ones.fill(1.0f);
  return ones;
}();

inline void panels(const PackedMatrix& w, std::int64_t first_panel, std::int64_t panel_count, const PackedRows& x,
                   std::int64_t row, std::int64_t rows, const float* bias, bool round, std::uint8_t* scratch,
                   float* values) {
  const std::int64_t scale_bytes = w.scale_bytes(), block_head = scale_bytes + w.offset_bytes();
  const std::int64_t step = w.step(), blocks_a_step = step / w.block, head = blocks_a_step * block_head;
  const bool scaled = w.scale != ScaleType::none;
#ifdef LOWP_HAS_AMX
  // With fewer rows or smaller blocks vectors are faster.
  const bool with_sign = w.arithmetic == Arithmetic::int8 && (scaled || !x.block_scale.empty()) && rows >= 16 &&
                         w.block >= kChunk && fits_signed(w);
  const Decode decode = with_sign ? signed_decoder(w) : decoder(w);
#else
  constexpr bool with_sign = false;
  const Decode decode = decoder(w);
#endif
  // Codes and scales that can be used where they stand need no decoding.
  const bool in_place = w.direct() && (!scaled || w.block >= kChunk) && !with_sign;
  const bool scales_in_place = w.scale == ScaleType::f32 && w.offset == OffsetType::none && w.block >= kChunk;
  // Few rows: what is decoded stays in the first-level cache. Sums are flushed at blocks, so spans do not affect
  // results.
  const std::int64_t aim = rows <= 4 ? kMaxSpan / 4 : kMaxSpan / 2;
  const std::int64_t span =
      in_place && scales_in_place && rows <= kMaxScaledRows ? w.padded_k() : std::max(step, aim / step * step);
  const std::int64_t step_bytes = head + step / kChunk * w.chunk_bytes();
  const std::int64_t k_bytes = x.arithmetic == Arithmetic::int8 ? 1 : x.arithmetic == Arithmetic::bf16 ? 2 : 4;
  const std::int64_t decoded_bytes = kPanel * (w.arithmetic == Arithmetic::int8 ? 1 : 2);  // of one k
  auto* const scales = reinterpret_cast<float*>(scratch + kMaxSpan * kPanel * 2);
  float* const offsets = scales + kMaxSpan / 16 * kPanel;

  const auto multiply = [&](std::int64_t k, std::int64_t count, const std::uint8_t* stream, float* values) {
    const std::int64_t whole = count / w.block, rest = count % w.block;  // a rest only where sums have no scales
    Span s{};
    s.scale_stride = kPanel;
    if (scaled) {
      if (scales_in_place) {
        s.scale = reinterpret_cast<const float*>(stream);
        s.scale_stride = step_bytes / 4;
      } else {
        const std::uint8_t* from = stream;
        for (std::int64_t b = 0; b < count / w.block; from += step_bytes)
          for (std::int64_t i = 0; i < blocks_a_step; ++i, ++b)
            decode_scales(w, from + i * block_head, scale_bytes, scales + b * kPanel, offsets + b * kPanel);
        s.scale = scales;
        s.offset = w.offset == OffsetType::none ? nullptr : offsets;
      }
    }
    if (in_place) {
      s.weight = stream + (scaled ? head : 0);
      s.weight_stride = scaled ? step_bytes : w.block * decoded_bytes;
    } else {
      decode(w, stream, count / kChunk, scaled ? step / kChunk : count / kChunk, scaled ? head : 0, scratch);
      s.weight = scratch;
      s.weight_stride = w.block * decoded_bytes;
    }
    const std::int64_t at = k / w.block * x.rows + row;
    s.x = x.data.data() + row * x.stride + k * k_bytes;
    s.x_stride = x.stride;
    s.x_tiles = x.tiles.empty() || row % kTileRows != 0 ? nullptr : x.tiles.data() + row * x.stride;
    s.x_at = k * k_bytes;
    s.x_scale = x.block_scale.empty() ? nullptr : x.block_scale.data() + at;
    s.starts = x.starts.empty() ? nullptr : x.starts.data() + at;
    s.float_starts = x.float_starts.empty() ? nullptr : x.float_starts.data() + at;
    s.scaled_sums = x.scaled_sums.empty() ? nullptr : x.scaled_sums.data() + at;
    s.x_rows = x.rows;
    if (s.x_scale && !s.scale) {
      s.scale = kOnes.data();
      s.scale_stride = 0;
    }
    const auto run = [&](std::int64_t blocks, std::int64_t block_k) {
      s.blocks = blocks;
      s.k = block_k;
#ifdef LOWP_HAS_AMX
      if (with_sign) return multiply_scaled_tiles<true>(s, rows, values);
      if (w.arithmetic == Arithmetic::int8 && !s.scale) return multiply_tiles<true>(s, rows, values);
      if (w.arithmetic == Arithmetic::bf16 && !s.scale) return multiply_tiles<false>(s, rows, values);
      if (w.arithmetic == Arithmetic::bf16) return multiply_scaled_tiles<false>(s, rows, values);
#endif
      switch (w.arithmetic) {
        case Arithmetic::int8:
          return multiply_span<Int8Dot>(s, rows, values);
        case Arithmetic::bf16:
#ifdef LOWP_HAS_BF16
          return multiply_span<Bf16Dot>(s, rows, values);
#endif
        case Arithmetic::f32:
          return multiply_span<F32Dot>(s, rows, values);
      }
    };
    s.first = k == 0;
    if (whole > 0) run(whole, w.block);
    if (rest > 0) {
      s.first = k == 0 && whole == 0;
      s.weight += whole * s.weight_stride;
      s.x += whole * w.block * k_bytes;
      s.x_at += whole * w.block * k_bytes;
      if (s.starts) s.starts += whole * s.x_rows;
      if (s.float_starts) s.float_starts += whole * s.x_rows;
      run(1, rest);
    }
  };
  const std::uint8_t* stream = w.data.data() + first_panel * w.panel_bytes();
  for (std::int64_t k = 0, count; k < w.padded_k(); k += count) {
    count = std::min(span, w.padded_k() - k);
    for (std::int64_t p = 0; p < panel_count; ++p)
      multiply(k, count, stream + p * w.panel_bytes(), values + p * rows * kPanel);
    stream += scaled ? count / step * step_bytes : count / kChunk * w.chunk_bytes();
  }
  for (std::int64_t p = 0; p < panel_count; ++p)
    finish(w, first_panel + p, x, row, rows, bias ? bias + p * kPanel : nullptr, round, values + p * rows * kPanel);
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
