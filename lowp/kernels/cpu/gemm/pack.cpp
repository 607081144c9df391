#include "lowp/kernels/cpu/gemm/pack.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/gemm/planes.h"
#include "lowp/kernels/kernel.h"

namespace lowp::kernels::cpu {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::ZeroPoint;

// Blocks of weights without group scales, so that a block of a panel stays in the first-level cache while all rows
// pass: 16 KB as int8, 32 KB of bf16 as it stands, 16 KB of decoded bf16, which is also written.
constexpr std::int64_t kInt8Block = 512, kBf16Block = 512, kDecodedBlock = 256;

// Room for a matrix's panels; what lies behind them is zero.
AlignedBytes room_for(const PackedMatrix& matrix) {
  AlignedBytes room(static_cast<std::size_t>(matrix.data_bytes()));
  const std::int64_t panels = matrix.panels() * matrix.panel_bytes();
  std::memset(room.data() + panels, 0, static_cast<std::size_t>(matrix.data_bytes() - panels));
  return room;
}

std::uint16_t bf16_bits(float x) {
  return static_cast<std::uint16_t>(float_bits(formats::round_to(Elem::bf16, x)) >> 16);
}

bool all_bf16(const Tensor& values) {
  const float* first = values.as<float>();
  return std::all_of(first, first + element_count(values.shape()),
                     [](float x) { return (float_bits(x) & 0xFFFFu) == 0; });
}

// The largest block of at most kMaxSpan that divides a group.
std::int64_t block_of_group(std::int64_t group) {
  if (group <= kMaxSpan) return group;
  std::int64_t block = kMaxSpan;
  while (group % block != 0) block -= kChunk;
  return block;
}

// What a code becomes on its way into the stream, and what kernels make of it.
struct Coding {
  std::array<std::uint8_t, 256> stored{};  // by the byte in QuantizedMatrix::codes
  std::array<float, 256> decoded{};        // by stored code; before bias
  float bias = 0, factor = 1;
};

Coding coding(const QuantizedMatrix& weight, PackedMatrix& out) {
  const BlockFormat& format = weight.format;
  const auto& element = formats::info(format.element);
  const auto mask = static_cast<std::uint8_t>(element.code_mask());
  const float middle = format.rule == Rule::tinygemm ? (formats::max_value(format.element) + 1) / 2 : 0;
  const bool codebook = format.rule == Rule::codebook;
  Coding c;
  out.bits = element.bits;
  if (out.arithmetic == Arithmetic::int8 && element.is_float()) {  // e2m1: twice the value is an integer up to 12
    c.factor = 0.5f;
    c.bias = 2 * formats::max_value(format.element);
    out.lookup = true;
    for (std::uint32_t code = 0; code < 16; ++code)
      out.bytes[code] = static_cast<std::uint8_t>(2 * formats::decode(format.element, code) + c.bias);
    for (std::uint32_t code = 0; code < 256; ++code) {
      c.stored[code] = static_cast<std::uint8_t>(code & mask);
      c.decoded[code] = out.bytes[code & mask];
    }
  } else if (out.arithmetic == Arithmetic::int8) {
    const float lowest = formats::min_value(format.element);
    c.bias = middle - lowest;
    for (std::uint32_t code = 0; code < 256; ++code) {
      c.stored[code] = static_cast<std::uint8_t>(formats::decode(format.element, code & mask) - lowest);
      c.decoded[code] = static_cast<float>(code);
    }
  } else if (element.bits == 8 && !element.is_float()) {
    // A sign and 7 bits of magnitude: v + 1/2 is +-(m + 1/2) with m = v or -v - 1, and exact in bf16; v is 128 less
    // than an unsigned code.
    const std::uint32_t flip = element.is_signed ? 0 : 0x80;
    c.bias = 0.5f - static_cast<float>(flip) + middle;
    for (std::uint32_t code = 0; code < 256; ++code) {
      const std::uint32_t v = code ^ flip;  // two's complement
      c.stored[code] = static_cast<std::uint8_t>(v < 128 ? v : 0x80u | (~v & 0x7Fu));
      c.decoded[code] = (static_cast<float>(code & 0x7Fu) + 0.5f) * (code < 128 ? 1.0f : -1.0f);
    }
  } else {
    for (std::uint32_t code = 0; code < 256; ++code) {
      c.stored[code] = static_cast<std::uint8_t>(code & mask);
      c.decoded[code] =
          codebook ? bits_float(static_cast<std::uint32_t>(bf16_bits(weight.codebook.as<float>()[code % 16])) << 16)
                   : formats::decode(format.element, code & mask) - middle;
    }
  }
  if (out.arithmetic != Arithmetic::int8)
    for (std::size_t i = 0; i < out.words.size(); ++i) out.words[i] = bf16_bits(c.decoded[i]);
  out.bias = c.bias;
  return c;
}

// What a float zero point adds to the values of its group.
float added(const BlockFormat& format, const formats::GroupParams& p) {
  return format.rule == Rule::shift ? -p.zero_point * p.scale : p.zero_point;
}

ScaleType scale_type(const QuantizedMatrix& weight) {
  if (formats::info(weight.format.scale).bits > 8) return all_bf16(weight.scale) ? ScaleType::bf16 : ScaleType::f32;
  // Kernels read e8m0 as an exponent field and e4m3 without sign: codes that are NaN, subnormal or negative stand as
  // f32.
  const std::uint8_t* codes = weight.scale.as<std::uint8_t>();
  const std::int64_t count = element_count(weight.scale.shape());
  const bool e8m0 = weight.format.scale == Elem::e8m0;
  const bool plain = std::all_of(codes, codes + count,
                                 [&](std::uint8_t code) { return e8m0 ? code != 0 && code != 255 : code < 0x7F; });
  return !plain ? ScaleType::f32 : e8m0 ? ScaleType::e8m0 : ScaleType::e4m3;
}

// Position of (output, k) of a half chunk among its codes, [unit, lane].
using Places = std::array<std::array<std::uint16_t, kChunk>, kPanel / 2>;
constexpr Places places(bool int8_arithmetic, bool words) {
  Places all{};
  for (int j = 0; j < kPanel / 2; ++j)
    for (int i = 0; i < kChunk; ++i) {
      const Place at = place(int8_arithmetic, words, j, i);
      all[j][i] = static_cast<std::uint16_t>(at.unit * (words ? 32 : 64) + at.lane);
    }
  return all;
}

class Packer {
 public:
  Packer(const QuantizedMatrix& weight, const PackedMatrix& out, const Coding& coding)
      : weight_(weight), out_(out), coding_(coding) {
    for (std::uint32_t byte = 0; byte < 256; ++byte)
      pairs_[byte] = static_cast<std::uint16_t>(coding.stored[byte & 0xF] | coding.stored[byte >> 4] << 8);
    while (flip_ < 256 && !flips(flip_)) ++flip_;
  }

