// The CUDA casts against the CPU's, byte for byte: every format, input type, scale mode, axis and layout.
#include "lowp/ops/cast_cuda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/cast.h"

namespace lowp::ops {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::ScaleLayout;
using formats::Scaling;

constexpr Scaling kScalings[] = {Scaling::floor, Scaling::ceil, Scaling::even, Scaling::rceil};
constexpr DType kInputs[] = {DType::bf16, DType::f16, DType::f32};

class CudaCastTest : public testing::Test {
 protected:
  void SetUp() override {
    if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
  }
  const Device gpu{0};
  std::mt19937 rng{7};

  // Values of all magnitudes of the input type, mostly near each other, some rows constant, zero or tiny.
  Tensor values(DType type, const Shape& shape, bool special = false) {
    const std::int64_t k = shape.back(), count = element_count(shape);
    std::vector<float> v(static_cast<std::size_t>(count));
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = i / k;
      const float magnitude = std::ldexp(1.0f, static_cast<int>(row % 7) * 5 - 24);
      v[static_cast<std::size_t>(i)] = row % 11 == 3   ? 0.0f
                                       : row % 11 == 5 ? -0.75f
                                       : row % 11 == 7 ? normal(rng) * 1e-39f
                                                       : normal(rng) * magnitude;
      if (i % 97 == 0) v[static_cast<std::size_t>(i)] *= 64;
    }
    if (special)
      for (std::int64_t i = 5; i < count; i += 1009)
        v[static_cast<std::size_t>(i)] = bits_float(i % 2 ? 0x7F800000u : 0xFFC00000u);
    Tensor x(type, shape);
    store_rounded(x, 0, v);
    return x;
  }

  static std::vector<std::string> format_names() {
    std::vector<std::string> names = formats::block_format_names();
    std::erase_if(names, [](const std::string& name) { return formats::block_format(name).super_cols > 0; });
    return names;
  }

  static std::vector<float> codebook(const BlockFormat& format) {
    std::vector<float> table;
    if (format.rule == Rule::codebook)
      for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 8);
    return table;
  }
};

