#include "lowp/kernels/cuda/gemm_packed_product.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemm_packed_table.h"

namespace lowp::kernels::cuda {
namespace {

const PackedKernels& kernels(Codes codes, Scales scales) {
  for (const auto all : {packed_kernels_4bit(), packed_kernels_8bit(), packed_kernels_16bit()})
    for (const PackedKernels& row : all)
      if (row.codes == codes && row.scales == scales) return row;
  LOWP_CHECK(false, "no kernel for codes {} with scales {}", static_cast<int>(codes), static_cast<int>(scales));
}

// Shared memory of a block of which two fit on a multiprocessor, and of one that has it for itself. Less than half is
// left to what the kernel declares itself.
constexpr int kHalf = 113 << 10, kWhole = 226 << 10, kWarps = 16, kMostStages = 4;

struct GemvPlan {
  int stages = 0;  // 0: x does not fit
  int team = 16;
};

GemvPlan plan_gemv(const PackedProduct& p) {
  const bool one = p.m == 1;
  const int declared = one ? 6 << 10 : 35 << 10;
  const std::int64_t padded = round_up<std::int64_t>(p.k, padded_depth(p.codes)),
                     x = p.m * (padded + (one ? 0 : 32)) * 2, ring = kWarps * unit_bytes(p.codes, p.scales);
  const auto stages = [&](std::int64_t room) {
    return static_cast<int>(std::clamp<std::int64_t>((room - declared - x) / ring, 0, kMostStages));
  };
  GemvPlan plan;
  plan.stages = stages(kHalf) >= 2 ? stages(kHalf) : stages(kWhole);
  // More teams of fewer warps, unless that leaves multiprocessors idle.
  const auto busy = [&](int teams) {
    const double turns = static_cast<double>(ceil_div<std::int64_t>(p.n, kUnitRows)) / (multiprocessors() * teams);
    return turns / std::ceil(turns);
  };
  int teams = 1;
  for (const int more : {2, 4})
    if (busy(more) > busy(teams) - 0.05) teams = more;
  plan.team = kWarps / teams;
  return plan;
}

// Pairs of blocks that divide K where tiles of outputs are fewer than multiprocessors. Does not depend on m.
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
  // Several rows of a long K leave gemv no room for its rings.
  if (p.m <= 8 && operand_bytes(p.codes) == 2 && plan_gemv(p).stages >= 2) return Way::gemv;
  return p.m <= 16 ? Way::wide16 : p.m <= 64 ? Way::wide64 : p.m <= 128 ? Way::wide128 : Way::wide256;
}

}  // namespace

bool fuses_input(const PackedProduct& p) { return choose(p) == Way::gemv && p.k <= kMostRow; }
bool fuses_gate(const PackedProduct& p) { return choose(p) != Way::wide256 && p.n % 16 == 0; }

void packed_product(const PackedProduct& p, StreamHandle stream) {
  LOWP_CHECK(p.k > 0 && p.k % 16 == 0 && p.n % 8 == 0, "no product of [{}, {}] by [{}, {}]", p.m, p.k, p.n, p.k);
  if (p.m == 0 || p.n == 0) return;
  LOWP_CHECK((!p.norm && !p.cast) || fuses_input(p), "{} rows that no kernel normalises or casts", p.m);
  LOWP_CHECK(!p.cast || casts_rows(*p.cast), "a cast that products do not have");
  LOWP_CHECK(!p.gate || fuses_gate(p), "{} rows whose gate no kernel applies", p.m);
  const PackedKernels& k = kernels(p.codes, p.scales);
  switch (choose(p)) {
    case Way::gemv: {
      const GemvPlan plan = plan_gemv(p);
      (p.m == 1 ? k.gemv1 : k.gemv8)(p, plan.stages, plan.team, stream);
      return;
    }
    case Way::wide16:
      return k.wide16(p, plan_splits(p), stream);
    case Way::wide64:
      return k.wide64(p, plan_splits(p), stream);
    case Way::wide128:
      return k.wide128(p, plan_splits(p), stream);
    case Way::wide256:
      return k.wide256(p, 1, stream);
  }
}

std::string packed_kernel_name(const PackedProduct& p) {
  switch (choose(p)) {
    case Way::gemv: {
      const GemvPlan plan = plan_gemv(p);
      return fmt::format("gemv, teams of {} warps, {} stages", plan.team, plan.stages);
    }
    case Way::wide16:
      return fmt::format("wgmma 128 outputs x 16 tokens, K over {} pairs of blocks", plan_splits(p));
    case Way::wide64:
      return fmt::format("wgmma 128 outputs x 64 tokens, K over {} pairs of blocks", plan_splits(p));
    case Way::wide128:
      return fmt::format("wgmma 128 outputs x 128 tokens, K over {} pairs of blocks", plan_splits(p));
    case Way::wide256:
      return "wgmma 128 outputs x 256 tokens, clusters of 2";
  }
  return "";
}

}  // namespace lowp::kernels::cuda
