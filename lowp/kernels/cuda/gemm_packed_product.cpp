#include "lowp/kernels/cuda/gemm_packed_product.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemm_packed_table.h"
#include "lowp/kernels/cuda/gemv_shape.h"
#include "lowp/kernels/cuda/gemv_table.h"
#include "lowp/kernels/cuda/kernel_row.h"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

const PackedKernels& wide(const PackedProduct& p) {
  return row_of<PackedKernels>({packed_kernels_4bit(), packed_kernels_8bit(), packed_kernels_16bit()}, p.codes,
                               p.scales);
}
const GemvKernels& gemv(const PackedProduct& p) {
  return row_of<GemvKernels>({gemv_kernels_4bit(), gemv_kernels_8bit(), gemv_kernels_16bit()}, p.codes, p.scales);
}

// Shared memory that a block of gemv can have.
constexpr int kWhole = 226 << 10;
// Rounds on their way: what a block reads meanwhile queues behind them, and fewer leave memory idle.
constexpr int kInFlight = 2;

// More teams of fewer warps, unless that leaves multiprocessors idle.
int plan_team(const PackedProduct& p) {
  const auto busy = [&](int teams) {
    const double turns = static_cast<double>(ceil_div<std::int64_t>(p.n, kUnitRows)) / (multiprocessors() * teams);
    return turns / std::ceil(turns);
  };
  int teams = 1;
  for (const int more : {2, 4})
    if (busy(more) > busy(teams) - 0.05) teams = more;
  return kGemvWarps / teams;
}

GemvPlan plan_gemv(std::span<const PackedProduct> products) {
  const bool one = products[0].m == 1;
  const std::int64_t declared = gemv_declared(one),
                     round = kGemvWarps * unit_bytes(products[0].codes, products[0].scales);
  GemvPlan plan;
  std::int64_t x = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const PackedProduct& p = products[i];
    x = std::max(x, p.m * gemv_row_stride(round_up<std::int64_t>(p.k, padded_depth(p.codes)), p.m) * 2);
    plan.teams[i] = plan_team(p);
  }
  plan.rounds = static_cast<int>(std::clamp<std::int64_t>((kWhole - declared - x) / round, 0, kGemvMostRounds));
  plan.in_flight = kInFlight;
  return plan;
}
GemvPlan plan_gemv(const PackedProduct& p) { return plan_gemv({&p, 1}); }

// Parts of K where tiles of outputs are fewer than multiprocessors. Does not depend on m.
int plan_splits(const PackedProduct& p) {
  const std::int64_t tiles = 2 * ceil_div<std::int64_t>(p.n, 256),
                     depths = ceil_div<std::int64_t>(p.k, padded_depth(p.codes));
  const auto cost = [&](int splits) {
    const std::int64_t turns = ceil_div<std::int64_t>(tiles * splits, multiprocessors());
    return static_cast<double>(turns * (ceil_div<std::int64_t>(depths, splits) + 3));  // 3: what a block costs anyway
  };
  const std::array<int, 3> all = {1, 2, 4};
  return *std::min_element(all.begin(), all.end(), [&](int a, int b) { return cost(a) < cost(b); });
}

enum class Way { gemv, wide16, wide64, wide128, wide256 };

Way choose(const PackedProduct& p) {
  // Several rows of a long K leave gemv no room for its rings. It adds in another order than wide tiles.
  const bool reads_x = operand_bytes(p.codes) == 2 || p.cast;
  if (!p.same_order && p.m <= 8 && reads_x && plan_gemv(p).rounds >= 2) return Way::gemv;
  return p.m <= 16 ? Way::wide16 : p.m <= 64 ? Way::wide64 : p.m <= 128 || p.same_order ? Way::wide128 : Way::wide256;
}

