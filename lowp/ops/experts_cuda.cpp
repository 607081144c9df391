#include "lowp/ops/experts_cuda.h"

#include <algorithm>

#include "lowp/base/error.h"

namespace lowp::ops {

namespace cuda = kernels::cuda;
using Parts = CudaActivation::Parts;

// The workspace. Values of rows stand first where they are put on a grid before they are gathered.
struct CudaExperts::Places {
  cuda::RoutedRows rows;
  void *scores, *router, *routing, *visitors, *ungated, *gated, *outputs;
  Parts of_rows, of_visitors, of_gated;
  std::size_t bytes;
};

CudaExperts::CudaExperts(const LinearWeight& router, CudaExpertStack gate_up, CudaExpertStack down,
                         const Choosing& choosing, const Device& device)
    : CudaExperts(std::move(*CudaLinear::stacked({&router, 1}, device)), std::move(gate_up), std::move(down),
                  choosing) {
  Tensor holder;
  if (router.values()) router_values_ = cuda::uploaded(as_bf16(*router.values(), holder).bytes);
  if (router.bias) router_bias_ = cuda::uploaded(as_bf16(*router.bias, holder).bytes);
}

CudaExperts::CudaExperts(CudaLinear router, CudaExpertStack gate_up, CudaExpertStack down, const Choosing& choosing)
    : router_(std::move(router)), gate_up_(std::move(gate_up)), down_(std::move(down)), choosing_(choosing) {
  if (gate_up_.experts() > cuda::kMostExperts || choosing.top > cuda::kMostChosen)
    fail(ErrorCode::unsupported, "{} of {} experts on a GPU: there are kernels for {} of {}", choosing.top,
         gate_up_.experts(), cuda::kMostChosen, cuda::kMostExperts);
}

CudaExperts CudaExperts::copy() const {
  CudaExperts made(router_.copy(), gate_up_.copy(), down_.copy(), choosing_);
  made.router_values_ = cuda::copied(router_values_);
  made.router_bias_ = cuda::copied(router_bias_);
  made.same_order_ = same_order_;
  return made;
}

bool CudaExperts::rows_depend() const {
  const auto shares = [](const CudaExpertStack& stack) {
    return stack.activation() && stack.activation()->shares_scale();
  };
  return router_.rows_depend() || shares(gate_up_) || shares(down_);
}

void CudaExperts::keep_order() {
  same_order_ = true;
  router_.keep_order();
}

CudaExperts::Way CudaExperts::way(std::int64_t rows) const {
  if (same_order_) return Way::many;
  if (rows > kFew && gate_up_.dense() && down_.dense()) return Way::dense;
  cuda::ExpertsProduct first = gate_up_.packed(), second = down_.packed();
  first.rows = second.rows = {.rows = rows, .experts = gate_up_.experts(), .top = choosing_.top};
  return !rows_depend() && cuda::experts_are_few(first, second) ? Way::few : Way::many;
}

// Without its arrays.
cuda::RoutedRows CudaExperts::routed(std::int64_t rows) const {
  cuda::RoutedRows r{.rows = rows, .experts = gate_up_.experts(), .top = choosing_.top};
  if (way(rows) == Way::many) r.block_rows = cuda::experts_block_rows(rows * r.top, r.experts);
  if (way(rows) == Way::dense) r.block_rows = r.align = 128;
  return r;
}

CudaExperts::Places CudaExperts::place(std::int64_t rows, void* workspace) const {
  const Way how = way(rows);
  Places p{};
  p.rows = routed(rows);
  const std::int64_t places = p.rows.places(), hidden = gate_up_.k(), width = down_.k();
  const auto take = [&](auto*& part, std::int64_t bytes) {
    part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(static_cast<std::byte*>(workspace) + p.bytes);
    p.bytes += round_up<std::size_t>(static_cast<std::size_t>(bytes), 256);
  };
  take(p.scores, rows * p.rows.experts * 2);
  take(p.router, static_cast<std::int64_t>(router_.workspace(rows)));
  // Blocks of eight are the most: fewer rows never need more than many do.
  const std::int64_t visits = rows * choosing_.top,
                     blocks = std::max(p.rows.blocks(),
                                       std::min(p.rows.experts, visits) + ceil_div<std::int64_t>(visits, 8));
  take(p.rows.place_row, places * 4);
  take(p.rows.visits, visits * 4);
  take(p.rows.weights, visits * 4);
  take(p.rows.block_expert, blocks * 4);
  take(p.rows.block_first, blocks * 4);
  take(p.rows.block_size, blocks * 4);
  take(p.rows.block_count, 4);
  take(p.rows.expert_first, p.rows.experts * 4);
  take(p.rows.expert_size, p.rows.experts * 4);
  take(p.routing, cuda::route_workspace(p.rows));
  const auto take_parts = [&](Parts& parts, const std::optional<CudaActivation>& activation, std::int64_t count,
                              bool as_codes) {
    if (!activation) return;
    parts = activation->place(count, as_codes, static_cast<std::byte*>(workspace) + p.bytes);
    p.bytes += parts.bytes;
  };
  const auto& before = gate_up_.activation();
  const bool share = before && before->shares_scale();
  if (!share) take_parts(p.of_rows, before, rows, how == Way::dense || gate_up_.folded());
  if (how != Way::few) {
    take_parts(p.of_visitors, before, places, how == Way::dense || gate_up_.folded());
    if (!before || share) take(p.visitors, places * hidden * 2);
    take(p.outputs, places * hidden * 2);
  }
  if (how == Way::dense) take(p.ungated, places * 2 * width * 2);
  take(p.gated, places * width * 2);
  take_parts(p.of_gated, down_.activation(), places, how == Way::dense || down_.folded());
  return p;
}

std::size_t CudaExperts::workspace(std::int64_t rows) const {
  std::size_t most = 0;
  for (const std::int64_t count : {rows, std::min(rows, kFew), std::min(rows, kFewest)})
    most = std::max(most, place(count, nullptr).bytes);
  return most;
}

std::string CudaExperts::plan(std::int64_t rows) const {
  const std::string what =
      fmt::format("{} rows, {} of {} experts in {}:", rows, choosing_.top, gate_up_.experts(), gate_up_.name());
  switch (way(rows)) {
    case Way::few:
      return what + " gemv over experts" + gate_up_.note();
    case Way::many:
      return fmt::format("{} wgmma 128 outputs x {} rows of an expert{}", what, routed(rows).block_rows,
                         gate_up_.note());
    case Way::dense:
      return what + " codes x codes, tiles of 128 rows of an expert";
  }
  return what;
}

void CudaExperts::run(const Task& task, cuda::StreamHandle stream) const {
  if (task.rows == 0) return;
  const Places p = place(task.rows, task.workspace);
  score(task, p, stream);
  const cuda::ExpertChoice choice{.scores = p.scores,
                                  .positions = task.positions,
                                  .normalize = choosing_.normalize,
                                  .round_weights = choosing_.round_weights};
  if (way(task.rows) == Way::few) return run_few(task, choice, p, stream);
  cuda::route({.choice = choice, .to = p.rows, .workspace = p.routing}, stream);
  run_many(task, p, stream);
}

// The norm and the router's product.
void CudaExperts::score(const Task& task, const Places& p, cuda::StreamHandle stream) const {
  if (!same_order_ && task.norm && task.rows <= kFewest && router_values_.size())
    return cuda::norm_and_score({.norm = *task.norm,
                                 .weight = router_values_.as<>(),
                                 .bias = router_bias_.as<>(),
                                 .experts = p.rows.experts,
                                 .scores = p.scores},
                                stream);
  if (task.norm) cuda::add_norm(*task.norm, stream);
  router_.run(task.x, task.rows, p.scores, p.router, stream);
}

void CudaExperts::run_few(const Task& task, const cuda::ExpertChoice& choice, const Places& p,
                          cuda::StreamHandle stream) const {
  const auto product = [&](const CudaExpertStack& stack, const void* x, std::int64_t rows, const Parts& parts,
                           void* y) {
    cuda::ExpertsProduct made = stack.packed();
    made.rows = p.rows;
    made.gate = choosing_.gate;
    made.x = x;
    made.y = y;
    if (const auto& activation = stack.activation()) {
      activation->prepare(x, rows, parts, stream);
      const auto by = activation->multiplier(parts);
      made.x = parts.values;
      made.x_scale = by.scale;
      made.x_scale_step = by.step;
    }
    return made;
  };
  cuda::experts_of_few(product(gate_up_, task.x, task.rows, p.of_rows, p.gated), choice, stream);
  cuda::combine_experts_of_few(product(down_, p.gated, p.rows.places(), p.of_gated, task.out), choice, stream);
}

// The rows at their places, on their grid.
void CudaExperts::gather(const Task& task, const Places& p, cuda::StreamHandle stream) const {
  const auto& activation = gate_up_.activation();
  cuda::GatherPlaces to{.place_row = p.rows.place_row, .places = p.rows.places()};
  if (!activation || activation->shares_scale()) {
    to.values = {task.x, p.visitors, gate_up_.k() * 2};
    cuda::gather_places(to, stream);
    if (activation) activation->prepare_shared(p.visitors, p.rows, p.of_visitors, stream);
    return;
  }
  activation->prepare(task.x, task.rows, p.of_rows, stream);
  const auto array = [](const std::byte* from, std::byte* into, std::size_t bytes) {
    return cuda::GatherPlaces::Array{from, into, static_cast<std::int64_t>(bytes)};
  };
  if (p.of_rows.values)
    to.values = {p.of_rows.values, p.of_visitors.values, gate_up_.k() * 2};
  else
    to.values = array(p.of_rows.codes, p.of_visitors.codes, activation->code_bytes());
  to.scales[0] = activation->format().tensor_scale
                     ? array(p.of_rows.amax, p.of_visitors.amax, sizeof(cuda::MatrixAmax))
                     : array(p.of_rows.scale, p.of_visitors.scale, activation->scale_bytes());
  if (p.of_rows.zero_point)
    to.scales[1] = array(p.of_rows.zero_point, p.of_visitors.zero_point, activation->zero_point_bytes());
  cuda::gather_places(to, stream);
}

void CudaExperts::multiply(const CudaExpertStack& stack, const Places& p, const Parts& parts, const void* x, void* y,
                           cuda::StreamHandle stream) const {
  const auto& activation = stack.activation();
  cuda::ExpertsProduct made = stack.packed();
  made.rows = p.rows;
  made.gate = choosing_.gate;
  made.x = x;
  made.y = y;
  if (activation) {
    const auto by = activation->multiplier(parts);
    made.x = parts.values ? parts.values : parts.codes;
    made.x_scale = by.scale;
    made.x_scale_step = by.step;
  }
  cuda::experts_of_many(made, stream);
}

void CudaExperts::multiply_codes(const CudaExpertStack& stack, const Places& p, const Parts& parts, void* y,
                                 cuda::StreamHandle stream) const {
  cuda::GroupedProduct made = stack.grouped();
  made.m = p.rows.places();
  made.a = parts.codes;
  made.a_scale = reinterpret_cast<const float*>(parts.scale);
  made.a_scale_each = true;
  made.a_zero = reinterpret_cast<const std::int8_t*>(parts.zero_point);
  made.expert_of_block = p.rows.block_expert;
  made.y = y;
  cuda::grouped_product(made, stream);
}

void CudaExperts::run_many(const Task& task, const Places& p, cuda::StreamHandle stream) const {
  const std::int64_t places = p.rows.places(), width = down_.k();
  const bool dense = way(task.rows) == Way::dense;
  gather(task, p, stream);
  if (dense) {
    multiply_codes(gate_up_, p, p.of_visitors, p.ungated, stream);
    cuda::gate_mul({.gate = p.ungated,
                    .up = static_cast<std::uint16_t*>(p.ungated) + width,
                    .gate_stride = 2 * width,
                    .up_stride = 2 * width,
                    .activation = choosing_.gate,
                    .out = p.gated,
                    .rows = places,
                    .width = width},
                   stream);
  } else {
    multiply(gate_up_, p, p.of_visitors, p.visitors, p.gated, stream);
  }
  if (const auto& activation = down_.activation()) {
    if (activation->shares_scale())
      activation->prepare_shared(p.gated, p.rows, p.of_gated, stream);
    else
      activation->prepare(p.gated, places, p.of_gated, stream);
  }
  if (dense)
    multiply_codes(down_, p, p.of_gated, p.outputs, stream);
  else
    multiply(down_, p, p.of_gated, p.gated, p.outputs, stream);
  cuda::combine({.outputs = p.outputs,
                 .visits = p.rows.visits,
                 .weights = p.rows.weights,
                 .out = task.out,
                 .rows = task.rows,
                 .top = choosing_.top,
                 .width = down_.n()},
                stream);
}

}  // namespace lowp::ops
