// The launches behind routing.h and experts.h, of tasks that have been checked and have rows.
#pragma once

#include "lowp/kernels/cuda/experts.h"

namespace lowp::kernels::cuda {

void launch_route(const RouteTask& task, StreamHandle stream);
void launch_router(const RouterTask& task, StreamHandle stream);
void launch_gather_places(const GatherPlaces& task, StreamHandle stream);
void launch_combine(const CombineTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
