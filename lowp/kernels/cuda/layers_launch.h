// The launches behind layers.h, of tasks that have been checked and have rows.
#pragma once

#include "lowp/kernels/cuda/layers.h"

namespace lowp::kernels::cuda {

void launch_gather(const GatherTask& task, StreamHandle stream);
void launch_add_norm(const AddNormTask& task, StreamHandle stream);
void launch_gate(const GateTask& task, StreamHandle stream);
void launch_cast_rows(const CastRowsTask& task, StreamHandle stream);
void launch_rebase_rows(const CastRowsTask& task, StreamHandle stream);
void launch_rotate_store(const RotateStoreTask& task, StreamHandle stream);
void launch_hadamard(const HadamardTask& task, StreamHandle stream);
void launch_argmax(const ArgmaxTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
