// Operands that become e4m3 with one scale a row: the codes of the cast, and what products lose by it.
#include <cstdio>

#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/gemm_rebase.h"
#include "lowp/kernels/cuda/row_rebase.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/cuda_testing.h"
#include "lowp/ops/linear.h"
#include "lowp/ops/linear_cuda.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;
using formats::Rule;

Tensor tensor_of(const Bf16Values& values, std::int64_t rows) {
  Tensor x(DType::bf16, {rows, static_cast<std::int64_t>(values.size()) / rows});
  std::memcpy(x.bytes().data(), values.data(), x.bytes().size());
  return x;
}

// A row by the definition: its codes' values, and its scale.
struct Row {
  std::vector<float> values;
  float scale = 1;
};
Row expected_row(const Tensor& x, const formats::BlockFormat& format) {
  const QuantizedMatrix q = quantize(x.view(), format, {});
  const auto code = [&](std::int64_t c) {
    const auto byte =
        static_cast<std::uint8_t>(q.codes.bytes()[static_cast<std::size_t>(format.two_codes_a_byte() ? c / 2 : c)]);
    return format.two_codes_a_byte() ? byte >> (4 * (c & 1)) & 15u : std::uint32_t{byte};
  };
  const auto scale = [&](std::int64_t g) {
    return static_cast<std::uint8_t>(q.scale.bytes()[static_cast<std::size_t>(g)]);
  };
  const std::int64_t groups = format.scale_cols(q.k);
  int most = 0;
  for (std::int64_t g = 0; g < groups; ++g) most = std::max<int>(most, scale(g));
  const bool mx = format.rule == Rule::mx;
  const float largest =
      formats::max_value(format.element) * (mx ? 1 : formats::decode(Elem::e4m3, static_cast<std::uint32_t>(most)));
  int up = 0;
  while (largest * std::ldexp(1.0f, up + 1) <= 448) ++up;
  while (largest * std::ldexp(1.0f, up) > 448) --up;
  Row row;
  row.scale = mx ? std::ldexp(1.0f, most - 127 - up) : std::ldexp(q.tensor_scale, -up);
  for (std::int64_t c = 0; c < q.k; ++c) {
    const std::uint32_t of_group = scale(c / format.group_cols);
    const double by = mx ? std::ldexp(1.0, static_cast<int>(of_group) - most) : formats::decode(Elem::e4m3, of_group);
    const double value = formats::decode(format.element, code(c)) * by * std::ldexp(1.0, up);
    row.values.push_back(formats::decode(Elem::e4m3, formats::encode(Elem::e4m3, static_cast<float>(value))));
  }
  return row;
}

using RebaseCuda = CudaTest;

