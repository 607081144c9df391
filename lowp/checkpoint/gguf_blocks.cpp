#include "lowp/checkpoint/gguf_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"

namespace lowp::checkpoint {
namespace {

using formats::Elem;
using Bytes = std::uint8_t;

constexpr int kSuper = 256;

// One block, taken apart: codes as QuantizedMatrix has them (e2m1: one a byte), parameters by group.
struct Block {
  std::array<std::int8_t, kSuper> codes;
  std::array<float, 16> scale, zero;
  std::array<Bytes, 4> scale_codes;  // of e8m0 and e4m3 scales
};

// Codes with the sign bit of a byte are fine: they are stored, not computed with.
std::int8_t code(int value) { return static_cast<std::int8_t>(value); }

float half(const Bytes* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return formats::decode(Elem::f16, bits);
}

void put_half(Bytes* at, float value) {
  const auto bits = static_cast<std::uint16_t>(formats::encode(Elem::f16, value));
  std::memcpy(at, &bits, 2);
}

// Nibbles in ggml's split order: byte j has element j below and element j + count above.
void read_split(const Bytes* in, int count, int offset, std::int8_t* out) {
  for (int j = 0; j < count; ++j) {
    out[j] = code((in[j] & 15) - offset);
    out[j + count] = code((in[j] >> 4) - offset);
  }
}

void write_split(const std::int8_t* in, int count, int offset, Bytes* out) {
  for (int j = 0; j < count; ++j)
    out[j] = static_cast<Bytes>(((in[j] + offset) & 15) | ((in[j + count] + offset) & 15) << 4);
}

// ---- blocks of 32: [d f16] [m f16] [fifth bits u32] nibbles; codes are `Offset` less than what is stored.

template <int Offset, bool Minimum, bool FifthBit>
void unpack_legacy(const Bytes* in, Block& b) {
  b.scale[0] = half(in);
  if (Minimum) b.zero[0] = half(in + 2);
  in += Minimum ? 4 : 2;
  std::uint32_t high = 0;
  if (FifthBit) std::memcpy(&high, in, 4);
  in += FifthBit ? 4 : 0;
  read_split(in, 16, 0, b.codes.data());
  for (int j = 0; j < 32; ++j) b.codes[j] = code((b.codes[j] | static_cast<int>(high >> j & 1) << 4) - Offset);
}

template <int Offset, bool Minimum, bool FifthBit>
void pack_legacy(const Block& b, Bytes* out) {
  put_half(out, b.scale[0]);
  if (Minimum) put_half(out + 2, b.zero[0]);
  out += Minimum ? 4 : 2;
  std::uint32_t high = 0;
  for (int j = 0; j < 32; ++j) high |= static_cast<std::uint32_t>(b.codes[j] + Offset) >> 4 << j;
  if (FifthBit) std::memcpy(out, &high, 4);
  out += FifthBit ? 4 : 0;
  write_split(b.codes.data(), 16, Offset, out);
}

void unpack_q8_0(const Bytes* in, Block& b) {
  b.scale[0] = half(in);
  std::memcpy(b.codes.data(), in + 2, 32);
}

void pack_q8_0(const Block& b, Bytes* out) {
  put_half(out, b.scale[0]);
  std::memcpy(out + 2, b.codes.data(), 32);
}

// ---- tables

constexpr std::array<float, 16> kIq4Table = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void unpack_iq4_nl(const Bytes* in, Block& b) {
  b.scale[0] = half(in);
  read_split(in + 2, 16, 0, b.codes.data());
}

void unpack_iq4_xs(const Bytes* in, Block& b) {
  const float d = half(in);
  std::uint16_t high;
  std::memcpy(&high, in + 2, 2);
  for (int g = 0; g < 8; ++g) {
    const int low = in[4 + g / 2] >> (g % 2 * 4) & 15;
    b.scale[g] = d * static_cast<float>((low | (high >> (2 * g) & 3) << 4) - 32);
    read_split(in + 8 + 16 * g, 16, 0, &b.codes[32 * g]);
  }
}

// ---- fp4

void unpack_mxfp4(const Bytes* in, Block& b) {
  b.scale_codes[0] = in[0];
  read_split(in + 1, 16, 0, b.codes.data());
}

void pack_mxfp4(const Block& b, Bytes* out) {
  out[0] = b.scale_codes[0];
  write_split(b.codes.data(), 16, 0, out + 1);
}

// ggml drops the sign of a scale and takes NaN for zero.
void unpack_nvfp4(const Bytes* in, Block& b) {
  for (int g = 0; g < 4; ++g) {
    const auto scale = static_cast<Bytes>(in[g] & 0x7F);
    b.scale_codes[g] = scale == 0x7F ? Bytes{0} : scale;
    read_split(in + 4 + 8 * g, 8, 0, &b.codes[16 * g]);
  }
}

void pack_nvfp4(const Block& b, Bytes* out) {
  for (int g = 0; g < 4; ++g) {
    out[g] = b.scale_codes[g];
    write_split(&b.codes[16 * g], 8, 0, out + 4 + 8 * g);
  }
}

// ---- ternary: codes 0, 1, 2 for -1, 0, 1

// Five (or, at the end, four) digits to the base of 3 in a byte, the first in the highest place.
void unpack_tq1_0(const Bytes* in, Block& b) {
  constexpr std::array<int, 5> kPower = {1, 3, 9, 27, 81};
  b.scale[0] = half(in + 52);
  int at = 0;
  const auto read = [&](const Bytes* bytes, int count, int digits) {
    for (int n = 0; n < digits; ++n)
      for (int j = 0; j < count; ++j) b.codes[at++] = code((static_cast<Bytes>(bytes[j] * kPower[n]) * 3 >> 8) - 1);
  };
  read(in, 32, 5);
  read(in + 32, 16, 5);
  read(in + 48, 4, 4);
}

// Two bits of 32 neighbouring bytes for 32 neighbouring elements, as in Q2_K and Q3_K.
void read_pairs(const Bytes* in, std::int8_t* out) {
  for (int half = 0; half < 2; ++half)
    for (int shift = 0; shift < 4; ++shift)
      for (int l = 0; l < 32; ++l) *out++ = code(in[32 * half + l] >> (2 * shift) & 3);
}

void write_pairs(const std::int8_t* in, Bytes* out) {
  std::memset(out, 0, 64);
  for (int half = 0; half < 2; ++half)
    for (int shift = 0; shift < 4; ++shift)
      for (int l = 0; l < 32; ++l) out[32 * half + l] |= static_cast<Bytes>((*in++ & 3) << (2 * shift));
}

void unpack_tq2_0(const Bytes* in, Block& b) {
  b.scale[0] = half(in + 64);
  read_pairs(in, b.codes.data());
  for (std::int8_t& c : b.codes) c = code(c - 1);
}

// ---- K-quants

// The 6-bit multiples of scale and minimum of eight groups in twelve bytes.
struct Multiples {
  std::array<int, 8> scale, minimum;
};

Multiples read_multiples(const Bytes* in) {
  Multiples m;
  for (int j = 0; j < 4; ++j) {
    m.scale[j] = in[j] & 63;
    m.minimum[j] = in[j + 4] & 63;
    m.scale[j + 4] = (in[j + 8] & 15) | in[j] >> 6 << 4;
    m.minimum[j + 4] = in[j + 8] >> 4 | in[j + 4] >> 6 << 4;
  }
  return m;
}

void write_multiples(const Multiples& m, Bytes* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<Bytes>(m.scale[j] | m.scale[j + 4] >> 4 << 6);
    out[j + 4] = static_cast<Bytes>(m.minimum[j] | m.minimum[j + 4] >> 4 << 6);
    out[j + 8] = static_cast<Bytes>((m.scale[j + 4] & 15) | (m.minimum[j + 4] & 15) << 4);
  }
}

// An f16 unit of which all `values` are whole multiples from `least` to `most`: products of an f16 and a byte are exact
// in f32, so the factors can be found again. Of several the one with the largest multiples, which is what quantizers
// write; where both signs fit, the one that ggml's quantizers choose. Throws Error(unsupported).
struct Unit {
  float unit = 0;
  std::array<int, 16> multiples{};
};

Unit common_unit(std::span<const float> values, int least, int most, const std::string& where) {
  Unit result;
  const float top =
      *std::max_element(values.begin(), values.end(), [](float a, float b) { return std::abs(a) < std::abs(b); });
  if (top == 0) return result;
  const auto fits = [&](int multiple) {
    result.unit = formats::round_to(Elem::f16, top / static_cast<float>(multiple));
    if (result.unit == 0 || !is_finite(result.unit)) return false;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float ratio = std::nearbyint(values[i] / result.unit);
      if (ratio < static_cast<float>(least) || ratio > static_cast<float>(most) || ratio * result.unit != values[i])
        return false;
      result.multiples[i] = static_cast<int>(ratio);
    }
    return true;
  };
  for (int multiple = std::max(-least, most); multiple > 0; --multiple)
    if ((multiple <= -least && fits(-multiple)) || (multiple <= most && fits(multiple))) return result;
  fail(ErrorCode::unsupported, "{}: the scales of a super-block are not multiples of one f16", where);
}