  // Bytes of the scratch that panel() takes.
  std::size_t scratch_bytes() const { return static_cast<std::size_t>(kPanel * out_.padded_k()); }

  void panel(std::int64_t index, std::uint8_t* scratch, std::uint8_t* to) const {
    for (std::int64_t j = 0; j < kPanel; ++j) stored_row(index * kPanel + j, scratch + j * out_.padded_k());
    const std::int64_t step = out_.step(), scaled = out_.scale != ScaleType::none;
    for (std::int64_t k = 0; k < out_.padded_k(); k += kChunk) {
      if (scaled && k % step == 0)
        for (std::int64_t b = k / out_.block; b < (k + step) / out_.block; ++b) to = scales(index * kPanel, b, to);
      if (out_.direct()) {
        to = direct_chunk(scratch + k, to);
      } else if (!decodes_words(out_.arithmetic == Arithmetic::int8, out_.bits)) {
        to = planes_chunk<std::uint8_t>(scratch + k, to);
      } else {
        to = planes_chunk<std::uint16_t>(scratch + k, to);
      }
    }
  }

  // Sum over k of the values of an output, without its row scale. `scratch` has padded_k() bytes.
  double row_sum(std::int64_t row, std::uint8_t* scratch) const {
    stored_row(row, scratch);
    double total = 0;
    for (std::int64_t b = 0; b < out_.blocks(); ++b) {
      double sum = 0;
      const std::int64_t end = std::min((b + 1) * out_.block, weight_.k);
      for (std::int64_t k = b * out_.block; k < end; ++k) sum += coding_.decoded[scratch[k]] - coding_.bias;
      if (out_.scale == ScaleType::none) {
        total += sum;
        continue;
      }
      const formats::GroupParams p = params(row, b);
      const double offset = weight_.format.zero_point == ZeroPoint::integer
                                ? -static_cast<double>(p.zero_point) * p.scale
                            : weight_.format.zero_point == ZeroPoint::floating ? added(weight_.format, p)
                                                                               : 0.0;
      total += sum * p.scale + offset * static_cast<double>(end - b * out_.block);
    }
    return total;
  }

