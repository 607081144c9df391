#include "lowp/kernels/cuda/gemm_packed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"

namespace lowp::kernels::cuda {
namespace {

using formats::Elem;
using formats::Rule;

struct Layout {
  Codes codes;
  Scales scales;
};

// The layout of a format, before its scales are looked at.
std::optional<Layout> layout_of(const formats::BlockFormat& f, std::string* why) {
  const formats::ElementFormat& element = formats::info(f.element);
  const auto none = [&](const char* reason) {
    *why = reason;
    return std::nullopt;
  };
  if (f.zero_point != formats::ZeroPoint::none) return none("zero points");
  if (f.super_cols) return none("super-blocks");
  if (f.rule == Rule::codebook) return none("a table of values");
  if (f.rule == Rule::mx && f.element != Elem::e5m2)
    return Layout{element.bits == 4 ? Codes::e2m1 : Codes::e4m3, Scales::exponent32};
  if (f.rule == Rule::nvfp4) return Layout{Codes::e2m1, Scales::float16};
  if (f.rule == Rule::float8 && f.element == Elem::e4m3 && f.group_cols == 0) return Layout{Codes::e4m3, Scales::none};
  if (element.is_float()) return none("no decoder for its codes and groups");
  const bool nibble = element.bits <= 4;
  if (f.group_cols == 0) return Layout{nibble ? Codes::u4 : Codes::s8, nibble ? Scales::bf16_128 : Scales::none};
  if (f.group_cols % 32 != 0) return none("groups that are not multiples of 32");
  return Layout{nibble ? Codes::u4 : Codes::s8, nibble && f.group_cols % 128 == 0 ? Scales::bf16_128 : Scales::bf16_32};
}

// What a code of the matrix becomes, and where its bits lie: words to be or-ed for each code, pair and half.
class Spread {
 public:
  Spread(Codes codes, Elem element) {
    for (int pair = 0; pair < 16 / code_bits(codes); ++pair)
      for (int half = 0; half < 2; ++half)
        for (int code = 0; code < 256; ++code) {
          const std::uint32_t kept = converted(codes, element, static_cast<std::uint32_t>(code));
          std::uint32_t& word = words_[static_cast<std::size_t>((pair * 2 + half) * 256 + code)];
          for (int bit = 0; bit < code_bits(codes); ++bit)
            word |= (kept >> bit & 1u) << code_bit(codes, pair, half, bit);
        }
  }
  std::uint32_t operator()(int pair, int half, std::uint8_t code) const {
    return words_[static_cast<std::size_t>((pair * 2 + half) * 256 + code)];
  }

 private:
  static std::uint32_t converted(Codes codes, Elem element, std::uint32_t code) {
    if (codes == Codes::u4) return (code + 8) & 15;
    if (codes == Codes::e4m3 && element != Elem::e4m3)
      return formats::encode(Elem::e4m3, formats::decode(element, code & formats::info(element).code_mask()),
                             formats::Overflow::saturate);
    return code;
  }
  std::array<std::uint32_t, 4 * 2 * 256> words_{};
};

std::uint8_t code_at(const QuantizedMatrix& w, std::int64_t row, std::int64_t column) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(w.codes.bytes().data());
  if (!w.format.two_codes_a_byte()) return codes[row * w.k + column];
  return codes[(row * w.k + column) / 2] >> (4 * (column & 1)) & 15;
}

// Bytes that set a group's values to 0.
bool all_zero(const QuantizedMatrix& w, std::int64_t row, std::int64_t begin, std::int64_t end) {
  const std::uint8_t magnitude = static_cast<std::uint8_t>(formats::info(w.format.element).code_mask() >> 1);
  for (std::int64_t c = begin; c < end; ++c)
    if (code_at(w, row, c) & magnitude) return false;
  return true;
}

// e4m3 (positive) as 5 exponent and 3 fraction bits with bias 15 and no subnormals; 0 as the smallest, whose codes must
// then be 0.
std::uint8_t without_subnormals(std::uint8_t code) {
  int exponent = code >> 3, fraction = code & 7;
  if (code == 0) return 8;
  if (exponent == 0) {
    exponent = 1;
    while (fraction < 8) fraction *= 2, --exponent;
    fraction -= 8;
  }
  return static_cast<std::uint8_t>((exponent + 8) << 3 | fraction);
}

// Fills the scales of a tile's units. False, with the reason, where they cannot be kept exactly.
class ScaleWriter {
 public:
  ScaleWriter(const QuantizedMatrix& w, PackedWeight& out) : w_(w), out_(out) {}

