// The launches behind sample.h, of tasks that have been checked and have rows.
#pragma once

#include "lowp/kernels/cuda/sample.h"

namespace lowp::kernels::cuda {

void launch_sample(const SampleTask& task, StreamHandle stream);
void launch_score(const ScoreTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