 private:
  bool flips(unsigned mask) const {
    for (unsigned code = 0; code < 256; ++code)
      if (coding_.stored[code] != (code ^ mask)) return false;
    return true;
  }

  // Stored codes of a row [padded_k], 0 beyond the matrix.
  void stored_row(std::int64_t row, std::uint8_t* to) const {
    const std::int64_t k = row < weight_.m ? weight_.k : 0;
    std::memset(to + k, 0, static_cast<std::size_t>(out_.padded_k() - k));
    if (k == 0) return;
    const auto* codes = weight_.codes.as<std::uint8_t>();
    if (!weight_.format.two_codes_a_byte()) {
      codes += row * k;
      if (flip_ < 256)
        for (std::int64_t i = 0; i < k; ++i) to[i] = static_cast<std::uint8_t>(codes[i] ^ flip_);
      else
        for (std::int64_t i = 0; i < k; ++i) to[i] = coding_.stored[codes[i]];
      return;
    }
    std::int64_t i = 0;
    if (row * k % 2 != 0) to[i++] = coding_.stored[codes[row * k / 2] >> 4];
    for (const std::uint8_t* pair = codes + (row * k + i) / 2; i + 1 < k; i += 2)
      std::memcpy(to + i, &pairs_[*pair++], 2);
    if (i < k) to[i] = coding_.stored[codes[(row * k + i) / 2] & 0xF];
  }

  // Where the parameters of a block stand.
  std::int64_t group(std::int64_t block) const {
    return weight_.format.group_cols == 0 ? 0 : block * out_.block / weight_.format.group_cols;
  }
  std::int64_t group_row(std::int64_t row) const {
    return weight_.format.group_rows == 0 ? 0 : row / weight_.format.group_rows;
  }
  formats::GroupParams params(std::int64_t row, std::int64_t block) const {
    return group_params(weight_, group_row(row), group(block));
  }

  std::uint8_t* scales(std::int64_t first, std::int64_t block, std::uint8_t* to) const {
    std::uint8_t* const offsets = to + out_.scale_bytes();
    const std::int64_t outputs = block * out_.block < weight_.k ? std::min(kPanel, weight_.m - first) : 0;
    if (out_.scale == ScaleType::e8m0 || out_.scale == ScaleType::e4m3) {  // codes as they are, never with offsets
      const auto* codes = weight_.scale.as<std::uint8_t>() + group(block);
      const std::int64_t columns = weight_.format.scale_cols(weight_.k);
      for (std::int64_t j = 0; j < kPanel; ++j)
        to[j] = j < outputs ? codes[group_row(first + j) * columns] : std::uint8_t{0};
      return offsets;
    }
    for (std::int64_t j = 0; j < kPanel; ++j) {
      formats::GroupParams p;
      p.scale = 0;
      if (j < outputs) p = params(first + j, block);
      const std::uint16_t half = static_cast<std::uint16_t>(float_bits(p.scale) >> 16);
      if (out_.scale == ScaleType::f32) std::memcpy(to + 4 * j, &p.scale, 4);
      if (out_.scale == ScaleType::bf16) std::memcpy(to + 2 * j, &half, 2);
      if (out_.offset == OffsetType::none) continue;
      if (out_.offset == OffsetType::zero_point)
        offsets[j] = static_cast<std::uint8_t>(static_cast<std::int8_t>(p.zero_point));
      const float offset = added(weight_.format, p);
      const std::uint16_t half_offset = bf16_bits(offset);
      if (out_.offset == OffsetType::f32) std::memcpy(offsets + 4 * j, &offset, 4);
      if (out_.offset == OffsetType::bf16) std::memcpy(offsets + 2 * j, &half_offset, 2);
    }
    return offsets + out_.offset_bytes();
  }

  // Codes of 32 values of k of the panel's rows, `padded_k` apart, four by four.
  std::uint8_t* direct_chunk(const std::uint8_t* rows, std::uint8_t* to) const {
    for (std::int64_t j = 0; j < kPanel; ++j, rows += out_.padded_k())
      for (std::int64_t i = 0; i < kChunk; i += 4) std::memcpy(to + (i * kPanel + j * 4), rows + i, 4);
    return to + out_.chunk_bytes();
  }