template <bool FifthBit>
void unpack_q45_k(const Bytes* in, Block& b) {
  const float d = half(in), minimum = half(in + 2);
  const Multiples m = read_multiples(in + 4);
  const Bytes* high = in + 16;
  const Bytes* low = high + (FifthBit ? 32 : 0);
  for (int g = 0; g < 8; ++g) {
    b.scale[g] = d * static_cast<float>(m.scale[g]);
    b.zero[g] = -(minimum * static_cast<float>(m.minimum[g]));
    for (int l = 0; l < 32; ++l) {
      const int fifth = FifthBit ? (high[l] >> g & 1) << 4 : 0;
      b.codes[32 * g + l] = code((low[32 * (g / 2) + l] >> (g % 2 * 4) & 15) | fifth);
    }
  }
}

template <bool FifthBit>
void pack_q45_k(const Block& b, Bytes* out, const std::string& where) {
  std::array<float, 8> minimum;
  for (int g = 0; g < 8; ++g) minimum[g] = -b.zero[g];
  const Unit d = common_unit(std::span(b.scale).first(8), 0, 63, where), m = common_unit(minimum, 0, 63, where);
  put_half(out, d.unit);
  put_half(out + 2, m.unit);
  Multiples multiples;
  std::copy_n(d.multiples.begin(), 8, multiples.scale.begin());
  std::copy_n(m.multiples.begin(), 8, multiples.minimum.begin());
  write_multiples(multiples, out + 4);
  Bytes* high = out + 16;
  Bytes* low = high + (FifthBit ? 32 : 0);
  std::memset(high, 0, FifthBit ? 160 : 128);
  for (int g = 0; g < 8; ++g)
    for (int l = 0; l < 32; ++l) {
      const int c = b.codes[32 * g + l];
      low[32 * (g / 2) + l] |= static_cast<Bytes>((c & 15) << (g % 2 * 4));
      if (FifthBit) high[l] |= static_cast<Bytes>(c >> 4 << g);
    }
}