  // `zeroed` is told of groups [begin, end) whose codes must be 0.
  template <typename Zeroed>
  const char* row(std::int64_t row, const Zeroed& zeroed) {
    const formats::BlockFormat& f = w_.format;
    const std::int64_t scale_row = f.group_rows == 0 ? 0 : row / f.group_rows, columns = f.scale_cols(w_.k);
    float& factor = out_.row_scale[static_cast<std::size_t>(row)];
    switch (out_.scales) {
      case Scales::none:
        factor = w_.scale.as<float>()[scale_row * columns];
        return nullptr;
      case Scales::float16: {
        factor = 0x1p32f * w_.tensor_scale;
        const auto* codes = reinterpret_cast<const std::uint8_t*>(w_.scale.bytes().data()) + scale_row * columns;
        for (std::int64_t g = 0; g < columns; ++g) {
          if ((codes[g] & 0x7F) == 0x7F || codes[g] & 0x80) return "a scale that is negative or not a number";
          if (codes[g] == 0) zeroed(row, g * 16, g * 16 + 16);
          *at(row, g) = without_subnormals(codes[g]);
        }
        return nullptr;
      }
      case Scales::exponent32: {
        const auto* codes = reinterpret_cast<const std::uint8_t*>(w_.scale.bytes().data()) + scale_row * columns;
        int top = 0;
        for (std::int64_t g = 0; g < columns; ++g) top = std::max<int>(top, codes[g]);
        if (top == 255) return "a scale that is not a number";
        factor = std::ldexp(1.0f, top - 127);
        const int field = out_.codes == Codes::e2m1 ? 126 : 120;  // what the codes placed as bits are short of
        for (std::int64_t g = 0; g < columns; ++g) {
          int relative = codes[g] - top + 127;  // the row's largest is 2^0
          if (relative < 1) {
            if (!all_zero(w_, row, g * 32, g * 32 + 32)) return "a row whose powers of two span more than 126";
            relative = 1;
          }
          *at(row, g) = static_cast<std::uint8_t>(relative + field);
        }
        return nullptr;
      }
      case Scales::step32: {
        const auto* codes = reinterpret_cast<const std::uint8_t*>(w_.scale.bytes().data()) + scale_row * columns;
        int top = 0;
        for (std::int64_t g = 0; g < columns; ++g)
          if (!all_zero(w_, row, g * 32, g * 32 + 32)) top = std::max<int>(top, codes[g]);
        if (top == 255) return "a scale that is not a number";
        factor = std::ldexp(1.0f, top - 127 - 6);  // the largest step is 2^6
        for (std::int64_t g = 0; g < columns; ++g) {
          const int step = codes[g] - top + 11;
          if (all_zero(w_, row, g * 32, g * 32 + 32)) continue;
          if (step < 0) return "a row whose powers of two span more than 11 octaves";
          *at(row, g - g % 2) |= static_cast<std::uint8_t>(step << (4 * (g % 2)));
        }
        return nullptr;
      }
      case Scales::bf16_32:
      case Scales::bf16_128: {
        const float* scale = w_.scale.as<float>() + scale_row * columns;
        const std::int64_t width = scale_group(out_.scales);
        factor = f.group_cols == 0 ? scale[0] : 1;
        for (std::int64_t c = 0; c < w_.k; c += width) {
          const float value = f.group_cols == 0 ? 1 : scale[c / f.group_cols];
          if (float_bits(value) & 0xFFFFu) return "scales that are not bf16";
          const std::uint16_t bits = static_cast<std::uint16_t>(float_bits(value) >> 16);
          std::memcpy(at(row, c / width), &bits, 2);
        }
        return nullptr;
      }
    }
    return nullptr;
  }