Work work_of(const PackedProduct& p) {
  const std::int64_t units = ceil_div<std::int64_t>(p.n, kUnitRows) *
                             (round_up<std::int64_t>(p.k, padded_depth(p.codes)) / unit_depth(p.codes));
  const std::int64_t moved = p.m * (p.k * operand_bytes(p.codes) + p.n * 2);
  return {.name = fmt::format("product {} x {}", p.n, p.k),
          .bytes = static_cast<double>(units * unit_bytes(p.codes, p.scales) + moved),
          .flop = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n * p.k),
          .multiplies = operand_bytes(p.codes) == 1 ? Multiplies::e4m3 : Multiplies::bf16};
}

void check(const PackedProduct& p) {
  LOWP_CHECK(p.k > 0 && p.k % 16 == 0 && p.n % 8 == 0, "no product of [{}, {}] by [{}, {}]", p.m, p.k, p.n, p.k);
  LOWP_CHECK((!p.norm && !p.cast) || fuses_input(p), "{} rows that no kernel normalises or casts", p.m);
  LOWP_CHECK(!p.cast || casts_rows(*p.cast), "a cast that products do not have");
  LOWP_CHECK(!p.gate || fuses_gate(p), "{} rows whose gate no kernel applies", p.m);
}

}  // namespace

bool fuses_input(const PackedProduct& p) { return choose(p) == Way::gemv && p.k <= kMostRow; }
bool fuses_gate(const PackedProduct& p) { return choose(p) != Way::wide256 && p.n % 16 == 0; }

bool chains(const PackedProduct& first, const PackedProduct& next) {
  return next.m == 1 && first.m == 1 && next.codes == first.codes && next.scales == first.scales &&
         choose(first) == Way::gemv && choose(next) == Way::gemv && !Profile::current();
}

int mailed_values(const PackedProduct& p) {
  const bool sums = p.norm && p.norm->add;
  return static_cast<int>((p.gate ? p.n / 2 : p.n) + (sums ? p.k : 0));
}

void packed_products(std::span<const PackedProduct> products, const ProductMail& mail, StreamHandle stream) {
  LOWP_CHECK(!products.empty() && products.size() <= kMostChained, "{} products in a kernel", products.size());
  if (products.size() == 1) return packed_product(products[0], stream);
  int mailed = 0;
  for (const PackedProduct& p : products) {
    check(p);
    LOWP_CHECK(chains(products[0], p), "a product that no kernel has behind others");
    mailed += mailed_values(p);
  }
  LOWP_CHECK(mailed <= mail.values, "{} values in mail of {}", mailed, mail.values);
  gemv(products[0]).one(products, plan_gemv(products), mail, stream);
}

void packed_product(const PackedProduct& p, StreamHandle stream) {
  if (p.m == 0 || p.n == 0) return;
  check(p);
  const Timed timed(stream, [&] { return work_of(p); });
  switch (choose(p)) {
    case Way::gemv:
      return (p.m == 1 ? gemv(p).one : gemv(p).few)({&p, 1}, plan_gemv(p), {}, stream);
    case Way::wide16:
      return wide(p).wide16(p, plan_splits(p), stream);
    case Way::wide64:
      return wide(p).wide64(p, plan_splits(p), stream);
    case Way::wide128:
      return wide(p).wide128(p, plan_splits(p), stream);
    case Way::wide256:
      return wide(p).wide256(p, 1, stream);
  }
}

std::string packed_kernel_name(const PackedProduct& p) {
  switch (choose(p)) {
    case Way::gemv: {
      const GemvPlan plan = plan_gemv(p);
      return fmt::format("gemv, teams of {} warps, {} rounds", plan.teams[0], plan.rounds);
    }
    case Way::wide16:
      return fmt::format("wgmma 128 outputs x 16 tokens, K in {} parts", plan_splits(p));
    case Way::wide64:
      return fmt::format("wgmma 128 outputs x 64 tokens, K in {} parts", plan_splits(p));
    case Way::wide128:
      return fmt::format("wgmma 128 outputs x 128 tokens, K in {} parts", plan_splits(p));
    case Way::wide256:
      return "wgmma 128 outputs x 256 tokens, clusters of 2";
  }
  return "";
}

}  // namespace lowp::kernels::cuda