testing::AssertionResult same(const Tensor& found, const Tensor& expected) {
  if (found.bytes().size() != expected.bytes().size())
    return testing::AssertionFailure() << found.bytes().size() << " bytes instead of " << expected.bytes().size();
  const auto [a, b] = std::mismatch(found.bytes().begin(), found.bytes().end(), expected.bytes().begin());
  if (a == found.bytes().end()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "byte " << a - found.bytes().begin() << " of " << found.bytes().size() << " is "
                                     << static_cast<int>(*a) << " instead of " << static_cast<int>(*b);
}

// Equal values of two f32 or bf16 tensors; which NaN it is does not matter.
testing::AssertionResult same_values(const Tensor& found, const Tensor& expected) {
  for (std::int64_t i = 0, count = element_count(expected.shape()); i < count; ++i) {
    const float a = load_one(found.view(), i), b = load_one(expected.view(), i);
    if (float_bits(a) != float_bits(b) && !(a != a && b != b))
      return testing::AssertionFailure() << "value " << i << " is " << a << " instead of " << b;
  }
  return testing::AssertionSuccess();
}

void expect_same(const QuantizedMatrix& found, const QuantizedMatrix& expected, const std::string& what) {
  EXPECT_TRUE(same(found.codes, expected.codes)) << what << " codes";
  EXPECT_TRUE(same(found.scale, expected.scale)) << what << " scale";
  EXPECT_TRUE(same(found.zero_point, expected.zero_point)) << what << " zero point";
  EXPECT_EQ(float_bits(found.tensor_scale), float_bits(expected.tensor_scale)) << what;
}

// [r, c] -> [c, r] of each expert; values of up to 4 bytes.
Tensor transposed(const Tensor& x, std::int64_t experts, std::int64_t r, std::int64_t c) {
  Tensor out(x.dtype(), {experts, c, r});
  const auto width = static_cast<std::size_t>(info(x.dtype()).bits / 8);
  for (std::int64_t e = 0; e < experts; ++e)
    for (std::int64_t i = 0; i < r; ++i)
      for (std::int64_t j = 0; j < c; ++j)
        std::memcpy(out.bytes().data() + static_cast<std::size_t>((e * c + j) * r + i) * width,
                    x.bytes().data() + static_cast<std::size_t>((e * r + i) * c + j) * width, width);
  return out;
}

TEST_F(CudaCastTest, EveryFormatOnOddAndEvenShapes) {
  for (const std::string& name : format_names()) {
    const BlockFormat format = formats::block_format(name);
    const std::int64_t group = format.group_cols > 1 ? format.group_cols : 2;
    for (const DType type : kInputs)
      for (const auto& [m, k] :
           {std::pair<std::int64_t, std::int64_t>{1, group}, {67, 3 * group}, {200, 512}, {33, 8192 + 256}}) {
        if (!formats::misfit(format, m, k).empty()) continue;
        const bool mx = format.rule == Rule::mx;
        const Tensor x = values(type, {m, k}, mx || format.rule == Rule::plain);
        for (const Scaling scaling : kScalings) {
          CastOptions options;
          options.scaling = scaling;
          const QuantizedMatrix expected = quantize(x.view(), format, options, codebook(format));
          options.device = gpu;
          const std::string what = name + " " + std::string(info(type).name) + " " + to_string(x.shape()) + " " +
                                   std::string(formats::name(scaling));
          const QuantizedMatrix found = quantize(x.view(), format, options, codebook(format));
          expect_same(found, expected, what);
          for (const DType output : {DType::f32, DType::bf16})
            EXPECT_TRUE(same_values(dequantize(found, output, gpu), dequantize(expected, output))) << what;
          if (HasFailure()) return;
          if (!mx) break;
        }
      }
  }
}

// Every bf16 value stands in groups whose largest value it is, and in groups of everything around it.
TEST_F(CudaCastTest, EveryBf16ValueInEveryFormat) {
  constexpr std::int64_t k = 256;
  for (const std::string& name : format_names()) {
    const BlockFormat format = formats::block_format(name);
    if (!formats::misfit(format, 512, k).empty()) continue;
    const bool tolerant = format.rule == Rule::mx || format.rule == Rule::plain;
    Tensor x(DType::bf16, {512, k});
    for (std::int64_t i = 0; i < 512 * k; ++i) {
      const auto bits = static_cast<std::uint16_t>(i < 65536 ? i : (i * 40503) & 0xFFFF);
      x.as<std::uint16_t>()[i] = !tolerant && (bits & 0x7F80) == 0x7F80 ? 0 : bits;
    }
    for (const Scaling scaling : kScalings) {
      CastOptions options;
      options.scaling = scaling;
      const QuantizedMatrix expected = quantize(x.view(), format, options, codebook(format));
      options.device = gpu;
      expect_same(quantize(x.view(), format, options, codebook(format)), expected, name);
      if (HasFailure()) return;
      if (format.rule != Rule::mx) break;
    }
  }
}

TEST_F(CudaCastTest, RandomBitPatternsOfF32) {
  for (const std::string& name : format_names()) {
    const BlockFormat format = formats::block_format(name);
    if (!formats::misfit(format, 256, 1024).empty()) continue;
    const bool tolerant = format.rule == Rule::mx || format.rule == Rule::plain;
    Tensor x(DType::f32, {256, 1024});
    for (std::int64_t i = 0; i < 256 * 1024; ++i) {
      // Rows of one binade meet the borders of scales, rows of any bits the rest.
      std::uint32_t bits = static_cast<std::uint32_t>(rng());
      if (i / 1024 % 2) bits = (bits & 0x80FFFFFFu) | static_cast<std::uint32_t>(i / 1024 & 0x7F) << 24;
      x.as<std::uint32_t>()[i] = !tolerant && (bits & 0x7F800000u) == 0x7F800000u ? 0 : bits;
    }
    for (const Scaling scaling : kScalings) {
      CastOptions options;
      options.scaling = scaling;
      const QuantizedMatrix expected = quantize(x.view(), format, options, codebook(format));
      options.device = gpu;
      expect_same(quantize(x.view(), format, options, codebook(format)), expected, name);
      if (HasFailure()) return;
      if (format.rule != Rule::mx) break;
    }
  }
}

TEST_F(CudaCastTest, ASharedTensorScaleMaySaturate) {
  formats::GroupStats shared;
  for (const float amax : {0.0f, 1e-39f, 0.03f, 5.0f, 1e30f})
    for (const char* name : {"fp8_tensor", "int8_tensor", "nvfp4"}) {
      shared = {};
      shared.add(amax);
      CastOptions options;
      options.shared = shared;
      const Tensor x = values(DType::bf16, {40, 512});
      const QuantizedMatrix expected = quantize(x.view(), formats::block_format(name), options);
      options.device = gpu;
      expect_same(quantize(x.view(), formats::block_format(name), options), expected, name + std::to_string(amax));
    }
}

// Both axes of experts against casts of each expert and of its transpose.
TEST_F(CudaCastTest, AxesExpertsAndLayouts) {
  struct Case {
    std::int64_t experts, m, k;
  };
  for (const char* name : {"mxfp8", "mxfp8_e5m2", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4", "nvfp4_single"})
    for (const DType type : kInputs)
      for (const Case c :
           {Case{1, 128, 128}, {3, 256, 160}, {2, 96, 64}, {5, 32, 288}, {1, 544, 96}, {1, 64, 33 * 32}, {256, 32, 32}})
        for (const ScaleLayout layout : {ScaleLayout::rows, ScaleLayout::tiled, ScaleLayout::tiled_per_expert})
          for (const auto& [along_k, along_m] : {std::pair{true, false}, {false, true}, {true, true}}) {
            const BlockFormat format = formats::block_format(name);
            const Tensor x = values(type, {c.experts, c.m, c.k}, format.rule == Rule::mx);
            const Tensor xt = transposed(x, c.experts, c.m, c.k);
            const std::int64_t group = format.group_cols;
            if (layout == ScaleLayout::tiled && c.experts > 1) continue;
            const formats::ScaleMap map_k(layout, c.m, c.k / group, {}, c.experts),
                map_m(layout, c.k, c.m / group, {}, c.experts);
            CudaCastRequest request{x.view(), format, {}, along_k, along_m, false, nullptr, nullptr, {}};
            request.options.device = gpu;
            request.options.scaling = c.m % 3 ? Scaling::floor : Scaling::rceil;
            if (layout != ScaleLayout::rows) request.map_k = &map_k, request.map_m = &map_m;
            const CudaCast found = cast_on_cuda(request);
            const std::string what =
                std::string(name) + " " + to_string(x.shape()) + " " + std::string(formats::name(layout));
            for (const bool axis_m : {false, true}) {
              if (!(axis_m ? along_m : along_k)) continue;
              const PlacedCast& placed = axis_m ? found.along_m : found.along_k;
              const std::int64_t rows = axis_m ? c.k : c.m, columns = axis_m ? c.m : c.k, groups = columns / group;
              std::vector<std::uint8_t> scales, codes;
              for (std::int64_t e = 0; e < c.experts; ++e) {
                const Tensor& source = axis_m ? xt : x;
                const std::size_t bytes = source.bytes().size() / static_cast<std::size_t>(c.experts);
                const TensorView one{
                    type, {rows, columns}, source.view().bytes.subspan(static_cast<std::size_t>(e) * bytes, bytes)};
                CastOptions options;
                options.scaling = request.options.scaling;
                const QuantizedMatrix q = quantize(one, format, options);
                codes.insert(codes.end(), q.codes.as<std::uint8_t>(),
                             q.codes.as<std::uint8_t>() + q.codes.bytes().size());
                scales.insert(scales.end(), q.scale.as<std::uint8_t>(),
                              q.scale.as<std::uint8_t>() + q.scale.bytes().size());
              }
              ASSERT_EQ(placed.codes.bytes().size(), codes.size()) << what;
              ASSERT_EQ(std::memcmp(placed.codes.bytes().data(), codes.data(), codes.size()), 0)
                  << what << " axis m " << axis_m;
              std::vector<std::uint8_t> laid_out(placed.scale.bytes().size());
              if (layout == ScaleLayout::rows) {
                laid_out = scales;
                for (std::int64_t e = 0; e < c.experts && axis_m; ++e)
                  for (std::int64_t r = 0; r < rows; ++r)
                    for (std::int64_t g = 0; g < groups; ++g)
                      laid_out[static_cast<std::size_t>((e * groups + g) * rows + r)] =
                          scales[static_cast<std::size_t>((e * rows + r) * groups + g)];
              } else {
                (axis_m ? map_m : map_k).apply(scales, laid_out);
              }
              ASSERT_EQ(std::memcmp(placed.scale.bytes().data(), laid_out.data(), laid_out.size()), 0)
                  << what << " axis m " << axis_m;
            }
          }
}

TEST_F(CudaCastTest, GroupedLayouts) {
  const BlockFormat format = formats::block_format("mxfp8");
  const Tensor x = values(DType::bf16, {416, 352});
  const std::vector<std::int64_t> m_ends = {0, 96, 97, 260, 416}, k_ends = {3, 3, 4, 11};
  for (const bool by_m : {true, false}) {
    const formats::ScaleMap map(by_m ? ScaleLayout::tiled_m_groups : ScaleLayout::tiled_k_groups, 416, 11,
                                by_m ? m_ends : k_ends);
    CudaCastRequest request{x.view(), format, {}, true, false, false, &map, nullptr, {}};
    request.options.device = gpu;
    const CudaCast found = cast_on_cuda(request);
    const QuantizedMatrix q = quantize(x.view(), format, {});
    Tensor expected(DType::u8, map.shape());
    map.apply({q.scale.as<std::uint8_t>(), q.scale.bytes().size()},
              {expected.as<std::uint8_t>(), expected.bytes().size()});
    EXPECT_TRUE(same(found.along_k.scale, expected)) << by_m;

    // The stand-alone moves.
    kernels::cuda::use_device(0);
    const kernels::cuda::Stream stream;
    const kernels::cuda::Memory in(q.scale.bytes().size()), out(expected.bytes().size()),
        groups(map.groups().size() * sizeof(formats::ScaleGroup));
    kernels::cuda::copy(in.as<>(), q.scale.bytes().data(), in.size(), stream.handle());
    kernels::cuda::copy(groups.as<>(), map.groups().data(), groups.size(), stream.handle());
    formats::ScaleGrid grid = map.grid();
    grid.groups = groups.as<formats::ScaleGroup>();
    kernels::cuda::to_layout(in.as<std::uint8_t>(), 1, grid, out.as<std::uint8_t>(),
                             static_cast<std::int64_t>(out.size()), stream.handle());
    kernels::cuda::fill(in.as<>(), 0xAA, in.size(), stream.handle());
    kernels::cuda::from_layout(out.as<std::uint8_t>(), 1, grid, in.as<std::uint8_t>(), stream.handle());
    Tensor laid_out(DType::u8, map.shape()), back(q.scale.dtype(), q.scale.shape());
    kernels::cuda::copy(laid_out.bytes().data(), out.as<>(), out.size(), stream.handle());
    kernels::cuda::copy(back.bytes().data(), in.as<>(), in.size(), stream.handle());
    stream.synchronize();
    EXPECT_TRUE(same(laid_out, expected)) << by_m;
    EXPECT_TRUE(same(back, q.scale)) << by_m;
  }
}

TEST_F(CudaCastTest, RefusesNanOutsideMxAndNamesItsPlace) {
  Tensor x = values(DType::bf16, {40, 512});
  x.as<std::uint16_t>()[7 * 512 + 300] = 0x7FC0;
  x.as<std::uint16_t>()[39 * 512] = 0xFF80;
  CastOptions options;
  options.device = gpu;
  options.name = "w";
  try {
    quantize(x.view(), formats::block_format("fp8"), options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "w: value nan at [7, 300] is not finite");
  }
}

}  // namespace
}  // namespace lowp::ops
