// Weights packed for CUDA kernels, read back bit by bit; needs no GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/gemm_packed.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using cuda::Codes;
using cuda::PackedWeight;
using cuda::Scales;
using formats::Elem;

Tensor weight(std::int64_t n, std::int64_t k) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = normal(rng) * std::ldexp(1.0f, static_cast<int>(i / 32 % 9) - 4);
  for (std::int64_t i = 0; i < k; ++i) v[static_cast<std::size_t>(2 * k + i)] = 0;
  Tensor x(DType::bf16, {n, k});
  store_rounded(x, 0, v);
  return x;
}

// The value that the kernels give a packed weight's element, by the layout's definition.
float value(const PackedWeight& p, std::int64_t row, std::int64_t column) {
  const int depth = cuda::unit_depth(p.codes), inside = static_cast<int>(column % depth);
  const std::uint8_t* unit =
      p.units.data() + (row / cuda::kUnitRows * p.units_along_k() + column / depth) * p.unit_size();
  const int in_tile = static_cast<int>(row % cuda::kUnitRows), chunk_depth = cuda::chunk_depth(p.codes);
  const cuda::CodePlace at = cuda::code_place(p.codes, in_tile, inside % chunk_depth);
  std::uint32_t word, code = 0;
  std::memcpy(&word, unit + inside / chunk_depth * cuda::kChunkBytes + at.lane * 16 + at.word * 4, 4);
  for (int bit = 0; bit < cuda::code_bits(p.codes); ++bit)
    code |= (word >> cuda::code_bit(p.codes, at.pair, at.half, bit) & 1u) << bit;
  const std::uint8_t* scale = unit + cuda::kUnitCodes +
                              cuda::scale_index(p.codes, p.scales, in_tile, inside / cuda::scale_group(p.scales)) *
                                  cuda::scale_bits(p.scales) / 8;
  float factor = p.row_scale[static_cast<std::size_t>(row)];
  if (p.scales == Scales::exponent32) factor *= std::ldexp(1.0f, *scale - 127 - (p.codes == Codes::e2m1 ? 126 : 120));
  if (p.scales == Scales::float16) factor *= 0x1p-32f * std::ldexp(8.0f + (*scale & 7), (*scale >> 3) - 15 - 3);
  if (cuda::scale_bits(p.scales) == 16) {
    std::uint16_t bits;
    std::memcpy(&bits, scale, 2);
    factor *= bits_float(static_cast<std::uint32_t>(bits) << 16);
  }
  if (p.scales == Scales::step32) factor *= std::ldexp(1.0f, (*scale >> (inside / 32 % 2 * 4) & 15) - 5);
  switch (p.codes) {
    case Codes::bf16:
      return factor * formats::decode(Elem::bf16, code);
    case Codes::e4m3:
      return factor * formats::decode(Elem::e4m3, code);
    case Codes::e2m1:
    case Codes::e2m1_folded:
      return factor * formats::decode(Elem::e2m1, code);
    case Codes::s8:
      return factor * static_cast<float>(static_cast<std::int8_t>(code));
    case Codes::u4:
      return factor * (static_cast<float>(code) - 8);
  }
  return 0;
}

TEST(PackCuda, EveryLayoutReadsBack) {
  const std::int64_t n = 40, k = 1152;  // neither a multiple of the padding
  const Tensor x = weight(n, k);
  for (const char* name : {"mxfp8", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4", "nvfp4_single", "fp8", "fp8_tensor",
                           "int8", "int4_g32", "int4_g64", "int4_g128", "int3_g32", "int2_g128", "int1_g32",
                           "int4_channel", "int8_channel", "int7_g128", "int5_g64"}) {
    const QuantizedMatrix q = quantize(x.view(), formats::block_format(name), {});
    std::string why;
    const auto packed = cuda::pack_weight(q, &why);
    ASSERT_TRUE(packed) << name << ": " << why;
    const Tensor expected = dequantize(q, DType::f32);
    for (std::int64_t row = 0; row < n; ++row)
      for (std::int64_t c = 0; c < k; ++c) {
        const float found = value(*packed, row, c), wanted = load_one(expected.view(), row * k + c);
        // Scales of a row multiply the sum: here their rounding comes in another order.
        ASSERT_NEAR(found, wanted, std::abs(wanted) * 0x1p-22f) << name << " at [" << row << ", " << c << "]";
      }
    for (std::int64_t c = k; c < round_up<std::int64_t>(k, cuda::padded_depth(packed->codes)); ++c)
      ASSERT_EQ(value(*packed, 1, c), 0) << name << " beyond the last column";
  }
}

