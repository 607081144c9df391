#include "lowp/kernels/cuda/gemm_dense.h"

#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/kernels/cuda/gemm_dense_table.h"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

std::span<const DenseVariant> variants(Sums sums) {
  switch (sums) {
    case Sums::fast:
      return dense_fast();
    case Sums::promoted:
      return dense_promoted();
    case Sums::scaled:
      return dense_scaled();
    case Sums::integer:
      return dense_integer();
  }
  LOWP_CHECK(false, "no such sums");
}

// The variant whose last turn leaves the least idle.
const DenseVariant& choose(const DenseProduct& p) {
  const auto cost = [&](const DenseVariant& v) {
    const std::int64_t tiles =
                           ceil_div<std::int64_t>(p.m, v.cluster_rows) * ceil_div<std::int64_t>(p.n, v.cluster_columns),
                       turns = ceil_div<std::int64_t>(tiles, v.clusters);
    return static_cast<double>(turns * v.cluster_rows * v.cluster_columns * v.clusters) / v.rate;
  };
  const auto all = variants(p.sums);
  return *std::min_element(all.begin(), all.end(),
                           [&](const DenseVariant& x, const DenseVariant& y) { return cost(x) < cost(y); });
}

const DenseVariant& grouped(Sums sums) {
  switch (sums) {
    case Sums::fast:
      return grouped_fast();
    case Sums::promoted:
      return grouped_promoted();
    case Sums::scaled:
      return grouped_scaled();
    case Sums::integer:
      return grouped_integer();
  }
  LOWP_CHECK(false, "no such sums");
}

void check_shape(const DenseProduct& p) {
  LOWP_CHECK(p.k > 0 && p.k % 16 == 0 && p.n % 8 == 0, "no product of [{}, {}] by [{}, {}]", p.m, p.k, p.n, p.k);
}

Work work_of(const DenseProduct& p) {
  return {.name = fmt::format("product {} x {}", p.n, p.k),
          .bytes = static_cast<double>(p.n * p.k + p.m * (p.k + 2 * p.n)),
          .flop = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n * p.k),
          .multiplies = p.sums == Sums::integer ? Multiplies::int8 : Multiplies::e4m3};
}

}  // namespace

void dense_product(const DenseProduct& product, StreamHandle stream) {
  check_shape(product);
  const Timed timed(stream, [&] { return work_of(product); });
  if (product.m > 0 && product.n > 0) choose(product).launch({product, 1, nullptr}, stream);
}

void grouped_product(const GroupedProduct& product, StreamHandle stream) {
  check_shape(product);
  LOWP_CHECK(product.expert_of_block && !product.bias, "a grouped product without experts, or with a bias");
  const Timed timed(stream, [&] { return work_of(product); });
  if (product.m > 0 && product.n > 0) grouped(product.sums).launch(product, stream);
}

const char* dense_variant_name(const DenseProduct& product) { return choose(product).name; }

}  // namespace lowp::kernels::cuda