 private:
  std::uint8_t* at(std::int64_t row, std::int64_t group) {
    const std::int64_t groups = unit_depth(out_.codes) / scale_group(out_.scales);
    std::uint8_t* unit =
        out_.units.data() + (row / kUnitRows * out_.units_along_k() + group / groups) * out_.unit_size() + kUnitCodes;
    return unit +
           scale_index(out_.codes, out_.scales, static_cast<int>(row % kUnitRows), static_cast<int>(group % groups)) *
               scale_bits(out_.scales) / 8;
  }
  const QuantizedMatrix& w_;
  PackedWeight& out_;
};

PackedWeight allocate(Codes codes, Scales scales, std::int64_t n, std::int64_t k) {
  PackedWeight out{codes, scales, n, k, {}, {}};
  out.units.resize(static_cast<std::size_t>(out.row_tiles() * out.units_along_k() * out.unit_size()));
  out.row_scale.resize(static_cast<std::size_t>(out.row_tiles() * kUnitRows), 1.0f);
  return out;
}

// The 32-bit word of a weight's code, and where in it.
struct Word {
  std::uint8_t* bytes;
  CodePlace place;
};
Word word_of(PackedWeight& out, std::int64_t row, std::int64_t column) {
  const int depth = unit_depth(out.codes), inside = static_cast<int>(column % depth),
            chunk = inside / chunk_depth(out.codes);
  const CodePlace place = code_place(out.codes, static_cast<int>(row % kUnitRows), inside % chunk_depth(out.codes));
  return {out.units.data() + (row / kUnitRows * out.units_along_k() + column / depth) * out.unit_size() +
              chunk * kChunkBytes + place.lane * 16 + place.word * 4,
          place};
}

void merge(std::uint8_t* word, std::uint32_t bits) {
  std::uint32_t old;
  std::memcpy(&old, word, 4);
  old |= bits;
  std::memcpy(word, &old, 4);
}

std::optional<PackedWeight> pack(const QuantizedMatrix& w, const Layout& layout, std::string* why) {
  PackedWeight out = allocate(layout.codes, layout.scales, w.m, w.k);
  std::vector<std::uint8_t> zero(static_cast<std::size_t>(w.m * ceil_div<std::int64_t>(w.k, 16)));  // groups of 16
  ScaleWriter scales(w, out);
  for (std::int64_t row = 0; row < w.m; ++row)
    if (const char* reason = scales.row(row, [&](std::int64_t r, std::int64_t begin, std::int64_t) {
          zero[static_cast<std::size_t>(r * ceil_div<std::int64_t>(w.k, 16) + begin / 16)] = 1;
        })) {
      *why = reason;
      return std::nullopt;
    }
  const Spread spread(out.codes, w.format.element);
  // Codes of padding are those of 0.
  const std::uint8_t nothing = 0;
  parallel_for(out.row_tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t padded = round_up<std::int64_t>(w.k, padded_depth(out.codes));
    for (std::int64_t row = begin * kUnitRows; row < end * kUnitRows; ++row)
      for (std::int64_t c = 0; c < padded; ++c) {
        const bool real =
            row < w.m && c < w.k && !zero[static_cast<std::size_t>(row * ceil_div<std::int64_t>(w.k, 16) + c / 16)];
        const Word word = word_of(out, row, c);
        merge(word.bytes, spread(word.place.pair, word.place.half, real ? code_at(w, row, c) : nothing));
      }
  });
  return out;
}

}  // namespace

