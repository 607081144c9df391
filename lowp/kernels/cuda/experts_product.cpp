#include "lowp/kernels/cuda/experts_product.h"

#include <algorithm>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/experts_table.h"
#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

const ExpertsKernels& kernels(const ExpertsProduct& p) {
  for (const auto all : {experts_kernels_4bit(), experts_kernels_8bit(), experts_kernels_16bit()})
    for (const ExpertsKernels& row : all)
      if (row.codes == p.codes && row.scales == p.scales) return row;
  LOWP_CHECK(false, "no kernel for codes {} with scales {}", static_cast<int>(p.codes), static_cast<int>(p.scales));
}

constexpr int kWarps = 16, kMostStages = 4;
// Shared memory of a block: beside it there is room for the product behind, which fetches its weights meanwhile.
constexpr int kBeside = 104 << 10, kWhole = 224 << 10;

// Does not depend on the number of rows, so that sums do not either, but for the stages.
int team_of(const ExpertsProduct& p, std::int64_t units) {
  const std::int64_t tiles = ceil_div<std::int64_t>(p.n, 16), processors = multiprocessors();
  if (!p.gated) {  // a bout has a job for each expert
    int teams = 1;
    while (teams < kWarps && teams < p.rows.top && kWarps / teams > 1) teams *= 2;
    while (teams < kWarps && kWarps / teams > units) teams *= 2;
    return kWarps / teams;
  }
  const std::int64_t jobs = ceil_div(p.rows.top * tiles, processors);  // of a block, for one row
  const auto cost = [&](int teams) {  // turns of the slowest warp, and a synchronization a bout
    return ceil_div<std::int64_t>(jobs, teams) * (ceil_div<std::int64_t>(units * teams, kWarps) + 1);
  };
  int best = 1;
  for (const int teams : {2, 4, 8, 16})
    if (cost(teams) < cost(best)) best = teams;
  return kWarps / best;
}

std::int64_t padded_k(const ExpertsProduct& p) { return round_up<std::int64_t>(p.k, padded_depth(p.codes)); }
std::int64_t units_along_k(const ExpertsProduct& p) { return padded_k(p) / unit_depth(p.codes); }

// Of one product, or of both in one kernel.
ExpertsPlan plan(const ExpertsProduct* gate_up, const ExpertsProduct* down) {
  ExpertsPlan made;
  std::int64_t x = 0, sums = 0;  // bytes
  const auto needs = [&](const ExpertsProduct& p, std::int64_t rows, std::int64_t sums_of_table) {
    x = std::max(x, rows * (padded_k(p) + 32) * 2);
    sums = std::max(sums, 2 * 4 * 16 * sums_of_table);
  };
  if (gate_up) {
    const std::int64_t rows = gate_up->rows.rows;
    made.gate_up_team = team_of(*gate_up, units_along_k(*gate_up));
    needs(*gate_up, rows, kWarps * rows);
    sums = std::max(sums, 2 * gate_up->k);  // where the tables will be, an expert's weights of the router come first
  }
  if (down) {
    const std::int64_t places = down->rows.places();
    made.down_team = team_of(*down, units_along_k(*down));
    needs(*down, places, made.down_team * places);
  }
  const ExpertsProduct& p = gate_up ? *gate_up : *down;
  const std::int64_t ring = kWarps * unit_bytes(p.codes, p.scales);
  const auto stages = [&](std::int64_t room) {
    return static_cast<int>(std::clamp<std::int64_t>((room - kExpertsDeclared - x - sums) / ring, 0, kMostStages));
  };
  made.stages = stages(kBeside) >= 2 ? stages(kBeside) : stages(kWhole) >= 2 ? stages(kWhole) : 0;
  made.tables_at = static_cast<int>(made.stages * ring + x);
  made.shared_bytes = static_cast<int>(made.tables_at + sums);
  return made;
}

void check(const ExpertsProduct& p) {
  LOWP_CHECK(p.k > 0 && p.k % 16 == 0 && p.n % (p.gated ? 16 : 8) == 0, "no product with experts [{}, {}]", p.n, p.k);
}

// With the weights of as many experts as so many rows choose if they choose evenly: which they choose the host does not
// know.
Work work_of(const ExpertsProduct& p) {
  const std::int64_t units = ceil_div<std::int64_t>(p.n, kUnitRows) * units_along_k(p),
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
  if (rows.rows > kMostFewRows || rows.rows * rows.top > kMostFewPlaces || rows.experts > kMostFewExperts) return false;
  return kernels(gate_up).few && kernels(down).few && plan(&gate_up, nullptr).stages && plan(nullptr, &down).stages;
}

bool experts_are_together(const ExpertsProduct& gate_up, const ExpertsProduct& down) {
  return experts_are_few(gate_up, down) && gate_up.codes == down.codes && gate_up.scales == down.scales &&
         plan(&gate_up, &down).stages;
}

ExpertsMail experts_mail(std::int64_t experts, std::int64_t top, std::int64_t width, Memory& memory) {
  const auto rounded = [](std::int64_t bytes) { return round_up<std::int64_t>(bytes, 128); };
  ExpertsMail mail{.score_bytes = rounded(kMostFewRows * experts * 4)};
  mail.half_bytes = mail.score_bytes + rounded(std::min(kMostFewRows * top, kMostFewPlaces) * width * 2);
  const auto bytes = static_cast<std::size_t>(ExpertsMail::kTurns + 2 * mail.half_bytes);
  memory = Memory(bytes);
  mail.memory = memory.as<>();
  const Stream stream;
  fill(mail.memory, 0xFF, bytes, stream.handle());
  fill(mail.memory, 0, ExpertsMail::kTurns, stream.handle());
  stream.synchronize();
  return mail;
}

void experts_of_few(const FewExperts& task, StreamHandle stream) {
  const ExpertsProduct &gate_up = task.gate_up, &down = task.down;
  check(gate_up);
  check(down);
  LOWP_CHECK(gate_up.gated && !down.gated && task.router && task.mail.memory && experts_are_together(gate_up, down),
             "not products of few rows");
  LOWP_CHECK(!task.norm || (task.norm->width <= kMostRow && (!task.norm->add || task.norm->sum != task.norm->stream)),
             "a norm of rows of {}", task.norm->width);
  const Timed timed(stream, [&] {
    Work both = work_of(gate_up);
    const Work second = work_of(down);
    both.name = fmt::format("router, experts {} x {}, {} x {}", gate_up.n, gate_up.k, down.n, down.k);
    both.bytes += second.bytes + 2.0 * static_cast<double>(gate_up.rows.experts * gate_up.k);
    both.flop += second.flop;
    return both;
  });
  if (gate_up.rows.rows) kernels(gate_up).few(task, plan(&gate_up, &down), stream);
}

void gate_experts_of_few(const ExpertsProduct& p, const ExpertChoice& choice, StreamHandle stream) {
  check(p);
  LOWP_CHECK(p.gated, "not gate and up");
  const Timed timed(stream, [&] { return work_of(p); });
  FewExperts task{.choice = choice};
  task.gate_up = p;
  if (p.rows.rows) kernels(p).few(task, plan(&p, nullptr), stream);
}

void combine_experts_of_few(const ExpertsProduct& p, const ExpertChoice& choice, StreamHandle stream) {
  check(p);
  LOWP_CHECK(!p.gated, "gate and up");
  const Timed timed(stream, [&] { return work_of(p); });
  FewExperts task{.choice = choice};
  task.down = p;
  if (p.rows.rows) kernels(p).few(task, plan(nullptr, &p), stream);
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