  template <typename Lane>
  std::uint8_t* planes_chunk(const std::uint8_t* rows, std::uint8_t* to) const {
    constexpr bool kWords = sizeof(Lane) == 2;
    constexpr int kLanes = 64 / sizeof(Lane), kWidth = lane_bits(kWords);
    static constexpr Places kPlaces[] = {places(false, kWords), places(!kWords, kWords)};
    const Places& at = kPlaces[out_.arithmetic == Arithmetic::int8];
    for (int half = 0; half < 2; ++half) {
      Lane codes[units(kWords) * kLanes];
      for (int j = 0; j < 16; ++j, rows += out_.padded_k())
        for (int i = 0; i < kChunk; ++i) codes[at[j][i]] = rows[i];
      int low = 0;  // first bit of the plane
      for (const int plane : {8, 4, 2, 1}) {
        if (!(out_.bits & plane)) continue;
        const int per_line = kWidth / plane;
        const unsigned mask = (1u << plane) - 1;
        for (int line = 0; line < plane_lines(plane); ++line, to += 64) {
          Lane bits[kLanes] = {};
          for (int u = 0; u < per_line; ++u)
            for (int lane = 0; lane < kLanes; ++lane)
              bits[lane] |=
                  static_cast<Lane>((codes[(line * per_line + u) * kLanes + lane] >> low & mask) << (u * plane));
          std::memcpy(to, bits, 64);
        }
        low += plane;
      }
    }
    return to;
  }

  const QuantizedMatrix& weight_;
  const PackedMatrix& out_;
  const Coding& coding_;
  std::array<std::uint16_t, 256> pairs_;  // stored codes of both codes in a byte
  unsigned flip_ = 0;                     // stored codes are codes ^ flip_; 256: they are not
};

}  // namespace

AlignedBytes::AlignedBytes(std::size_t size) : size_(size) {
  bytes_.reset(
      static_cast<std::uint8_t*>(std::aligned_alloc(64, round_up<std::size_t>(std::max<std::size_t>(size, 1), 64))));
  if (!bytes_) throw std::bad_alloc();
}

void AlignedBytes::Free::operator()(std::uint8_t* bytes) const { std::free(bytes); }

std::int64_t PackedMatrix::scale_bytes() const {
  switch (scale) {
    case ScaleType::none:
      return 0;
    case ScaleType::e8m0:
    case ScaleType::e4m3:
      return kPanel;
    case ScaleType::bf16:
      return 2 * kPanel;
    case ScaleType::f32:
      break;
  }
  return 4 * kPanel;
}

std::int64_t PackedMatrix::offset_bytes() const {
  switch (offset) {
    case OffsetType::none:
      return 0;
    case OffsetType::zero_point:
      return kPanel;
    case OffsetType::bf16:
      return 2 * kPanel;
    case OffsetType::f32:
      break;
  }
  return 4 * kPanel;
}

std::optional<Packing> packing_for(const BlockFormat& weight, std::int64_t k,
                                   const std::optional<formats::Activation>& activation, Elem compute,
                                   const GemmKernels& kernels) {
  const auto is_int8_operand = [](Elem e) { return !formats::info(e).is_float() || e == Elem::e2m1; };
  Packing packing;
  packing.arithmetic = kernels.wide;
  if (compute != Elem::bf16 && compute != Elem::f32) return std::nullopt;
  if (!activation) {
    if (compute == Elem::f32) packing.arithmetic = Arithmetic::f32;
    if (compute == Elem::f32 && weight.rule == Rule::codebook) return std::nullopt;
  } else if (is_int8_operand(activation->format.element)) {
    if (!is_int8_operand(weight.element) || weight.rule == Rule::codebook) return std::nullopt;
    packing.arithmetic = Arithmetic::int8;
    packing.zero_points = activation->format.zero_point != ZeroPoint::none;
  } else if (weight.rule == Rule::codebook) {
    return std::nullopt;
  }
  if (formats::info(weight.element).bits > 8) return std::nullopt;
  // A row with a zero point is a group: its offset stands beside its scale.
  const std::int64_t row = weight.zero_point == ZeroPoint::none ? 0 : k;
  const std::int64_t groups[] = {weight.group_cols == 0 ? row : weight.group_cols,
                                 activation ? activation->format.group_cols : 0};
  for (const std::int64_t group : groups) {
    if (group == 0) continue;
    if (group != 16 && group % kChunk != 0) return std::nullopt;
    const std::int64_t block = block_of_group(group);
    if (packing.block != 0 && std::max(block, packing.block) % std::min(block, packing.block) != 0) return std::nullopt;
    packing.block = packing.block == 0 ? block : std::min(block, packing.block);
  }
  return packing;
}