void unpack_q2_k(const Bytes* in, Block& b) {
  const float d = half(in + 80), minimum = half(in + 82);
  for (int g = 0; g < 16; ++g) {
    b.scale[g] = d * static_cast<float>(in[g] & 15);
    b.zero[g] = -(minimum * static_cast<float>(in[g] >> 4));
  }
  read_pairs(in + 16, b.codes.data());
}

void pack_q2_k(const Block& b, Bytes* out, const std::string& where) {
  std::array<float, 16> minimum;
  for (int g = 0; g < 16; ++g) minimum[g] = -b.zero[g];
  const Unit d = common_unit(b.scale, 0, 15, where), m = common_unit(minimum, 0, 15, where);
  for (int g = 0; g < 16; ++g) out[g] = static_cast<Bytes>(d.multiples[g] | m.multiples[g] << 4);
  write_pairs(b.codes.data(), out + 16);
  put_half(out + 80, d.unit);
  put_half(out + 82, m.unit);
}

// The third bit, of which 0 means minus 4, has bit 4 half + shift of byte l.
void unpack_q3_k(const Bytes* in, Block& b) {
  const float d = half(in + 108);
  for (int g = 0; g < 16; ++g) {
    const int low = in[96 + g % 8] >> (g / 8 * 4) & 15, high = in[104 + g % 4] >> (g / 4 * 2) & 3;
    b.scale[g] = d * static_cast<float>((low | high << 4) - 32);
  }
  read_pairs(in + 32, b.codes.data());
  for (int i = 0; i < kSuper; ++i)
    if (!(in[i % 32] >> (i / 32) & 1)) b.codes[i] = code(b.codes[i] - 4);
}

