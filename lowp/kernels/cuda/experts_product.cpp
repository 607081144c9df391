#include "lowp/kernels/cuda/experts_product.h"

#include <algorithm>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/experts_table.h"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemv_shape.h"
#include "lowp/kernels/cuda/kernel_row.h"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

const ExpertsKernels& kernels(const ExpertsProduct& p) {
  return row_of<ExpertsKernels>({experts_kernels_4bit(), experts_kernels_8bit(), experts_kernels_16bit()}, p.codes,
                                p.scales);
}

// Shared memory of a block. The two products of few rows stand side by side on a multiprocessor, and two of one kind do
// not: blocks that begin while other kernels hold some multiprocessors would else go two by two to the others.
constexpr int kGated = 120 << 10, kCombined = 104 << 10, kWhole = 224 << 10;
constexpr int kDeclared = 10 << 10;  // what the kernel declares itself, about

// Does not depend on the number of rows, so that sums do not either, but for the stages.
int team_of(const ExpertsProduct& p, std::int64_t units) {
  const std::int64_t tiles = ceil_div<std::int64_t>(p.n, 16), processors = multiprocessors();
  if (!p.gated) {  // a bout has a job for each expert
    int teams = 1;
    while (teams < kGemvWarps && teams < p.rows.top && kGemvWarps / teams > 1) teams *= 2;
    while (teams < kGemvWarps && kGemvWarps / teams > units) teams *= 2;
    return kGemvWarps / teams;
  }
  const std::int64_t jobs = ceil_div(p.rows.top * tiles, processors);  // of a block, for one row
  const auto cost = [&](int teams) {  // turns of the slowest warp, and a synchronization a bout
    return ceil_div<std::int64_t>(jobs, teams) * (ceil_div<std::int64_t>(units * teams, kGemvWarps) + 1);
  };
  int best = 1;
  for (const int teams : {2, 4, 8, 16})
    if (cost(teams) < cost(best)) best = teams;
  return kGemvWarps / best;
}

ExpertsPlan plan(const ExpertsProduct& p) {
  const std::int64_t padded = round_up<std::int64_t>(p.k, padded_depth(p.codes)), units = padded / unit_depth(p.codes),
                     x_rows = p.gated ? p.rows.rows : p.rows.places(), columns = std::min<std::int64_t>(p.rows.rows, 8);
  ExpertsPlan made;
  made.team = team_of(p, units);
  const std::int64_t x = x_rows * gemv_row_stride(padded, x_rows) * 2,
                     sums = 2 * 4 * 16 * (p.gated ? kGemvWarps * columns : made.team * x_rows),
                     ring = kGemvWarps * unit_bytes(p.codes, p.scales);
  const auto stages = [&](std::int64_t room) {
    return static_cast<int>(std::clamp<std::int64_t>((room - kDeclared - x - sums) / ring, 0, kExpertsStages));
  };
  const int room = p.gated ? kGated : kCombined;
  made.stages = stages(room) >= 2 ? stages(room) : stages(kWhole) >= 2 ? stages(kWhole) : 0;
  const auto needed = static_cast<int>(made.stages * ring + x + sums);
  made.shared_bytes = p.gated ? std::max(needed, kGated) : needed;
  return made;
}

void check(const ExpertsProduct& p) {
  LOWP_CHECK(p.k > 0 && p.k % 16 == 0 && p.n % (p.gated ? 16 : 8) == 0, "no product with experts [{}, {}]", p.n, p.k);
}

// With the weights of as many experts as so many rows choose if they choose evenly: which they choose the host does not
// know.
Work work_of(const ExpertsProduct& p) {
  const std::int64_t units = ceil_div<std::int64_t>(p.n, kUnitRows) *
                             (round_up<std::int64_t>(p.k, padded_depth(p.codes)) / unit_depth(p.codes)),
                     visits = p.rows.rows * p.rows.top;
  const auto all = static_cast<double>(p.rows.experts);
  const double idle = all * std::pow(1 - static_cast<double>(p.rows.top) / all, static_cast<double>(p.rows.rows));
  return {.name = fmt::format("experts {} x {}", p.n, p.k),
          .bytes = (all - idle) * static_cast<double>(units * unit_bytes(p.codes, p.scales)),
          .flop = 2.0 * static_cast<double>(visits) * static_cast<double>(p.n * p.k),
          .multiplies = operand_bytes(p.codes) == 1 ? Multiplies::e4m3 : Multiplies::bf16};
}

}  // namespace

bool experts_are_few(const ExpertsProduct& gate_up, const ExpertsProduct& down) {
  const RoutedRows& rows = gate_up.rows;
  if (rows.rows > 8 || rows.rows * rows.top > kMostFewPlaces || rows.experts > kMostFewExperts) return false;
  for (const ExpertsProduct* p : {&gate_up, &down})
    if (!kernels(*p).gated || plan(*p).stages == 0) return false;
  return true;
}

void experts_of_few(const ExpertsProduct& p, const ExpertChoice& choice, StreamHandle stream) {
  check(p);
  LOWP_CHECK(p.gated, "not gate and up");
  const Timed timed(stream, [&] { return work_of(p); });
  if (p.rows.rows) kernels(p).gated(p, choice, plan(p), stream);
}

void combine_experts_of_few(const ExpertsProduct& p, const ExpertChoice& choice, StreamHandle stream) {
  check(p);
  LOWP_CHECK(!p.gated, "gate and up");
  const Timed timed(stream, [&] { return work_of(p); });
  if (p.rows.rows) kernels(p).combined(p, choice, plan(p), stream);
}

int experts_block_rows(std::int64_t visits, std::int64_t experts) {
  const std::int64_t each = visits / experts;
  return each <= 12 ? 16 : each <= 80 ? 64 : 128;
}

void experts_of_many(const ExpertsProduct& p, StreamHandle stream) {
  check(p);
  if (p.rows.rows == 0) return;
  const Timed timed(stream, [&] { return work_of(p); });
  const ExpertsKernels& k = kernels(p);
  (p.rows.block_rows == 16 ? k.wide16 : p.rows.block_rows == 64 ? k.wide64 : k.wide128)(p, stream);
}

}  // namespace lowp::kernels::cuda