std::optional<PackedWeight> pack_weight(const QuantizedMatrix& w, std::string* why) {
  const auto layout = layout_of(w.format, why);
  return layout ? pack(w, *layout, why) : std::nullopt;
}

std::optional<PackedWeight> pack_folded_weight(const QuantizedMatrix& w, std::string* why) {
  if (w.format.rule == Rule::mx && w.format.element == Elem::e2m1)
    return pack(w, {Codes::e2m1_folded, Scales::step32}, why);
  *why = "only e2m1 with powers of two folds into e4m3";
  return std::nullopt;
}

PackedWeight by_eights(const PackedWeight& even, const PackedWeight& odd) {
  LOWP_CHECK(
      even.codes == odd.codes && even.scales == odd.scales && even.n == odd.n && even.k == odd.k && even.n % 8 == 0,
      "weights that do not fit each other");
  PackedWeight out = allocate(even.codes, even.scales, 2 * even.n, even.k);
  const std::int64_t units = out.units_along_k(), size = out.unit_size();
  // Words of a lane's 16 bytes that hold an upper row, and the lower row's word of the same K.
  std::array<int, 4> lower{-1, -1, -1, -1};
  for (int k = 0; k < chunk_depth(out.codes); ++k)
    lower[static_cast<std::size_t>(code_place(out.codes, 8, k).word)] = code_place(out.codes, 0, k).word;
  const int bits = scale_bits(out.scales), groups = unit_depth(out.codes) / scale_group(out.scales),
            scale_step = bits == 4 ? 2 : 1;  // two of four bits lie in a byte
  const auto scale_at = [&](int row, int group) {
    return kUnitCodes + scale_index(out.codes, out.scales, row, group) * bits / 8;
  };
  parallel_for(out.row_tiles(), 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t tile = begin; tile < end; ++tile)
      for (const int odd_half : {0, 1}) {
        const PackedWeight& from = odd_half ? odd : even;
        const int half = static_cast<int>(tile % 2);
        for (int row = 0; row < 8; ++row)
          out.row_scale[static_cast<std::size_t>(tile * kUnitRows + odd_half * 8 + row)] =
              from.row_scale[static_cast<std::size_t>(tile / 2 * kUnitRows + half * 8 + row)];
        for (std::int64_t u = 0; u < units; ++u) {
          std::uint8_t* to = out.units.data() + (tile * units + u) * size;
          const std::uint8_t* source = from.units.data() + (tile / 2 * units + u) * size;
          for (int lane_words = 0; lane_words < kUnitCodes; lane_words += 16)
            for (int upper = 0; upper < 4; ++upper)
              if (const int low = lower[static_cast<std::size_t>(upper)]; low >= 0)
                std::memcpy(to + lane_words + 4 * (odd_half ? upper : low),
                            source + lane_words + 4 * (half ? upper : low), 4);
          for (int row = 0; bits && row < 8; ++row)
            for (int group = 0; group < groups; group += scale_step)
              std::memcpy(to + scale_at(odd_half * 8 + row, group), source + scale_at(half * 8 + row, group),
                          static_cast<std::size_t>(std::max(bits / 8, 1)));
        }
      }
  });
  return out;
}

PackedWeight pack_bf16_weight(const TensorView& weight) {
  LOWP_CHECK(weight.dtype == DType::bf16 && weight.shape.size() == 2, "a weight that is no matrix of bf16");
  PackedWeight out = allocate(Codes::bf16, Scales::none, weight.shape[0], weight.shape[1]);
  parallel_for(out.row_tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin * kUnitRows; row < std::min(end * kUnitRows, out.n); ++row)
      for (std::int64_t c = 0; c < out.k; ++c) {
        std::uint16_t value;
        std::memcpy(&value, weight.bytes.data() + (row * out.k + c) * 2, 2);
        const Word word = word_of(out, row, c);
        merge(word.bytes, static_cast<std::uint32_t>(value) << (16 * word.place.half));
      }
  });
  return out;
}

}  // namespace lowp::kernels::cuda