void pack_q3_k(const Block& b, Bytes* out, const std::string& where) {
  const Unit d = common_unit(b.scale, -32, 31, where);
  std::memset(out, 0, 110);
  for (int g = 0; g < 16; ++g) {
    const int stored = d.multiples[g] + 32;
    out[96 + g % 8] |= static_cast<Bytes>((stored & 15) << (g / 8 * 4));
    out[104 + g % 4] |= static_cast<Bytes>(stored >> 4 << (g / 4 * 2));
  }
  write_pairs(b.codes.data(), out + 32);
  for (int i = 0; i < kSuper; ++i)
    if (b.codes[i] >= 0) out[i % 32] |= static_cast<Bytes>(1 << (i / 32));
  put_half(out + 108, d.unit);
}

void unpack_q6_k(const Bytes* in, Block& b) {
  const float d = half(in + 208);
  for (int g = 0; g < 16; ++g) b.scale[g] = d * static_cast<float>(static_cast<std::int8_t>(in[192 + g]));
  for (int h = 0; h < 2; ++h) {
    const Bytes *low = in + 64 * h, *high = in + 128 + 32 * h;
    for (int q = 0; q < 4; ++q)
      for (int l = 0; l < 32; ++l) {
        const int nibble = low[l + q % 2 * 32] >> (q / 2 * 4) & 15;
        b.codes[128 * h + 32 * q + l] = code((nibble | (high[l] >> (2 * q) & 3) << 4) - 32);
      }
  }
}

void pack_q6_k(const Block& b, Bytes* out, const std::string& where) {
  const Unit d = common_unit(b.scale, -128, 127, where);
  std::memset(out, 0, 192);
  for (int h = 0; h < 2; ++h) {
    Bytes *low = out + 64 * h, *high = out + 128 + 32 * h;
    for (int q = 0; q < 4; ++q)
      for (int l = 0; l < 32; ++l) {
        const int stored = b.codes[128 * h + 32 * q + l] + 32;
        low[l + q % 2 * 32] |= static_cast<Bytes>((stored & 15) << (q / 2 * 4));
        high[l] |= static_cast<Bytes>(stored >> 4 << (2 * q));
      }
  }
  for (int g = 0; g < 16; ++g) out[192 + g] = static_cast<Bytes>(d.multiples[g]);
  put_half(out + 208, d.unit);
}

// ---- the table

template <void (*Pack)(const Block&, Bytes*)>
void without_name(const Block& b, Bytes* out, const std::string&) {
  Pack(b, out);
}

struct Codec {
  BlockType type;
  void (*unpack)(const Bytes* in, Block& b);
  void (*pack)(const Block& b, Bytes* out, const std::string& where);  // nullptr: read only
};

