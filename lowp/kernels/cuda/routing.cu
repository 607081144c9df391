#include "lowp/kernels/cuda/routing.cuh"
#include "lowp/kernels/cuda/routing_launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = kRouteGroup * 32;

// A block for a group, a warp for a row.
template <int kEach>
__global__ void __launch_bounds__(kThreads) choose_rows(const __grid_constant__ RouteArgs args) {
  __shared__ std::uint32_t masks[kMostExperts];
  ptx::launch_dependents();
  const RoutedRows& to = args.task.to;
  const int thread = static_cast<int>(threadIdx.x), experts = static_cast<int>(to.experts),
            top = static_cast<int>(to.top);
  for (int e = thread; e < experts; e += kThreads) masks[e] = 0;
  __syncthreads();
  ptx::wait_for_predecessor();
  const int row = static_cast<int>(blockIdx.x) * kRouteGroup + thread / 32;
  if (row < to.rows)
    choose_experts<kEach>(args.task.choice, experts, top, row, to.visits + static_cast<long>(row) * top,
                          to.weights + static_cast<long>(row) * top, masks);
  __syncthreads();
  if (args.groups == 1) return place_visits(args, masks);
  for (int e = thread; e < experts; e += kThreads) args.masks[e * args.groups + blockIdx.x] = masks[e];
}

__global__ void __launch_bounds__(kThreads) place_rows(const __grid_constant__ RouteArgs args) {
  ptx::launch_dependents();
  ptx::wait_for_predecessor();
  place_visits(args, args.masks);
}

int groups_of(const RoutedRows& rows) { return static_cast<int>(ceil_div<std::int64_t>(rows.rows, kRouteGroup)); }

}  // namespace

std::int64_t route_workspace(const RoutedRows& rows) { return 2 * rows.experts * groups_of(rows) * 4; }

void launch_route(const RouteTask& task, StreamHandle stream) {
  const RoutedRows& to = task.to;
  const int groups = groups_of(to);
  auto* masks = static_cast<std::uint32_t*>(task.workspace);
  const RouteArgs args{task, groups, masks, masks + to.experts * groups};
  launch_early(to.experts <= 128 ? choose_rows<4> : choose_rows<kMostExperts / 32>, groups, kThreads, args, stream);
  if (groups > 1) launch_early(place_rows, 1, kThreads, args, stream);
}

}  // namespace lowp::kernels::cuda
