// Casts against torchao, byte for byte.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "lowp/formats/scale_layout.h"
#include "lowp/quant/quantize.h"
#include "tests/golden/golden_file.h"

namespace lowp {
namespace {

// The matrices of a 2-D or 3-D tensor.
std::vector<TensorView> matrices(const TensorView& x) {
  if (x.shape.size() == 2) return {x};
  std::vector<TensorView> slices;
  const std::size_t bytes = x.bytes.size() / static_cast<std::size_t>(x.shape[0]);
  for (std::int64_t e = 0; e < x.shape[0]; ++e)
    slices.push_back({x.dtype, {x.shape[1], x.shape[2]}, x.bytes.subspan(static_cast<std::size_t>(e) * bytes, bytes)});
  return slices;
}

struct Cast {
  std::vector<std::byte> data, scale, zero_point, tensor_scale;
  std::vector<QuantizedMatrix> parts;
};

void append(std::vector<std::byte>& to, std::span<const std::byte> from) {
  to.insert(to.end(), from.begin(), from.end());
}

Cast cast(const golden::Case& c) {
  ops::CastOptions options;
  if (const auto scaling = formats::find_scaling(c.mode)) options.scaling = *scaling;
  const quant::Algorithm algorithm = c.mode == "hqq" ? quant::Algorithm::hqq : quant::Algorithm::absmax;
  Cast result;
  for (const TensorView& x : matrices(c.input())) {
    QuantizedMatrix q = quant::quantize(x, formats::block_format(c.format), algorithm, options);
    append(result.data, q.codes.bytes());
    append(result.scale, q.scale.bytes());
    append(result.zero_point, q.zero_point.bytes());
    append(result.tensor_scale, std::as_bytes(std::span(&q.tensor_scale, 1)));
    result.parts.push_back(std::move(q));
  }
  return result;
}

TEST(CastGolden, EveryCaseIsByteIdentical) {
  int compared = 0;
  for (const golden::Case& c : golden::cases()) {
    if (c.fields.contains("sqnr")) continue;
    const Cast found = cast(c);
    for (const auto& [field, expected] : c.fields) {
      std::string wrong;
      if (field == "data")
        wrong = golden::difference(expected.bytes, found.data);
      else if (field == "scale")
        wrong = golden::difference(expected.bytes, found.scale);
      else if (field == "zero_point")
        wrong = golden::difference(expected.bytes, found.zero_point);
      else if (field == "tensor_scale")
        wrong = golden::difference(expected.bytes, found.tensor_scale);
      else if (field == "dequant_bf16" || field == "dequant_f32") {
        std::vector<std::byte> values;
        for (const QuantizedMatrix& q : found.parts)
          append(values, ops::dequantize(q, field == "dequant_f32" ? DType::f32 : DType::bf16).bytes());
        wrong = golden::difference(expected.bytes, values);
      } else {
        wrong = "unknown field";
      }
      EXPECT_EQ(wrong, "") << c.name() << " " << field;
      ++compared;
    }
  }
  EXPECT_GT(compared, 1500);
}

// Algorithms that iterate follow other summation orders; what counts is that they lose no accuracy.
TEST(CastGolden, IterativeAlgorithmsReachTheSameSqnr) {
  int compared = 0;
  for (const golden::Case& c : golden::cases()) {
    const auto expected = c.fields.find("sqnr");
    if (expected == c.fields.end()) continue;
    const Cast found = cast(c);
    EXPECT_NEAR(ops::sqnr(c.input(), found.parts[0], {}), load_one(expected->second, 0), 0.1) << c.name();
    ++compared;
  }
  EXPECT_GE(compared, 8);
}

TEST(CastGolden, RceilRoundsTheLogarithmAsTorchDoes) {
  const TensorView bits = golden::tensor("rceil/d_bits"), bytes = golden::tensor("rceil/byte");
  for (std::int64_t i = 0; i < bits.shape[0]; ++i)
    ASSERT_EQ(formats::ceil_log2_f32(bits_float(bits.as<std::uint32_t>()[i])) + 127, bytes.as<std::uint8_t>()[i])
        << fmt::format("{:#x}", bits.as<std::uint32_t>()[i]);
}

// torchao's reference functions for the grouped layouts; `ends` of k groups count scale columns there.
TEST(CastGolden, ScaleLayoutsAreByteIdentical) {
  using formats::ScaleLayout;
  const auto check = [](const std::string& name, ScaleLayout layout) {
    const TensorView in = golden::tensor("layout/" + name + "/in"),
                     expected = golden::tensor("layout/" + name + "/out");
    std::vector<std::int64_t> ends;
    if (layout == ScaleLayout::tiled_m_groups || layout == ScaleLayout::tiled_k_groups) {
      const TensorView stored = golden::tensor("layout/" + name + "/ends");
      for (std::int64_t i = 0; i < stored.shape[0]; ++i) ends.push_back(stored.as<std::int32_t>()[i]);
    }
    const bool three = in.shape.size() == 3;
    const formats::ScaleMap map(layout, in.shape[three], in.shape[three + 1], ends, three ? in.shape[0] : 1);
    if (layout != ScaleLayout::tiled) EXPECT_EQ(map.shape(), expected.shape) << name;
    std::vector<std::uint8_t> out(expected.bytes.size()), back(in.bytes.size());
    map.apply({in.as<std::uint8_t>(), in.bytes.size()}, out);
    EXPECT_EQ(golden::difference(expected.bytes, std::as_bytes(std::span(out))), "") << name;
    map.invert(out, back);
    EXPECT_EQ(golden::difference(in.bytes, std::as_bytes(std::span(back))), "") << name;
  };
  for (const char* name : {"tiled0", "tiled1", "tiled2", "tiled3"}) check(name, ScaleLayout::tiled);
  check("m_groups", ScaleLayout::tiled_m_groups);
  check("k_groups", ScaleLayout::tiled_k_groups);
  check("per_expert", ScaleLayout::tiled_per_expert);
}

}  // namespace
}  // namespace lowp