constexpr Codec kCodecs[] = {
    {{"Q4_0", "int4_g32", Elem::f16, true}, unpack_legacy<8, false, false>, without_name<pack_legacy<8, false, false>>},
    {{"Q4_1", "int4_g32_bias", Elem::f16, true},
     unpack_legacy<0, true, false>,
     without_name<pack_legacy<0, true, false>>},
    {{"Q5_0", "int5_g32", Elem::f16, true}, unpack_legacy<16, false, true>, without_name<pack_legacy<16, false, true>>},
    {{"Q5_1", "int5_g32_bias", Elem::f16, true},
     unpack_legacy<0, true, true>,
     without_name<pack_legacy<0, true, true>>},
    {{"Q8_0", "q8_0", Elem::f16, true}, unpack_q8_0, without_name<pack_q8_0>},
    {{"Q2_K", "q2_k", Elem::f32, true}, unpack_q2_k, pack_q2_k},
    {{"Q3_K", "q3_k", Elem::f32, true}, unpack_q3_k, pack_q3_k},
    {{"Q4_K", "q4_k", Elem::f32, true}, unpack_q45_k<false>, pack_q45_k<false>},
    {{"Q5_K", "q5_k", Elem::f32, true}, unpack_q45_k<true>, pack_q45_k<true>},
    {{"Q6_K", "q6_k", Elem::f32, true}, unpack_q6_k, pack_q6_k},
    {{"IQ4_NL", "codebook4_g32", Elem::f32, false}, unpack_iq4_nl, nullptr},
    {{"IQ4_XS", "codebook4_g32", Elem::f32, false}, unpack_iq4_xs, nullptr},
    {{"TQ1_0", "int2_g256", Elem::f16, false}, unpack_tq1_0, nullptr},
    {{"TQ2_0", "int2_g256", Elem::f16, false}, unpack_tq2_0, nullptr},
    {{"MXFP4", "mxfp4", Elem::bf16, true}, unpack_mxfp4, without_name<pack_mxfp4>},
    {{"NVFP4", "nvfp4", Elem::bf16, true}, unpack_nvfp4, without_name<pack_nvfp4>},
};

const Codec& codec_of(const BlockType& type) {
  for (const Codec& codec : kCodecs)
    if (&codec.type == &type) return codec;
  LOWP_CHECK(false, "{} is not in the table", type.ggml);
  std::abort();
}

// Where a matrix keeps the codes and parameters of one block.
struct BlockPlace {
  std::int64_t value, group;
  int values, groups;
};

BlockPlace place(const GgmlType& ggml, const formats::BlockFormat& format, std::int64_t block) {
  const int groups = ggml.values / format.group_cols;
  return {block * ggml.values, block * groups, ggml.values, groups};
}

void store(const Block& b, const BlockPlace& at, QuantizedMatrix& out) {
  if (out.format.two_codes_a_byte()) {
    Bytes* codes = out.codes.as<Bytes>() + at.value / 2;
    for (int i = 0; i < at.values / 2; ++i) codes[i] = static_cast<Bytes>(b.codes[2 * i] | b.codes[2 * i + 1] << 4);
  } else {
    std::copy_n(b.codes.begin(), at.values, out.codes.as<std::int8_t>() + at.value);
  }
  if (out.scale.dtype() == DType::f32)
    std::copy_n(b.scale.begin(), at.groups, out.scale.as<float>() + at.group);
  else
    std::copy_n(b.scale_codes.begin(), at.groups, out.scale.as<Bytes>() + at.group);
  if (!out.zero_point.empty()) std::copy_n(b.zero.begin(), at.groups, out.zero_point.as<float>() + at.group);
}

void load(const QuantizedMatrix& in, const BlockPlace& at, Block& b) {
  if (in.format.two_codes_a_byte()) {
    const Bytes* codes = in.codes.as<Bytes>() + at.value / 2;
    for (int i = 0; i < at.values; ++i) b.codes[i] = code(codes[i / 2] >> (i % 2 * 4) & 15);
  } else {
    std::copy_n(in.codes.as<std::int8_t>() + at.value, at.values, b.codes.begin());
  }
  if (in.scale.dtype() == DType::f32)
    std::copy_n(in.scale.as<float>() + at.group, at.groups, b.scale.begin());
  else
    std::copy_n(in.scale.as<Bytes>() + at.group, at.groups, b.scale_codes.begin());
  if (!in.zero_point.empty()) std::copy_n(in.zero_point.as<float>() + at.group, at.groups, b.zero.begin());
}

// Parameters that are stored as they are, in f16.
void check_halves(const Block& b, const QuantizedMatrix& matrix, const std::string& where) {
  const auto check = [&](const char* what, float value) {
    if (formats::round_to(Elem::f16, value) != value)
      fail(ErrorCode::unsupported, "{}: the {} {} is not exact in f16", where, what, value);
  };
  if (matrix.scale.dtype() == DType::f32) check("scale", b.scale[0]);
  if (!matrix.zero_point.empty()) check("zero point", b.zero[0]);
}

}  // namespace