TEST_F(RebaseCuda, RowsHaveTheirCodes) {
  const std::int64_t rows = 40;
  for (const char* name : {"mxfp8", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4", "nvfp4_single"})
    for (const std::int64_t k : {96, 2080, 16384, 28672}) {
      const formats::BlockFormat format = formats::block_format(name);
      Bf16Values x = random(rows * k);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < k; ++c) {
          std::uint16_t& v = x[static_cast<std::size_t>(r * k + c)];
          if (r == 1) v = 0;
          if (r > 1)
            v = to_bf16(std::ldexp(from_bf16(v), static_cast<int>(-(c / 16 * 7 % (r + 1)) + (r % 5 - 2) * 15)));
        }
      const void* const in = upload(x);
      auto* const codes = room<std::uint8_t>(rows * k);
      auto* const scale = room<float>(rows);
      cuda::rebase_rows({.x = in, .format = &format, .codes = codes, .scale = scale, .rows = rows, .width = k},
                        handle());
      const auto found = download(codes, rows * k);
      const auto scales = download(scale, rows);
      for (std::int64_t r = 0; r < rows; ++r) {
        const Row row = expected_row(tensor_of({x.begin() + r * k, x.begin() + (r + 1) * k}, 1), format);
        if (r != 1)  // of zeros it may be any
          ASSERT_EQ(scales[static_cast<std::size_t>(r)], row.scale) << name << ", row " << r;
        ASSERT_TRUE(std::isfinite(scales[static_cast<std::size_t>(r)])) << name << ", row " << r;
        for (std::int64_t c = 0; c < k; ++c)
          ASSERT_EQ(formats::decode(Elem::e4m3, found[static_cast<std::size_t>(r * k + c)]),
                    row.values[static_cast<std::size_t>(c)])
              << name << ", row " << r << ", column " << c << " of " << k;
      }
    }
}

TEST_F(RebaseCuda, NotANumberPoisonsItsRow) {
  const std::int64_t rows = 3, k = 256;
  Bf16Values x = random(rows * k);
  x[k + 77] = 0x7FC0;
  for (const char* name : {"mxfp8", "mxfp4"}) {
    const formats::BlockFormat format = formats::block_format(name);
    auto* const codes = room<std::uint8_t>(rows * k);
    auto* const scale = room<float>(rows);
    cuda::rebase_rows({.x = upload(x), .format = &format, .codes = codes, .scale = scale, .rows = rows, .width = k},
                      handle());
    const auto scales = download(scale, rows);
    EXPECT_TRUE(std::isfinite(scales[0]) && std::isnan(scales[1]) && std::isfinite(scales[2])) << name;
  }
}

// Errors of a product of one row, again and again, relative to the norms of the operands that the recipe has: their
// root mean square. The bias takes the sum but for its last places away, so that bf16 results show them.
double error(const formats::Recipe& recipe, Operands operands, const Tensor& w, const Tensor& x) {
  const std::int64_t m = 80, n = w.shape()[0], k = w.shape()[1];
  const QuantizedMatrix q = quantize(w.view(), recipe.weight, {});
  const Tensor weight = dequantize(q, DType::f32);
  std::vector<float> plain(static_cast<std::size_t>(k)), grid(plain.size()), weights(static_cast<std::size_t>(n * k));
  load_f32(x.view(), 0, k, plain.data());
  load_f32(weight.view(), 0, n * k, weights.data());
  fake_quantize(*recipe.activation, Elem::bf16, std::nullopt, plain, 1, k, grid);
  std::vector<double> sums, norms;
  std::vector<float> bias;
  double x_norm = 0;
  for (const float v : grid) x_norm += double{v} * v;
  for (std::int64_t j = 0; j < n; ++j) {
    double sum = 0, norm = 0;
    for (std::int64_t c = 0; c < k; ++c) {
      const double value = weights[static_cast<std::size_t>(j * k + c)];
      sum += value * grid[static_cast<std::size_t>(c)];
      norm += value * value;
    }
    sums.push_back(sum);
    norms.push_back(std::sqrt(norm * x_norm));
    bias.push_back(-formats::round_to(Elem::bf16, static_cast<float>(sum)));
  }
  Tensor b(DType::bf16, {n});
  store_rounded(b, 0, bias);
  const CudaLinear linear(q, recipe, b.view(), Device{0}, std::nullopt, operands);
  Tensor rows(DType::bf16, {m, k});
  for (std::int64_t i = 0; i < m; ++i)
    std::memcpy(rows.bytes().data() + static_cast<std::size_t>(i * k * 2), x.bytes().data(), x.bytes().size());
  const cuda::Stream stream;
  const cuda::Memory in = cuda::uploaded(rows.bytes()), out(static_cast<std::size_t>(m * n * 2)),
                     workspace(linear.workspace(m));
  linear.run(in.as<>(), m, out.as<>(), workspace.as<>(), stream.handle());
  Tensor y(DType::bf16, {m, n});
  cuda::copy(y.bytes().data(), out.as<>(), y.bytes().size(), stream.handle());
  stream.synchronize();
  double squares = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const auto at = static_cast<std::size_t>(j);
    const double off = (load_one(y.view(), (m - 1) * n + j) - (sums[at] + bias[at])) / norms[at];
    squares += off * off;
  }
  return std::sqrt(squares / static_cast<double>(n));
}