PackedMatrix pack(const QuantizedMatrix& weight, const Packing& packing) {
  const BlockFormat& format = weight.format;
  PackedMatrix out;
  out.n = weight.m;
  out.k = weight.k;
  out.arithmetic = packing.arithmetic;
  const Coding code = coding(weight, out);
  const bool int8 = out.arithmetic == Arithmetic::int8;
  out.block = packing.block != 0 ? packing.block : int8 ? kInt8Block : kDecodedBlock;
  const bool grouped = format.group_cols != 0 || format.zero_point != ZeroPoint::none;
  if (grouped) out.scale = scale_type(weight);
  if (format.zero_point == ZeroPoint::integer) out.offset = OffsetType::zero_point;
  if (format.zero_point == ZeroPoint::floating)
    out.offset = format.rule != Rule::shift && all_bf16(weight.zero_point) ? OffsetType::bf16 : OffsetType::f32;

  const Packer packer(weight, out, code);
  AlignedBytes data = room_for(out);
  parallel_for(out.panels(), ceil_div<std::int64_t>(1 << 16, kPanel * out.padded_k()),
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<std::uint8_t> scratch(packer.scratch_bytes());
                 for (std::int64_t p = begin; p < end; ++p)
                   packer.panel(p, scratch.data(), data.data() + p * out.panel_bytes());
               });
  out.data = PackedBytes(std::move(data));
  const float factor = code.factor * (format.tensor_scale ? weight.tensor_scale : 1.0f);
  out.row_scale.assign(static_cast<std::size_t>(out.panels() * kPanel), 0.0f);
  for (std::int64_t j = 0; j < out.n; ++j)
    out.row_scale[static_cast<std::size_t>(j)] =
        grouped ? factor : factor * group_params(weight, format.group_rows == 0 ? 0 : j / format.group_rows, 0).scale;
  if (packing.zero_points) {
    out.row_sum.assign(out.row_scale.size(), 0.0f);
    parallel_for(out.n, ceil_div<std::int64_t>(1 << 16, out.k), [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::uint8_t> scratch(packer.scratch_bytes());
      for (std::int64_t j = begin; j < end; ++j)
        out.row_sum[static_cast<std::size_t>(j)] =
            static_cast<float>(packer.row_sum(j, scratch.data()) * out.row_scale[static_cast<std::size_t>(j)]);
    });
  }
  return out;
}

namespace {

// kChunk bf16 values of kPanel rows, `stride` bytes apart, pair by pair. The processor follows few streams by itself,
// so the rows' next lines are asked for.
void interleave_chunk(const std::byte* from, std::int64_t stride, std::uint8_t* to) {
  constexpr std::int64_t kPairs = kChunk / 2, kAhead = 512;
  std::uint32_t pairs[kPanel][kPairs];
  for (std::int64_t j = 0; j < kPanel; ++j) {
    __builtin_prefetch(from + j * stride + kAhead);
    std::memcpy(pairs[j], from + j * stride, sizeof(pairs[j]));
  }
  std::uint32_t lines[kPairs][kPanel];
  for (std::int64_t i = 0; i < kPairs; ++i)
    for (std::int64_t j = 0; j < kPanel; ++j) lines[i][j] = pairs[j][i];
  std::memcpy(to, lines, sizeof(lines));
}

}  // namespace

PackedMatrix pack(const TensorView& weight, Arithmetic arithmetic) {
  PackedMatrix out;
  out.n = weight.shape[0];
  out.k = weight.shape[1];
  out.arithmetic = arithmetic;
  out.block = kBf16Block;
  AlignedBytes data = room_for(out);
  out.row_scale.assign(static_cast<std::size_t>(out.panels() * kPanel), 1.0f);
  parallel_for(out.panels(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      std::uint8_t* to = data.data() + p * out.panel_bytes();
      const std::int64_t outputs = std::min(kPanel, out.n - p * kPanel);
      if (outputs < kPanel || out.padded_k() != out.k) std::memset(to, 0, static_cast<std::size_t>(out.panel_bytes()));
      const std::byte* from = weight.bytes.data() + p * kPanel * out.k * 2;
      for (std::int64_t k = 0; k < out.k; k += kChunk) {  // chunk by chunk: few lines are written at a time
        const std::int64_t end = std::min(k + kChunk, out.k);
        if (outputs == kPanel && end == k + kChunk) {
          interleave_chunk(from + 2 * k, 2 * out.k, to + k / 2 * kPanel * 4);
          continue;
        }
        for (std::int64_t j = 0; j < outputs; ++j)
          for (std::int64_t i = k; i < end; i += 2)
            std::memcpy(to + (i / 2 * kPanel + j) * 4, from + 2 * (j * out.k + i), i + 1 < end ? 4 : 2);
      }
    }
  });
  out.data = PackedBytes(std::move(data));
  return out;
}

}  // namespace lowp::kernels::cpu