const BlockType* find_block_type(std::string_view ggml) {
  for (const Codec& codec : kCodecs)
    if (codec.type.ggml == ggml) return &codec.type;
  return nullptr;
}

const BlockType* block_type_of(const formats::BlockFormat& format) {
  const std::string_view name = format.name == "nvfp4_single" ? std::string_view("nvfp4") : format.name;
  for (const Codec& codec : kCodecs)
    if (codec.type.format == name) return &codec.type;
  return nullptr;
}

QuantizedMatrix unpack_blocks(const BlockType& type, const TensorView& rows, std::int64_t k, const std::string& where) {
  const GgmlType& ggml = *find_ggml_type(type.ggml);
  const Codec& codec = codec_of(type);
  QuantizedMatrix out;
  out.format = formats::block_format(type.format);
  out.m = rows.shape[0];
  out.k = k;
  out.input = type.input;
  const bool bytes = out.format.scale == Elem::e8m0 || out.format.scale == Elem::e4m3;
  const formats::ElementFormat& element = formats::info(out.format.element);
  const bool is_signed = !element.is_float() && element.is_signed;
  const Shape groups = {out.m, out.format.scale_cols(k)};
  out.codes = Tensor(is_signed ? DType::i8 : DType::u8, {out.m, out.format.two_codes_a_byte() ? k / 2 : k});
  out.scale = Tensor(!bytes ? DType::f32 : out.format.scale == Elem::e8m0 ? DType::f8_e8m0 : DType::f8_e4m3, groups);
  if (out.format.zero_point != formats::ZeroPoint::none) out.zero_point = Tensor(DType::f32, groups);
  if (out.format.rule == formats::Rule::codebook) {
    out.codebook = Tensor(DType::f32, {16});
    std::copy(kIq4Table.begin(), kIq4Table.end(), out.codebook.as<float>());
  }
  const std::int64_t blocks = k / ggml.values;
  LOWP_CHECK(rows.shape[1] == blocks * ggml.bytes, "{}: rows of {} bytes", where, rows.shape[1]);
  const int largest = is_signed ? (1 << (element.bits - 1)) - 1 : (1 << element.bits) - 1;
  parallel_for(out.m, std::max<std::int64_t>(1, (1 << 14) / k), [&](std::int64_t begin, std::int64_t end) {
    Block b{};
    for (std::int64_t i = begin * blocks; i < end * blocks; ++i) {
      codec.unpack(rows.as<Bytes>() + i * ggml.bytes, b);
      const BlockPlace at = place(ggml, out.format, i);
      // Only two bits for a ternary digit leave room for a code too many.
      if (is_signed && std::any_of(b.codes.begin(), b.codes.begin() + at.values, [&](int c) { return c > largest; }))
        fail(ErrorCode::bad_input, "{}: block {} of {} has a code beyond {}", where, i, type.ggml, largest);
      store(b, at, out);
    }
  });
  return out;
}

Tensor pack_blocks(const BlockType& type, const QuantizedMatrix& matrix, const std::string& where) {
  const GgmlType& ggml = *find_ggml_type(type.ggml);
  const Codec& codec = codec_of(type);
  LOWP_CHECK(codec.pack && matrix.k % ggml.values == 0, "{}: {} [{}, {}]", where, type.ggml, matrix.m, matrix.k);
  const std::int64_t blocks = matrix.k / ggml.values;
  Tensor out(DType::u8, {matrix.m, blocks * ggml.bytes});
  Block b{};
  for (std::int64_t i = 0; i < matrix.m * blocks; ++i) {
    load(matrix, place(ggml, matrix.format, i), b);
    if (matrix.format.super_cols == 0) check_halves(b, matrix, where);
    codec.pack(b, out.as<Bytes>() + i * ggml.bytes, where);
  }
  return out;
}

}  // namespace lowp::checkpoint