// What re-basing adds stays within what sums of e4m3 products lose anyway, also where a few columns are up to 2^14
// times as large as the others: errors are those of the kernel with operands that are e4m3 from the beginning.
TEST_F(RebaseCuda, ProductsLoseNoMoreThanThoseOfFp8) {
  const std::int64_t n = 512, k = 4096;
  const Tensor w = tensor_of(random(n * k, 0.05f), n);
  for (const int octaves : {0, 6, 10, 14}) {
    Bf16Values row = random(k);
    for (std::size_t c = 5; c < row.size(); c += 1024) row[c] = to_bf16(std::ldexp(from_bf16(row[c]), octaves));
    const Tensor x = tensor_of(row, 1);
    std::printf("columns 2^%d larger:", octaves);
    for (const auto& [peer, names] : {std::pair<const char*, std::vector<const char*>>{
                                          "fp8-fp8", {"mxfp8-mxfp8", "mxfp6-mxfp6", "mxfp6_e3m2-mxfp6_e3m2"}},
                                      {"mxfp4-fp8", {"mxfp4-mxfp8", "mxfp4-mxfp4"}}}) {
      const double fp8 = error(formats::recipe(peer), Operands::rebased, w, x);
      std::printf(" %s %.1e", peer, fp8);
      for (const char* name : names) {
        const formats::Recipe recipe = formats::recipe(name);
        const double exact = error(recipe, Operands::exact, w, x), rebased = error(recipe, Operands::rebased, w, x);
        std::printf(", %s %.1e (exact operands %.1e)", name, rebased, exact);
        EXPECT_LE(exact, 0x1p-17) << name;
        EXPECT_LE(rebased, 2 * fp8) << name << ", columns 2^" << octaves << " larger";
      }
      std::printf(";");
    }
    std::printf(" nvfp4-nvfp4 rounded %.1e\n", error(formats::recipe("nvfp4-nvfp4"), Operands::rounded, w, x));
  }
}

// 128 values of a row far below the rest: only products in bf16 keep them.
TEST_F(RebaseCuda, WeightsThatWouldLoseMoreStayInBf16) {
  const std::int64_t n = 64, k = 512;
  Bf16Values v = random(n * k);
  const formats::Recipe mxfp8 = formats::recipe("mxfp8-mxfp8"), mxfp4 = formats::recipe("mxfp4-mxfp8");
  const auto plan = [&](int octaves, const formats::Recipe& recipe, Operands operands) {
    Bf16Values scaled = v;
    for (std::int64_t c = 128; c < 256; ++c)
      scaled[static_cast<std::size_t>(7 * k + c)] =
          to_bf16(std::ldexp(from_bf16(v[static_cast<std::size_t>(7 * k + c)]), -octaves));
    return CudaLinear(quantize(tensor_of(scaled, n).view(), recipe.weight, {}), recipe, std::nullopt, Device{0},
                      std::nullopt, operands)
        .plan(300);
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(plan(2, mxfp8, Operands::rebased), "codes x codes"));
  EXPECT_TRUE(has(plan(2, mxfp8, Operands::exact), "bf16 x weights"));
  EXPECT_TRUE(has(plan(13, mxfp8, Operands::rebased), "bf16 x weights"));
  EXPECT_TRUE(has(plan(13, mxfp8, Operands::rebased), "would lose"));
  EXPECT_TRUE(has(plan(2, mxfp4, Operands::rebased), "folded"));
  EXPECT_TRUE(has(plan(12, mxfp4, Operands::rebased), "codes x codes"));  // 13 octaves are too many to fold
  EXPECT_TRUE(has(plan(24, mxfp4, Operands::rebased), "bf16 x weights"));
}

}  // namespace
}  // namespace lowp::ops
