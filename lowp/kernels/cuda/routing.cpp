#include "lowp/kernels/cuda/routing.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/routing_launch.h"

namespace lowp::kernels::cuda {
namespace {

void check_routing(const RoutedRows& rows) {
  LOWP_CHECK(rows.experts <= kMostExperts && rows.top <= kMostChosen && rows.top <= rows.experts, "{} of {} experts",
             rows.top, rows.experts);
}

}  // namespace

void route(const RouteTask& task, StreamHandle stream) {
  check_routing(task.to);
  if (task.to.rows) launch_route(task, stream);
}

void norm_and_score(const RouterTask& task, StreamHandle stream) {
  LOWP_CHECK(
      task.norm.width <= kMostRow && task.norm.width % 8 == 0 && (!task.norm.add || task.norm.sum != task.norm.stream),
      "a router of rows of {}", task.norm.width);
  if (task.norm.rows) launch_router(task, stream);
}

void gather_places(const GatherPlaces& task, StreamHandle stream) {
  LOWP_CHECK(task.values.bytes % 16 == 0, "rows of {} bytes", task.values.bytes);
  if (task.places) launch_gather_places(task, stream);
}

void combine(const CombineTask& task, StreamHandle stream) {
  LOWP_CHECK(task.width % 8 == 0, "rows of {}", task.width);
  if (task.rows) launch_combine(task, stream);
}

}  // namespace lowp::kernels::cuda