TEST(PackCuda, FoldedWeightsReadBack) {
  const std::int64_t n = 24, k = 544;
  const Tensor x = weight(n, k);
  const QuantizedMatrix q = quantize(x.view(), formats::block_format("mxfp4"), {});
  std::string why;
  const auto packed = cuda::pack_folded_weight(q, &why);
  ASSERT_TRUE(packed) << why;
  const Tensor expected = dequantize(q, DType::f32);
  for (std::int64_t row = 0; row < n; ++row)
    for (std::int64_t c = 0; c < k; ++c) ASSERT_EQ(value(*packed, row, c), load_one(expected.view(), row * k + c));
  QuantizedMatrix wide = quantize(x.view(), formats::block_format("mxfp4"), {});
  wide.scale.bytes()[0] = std::byte{140};
  wide.scale.bytes()[1] = std::byte{120};
  EXPECT_FALSE(cuda::pack_folded_weight(wide, &why));
  EXPECT_NE(why.find("11 octaves"), std::string::npos);
}

TEST(PackCuda, Bf16ReadsBack) {
  const Tensor x = weight(24, 208);
  const PackedWeight packed = cuda::pack_bf16_weight(x.view());
  for (std::int64_t row = 0; row < 24; ++row)
    for (std::int64_t c = 0; c < 208; ++c) ASSERT_EQ(value(packed, row, c), load_one(x.view(), row * 208 + c));
}

// Outputs by eights of two weights are those of a weight whose rows lie so.
TEST(PackCuda, ByEights) {
  const std::int64_t n = 40, k = 1152;
  const Tensor x = weight(2 * n, k);
  const auto rows = [&](int part) {  // -1: by eights of the other two
    Tensor some(DType::bf16, {part < 0 ? 2 * n : n, k});
    const auto row_bytes = static_cast<std::size_t>(k) * 2;
    for (std::int64_t r = 0; r < some.shape()[0]; ++r) {
      const std::int64_t from = part < 0 ? r / 8 % 2 * n + r / 16 * 8 + r % 8 : part * n + r;
      std::memcpy(some.bytes().data() + static_cast<std::size_t>(r) * row_bytes,
                  x.bytes().data() + static_cast<std::size_t>(from) * row_bytes, row_bytes);
    }
    return some;
  };
  const auto expect_equal = [&](const char* name, const auto& pack) {
    const PackedWeight found = cuda::by_eights(pack(rows(0)), pack(rows(1))), wanted = pack(rows(-1));
    EXPECT_EQ(found.units, wanted.units) << name;
    EXPECT_EQ(found.row_scale, wanted.row_scale) << name;
    EXPECT_EQ(found.n, wanted.n) << name;
  };
  for (const char* name : {"mxfp8", "mxfp4", "nvfp4_single", "fp8", "int8", "int4_g32", "int4_g128", "int7_g128"})
    expect_equal(name, [&](const Tensor& part) {
      std::string why;
      return *cuda::pack_weight(quantize(part.view(), formats::block_format(name), {}), &why);
    });
  expect_equal("folded", [&](const Tensor& part) {
    std::string why;
    return *cuda::pack_folded_weight(quantize(part.view(), formats::block_format("mxfp4"), {}), &why);
  });
  expect_equal("bf16", [&](const Tensor& part) { return cuda::pack_bf16_weight(part.view()); });
}

TEST(PackCuda, PlacesAreABijection) {
  for (const Codes codes : {Codes::bf16, Codes::e4m3, Codes::s8, Codes::e2m1, Codes::u4, Codes::e2m1_folded}) {
    std::vector<int> taken(cuda::kChunkBytes * 8);
    for (int row = 0; row < cuda::kUnitRows; ++row)
      for (int k = 0; k < cuda::chunk_depth(codes); ++k) {
        const cuda::CodePlace at = cuda::code_place(codes, row, k);
        for (int bit = 0; bit < cuda::code_bits(codes); ++bit)
          ++taken[static_cast<std::size_t>((at.lane * 4 + at.word) * 32 +
                                           cuda::code_bit(codes, at.pair, at.half, bit))];
      }
    for (const int count : taken) ASSERT_EQ(count, 1) << static_cast<int>(codes);
  }
}

TEST(PackCuda, SaysWhatItCannotKeep) {
  const Tensor x = weight(16, 256);
  std::string why;
  for (const char* name : {"int4_g32_asym", "int4_g128_float", "fp8_block128", "mxfp8_e5m2", "q4_k"})
    EXPECT_FALSE(cuda::pack_weight(quantize(x.view(), formats::block_format(name), {}), &why)) << name;
  // Scales are rounded to the input's type: of f32 values they are no bf16.
  Tensor exact(DType::f32, {16, 256});
  std::vector<float> v(16 * 256);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = 1.0f / static_cast<float>(i + 3);
  store_rounded(exact, 0, v);
  EXPECT_FALSE(cuda::pack_weight(quantize(exact.view(), formats::block_format("int8_g32"), {}), &why));
  EXPECT_EQ(why, "scales that are not bf16");
  QuantizedMatrix wide = quantize(x.view(), formats::block_format("mxfp4"), {});
  wide.scale.bytes()[0] = std::byte{250};
  wide.scale.bytes()[1] = std::byte{5};
  EXPECT_FALSE(cuda::pack_weight(wide, &why));
  EXPECT_NE(why.find("span"), std::string::npos);
}

}  // namespace
}  // namespace lowp::ops
