#include "lowp/kernels/cuda/layers.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/layers_launch.h"

namespace lowp::kernels::cuda {
namespace {

void check_eights(std::int64_t count) { LOWP_CHECK(count > 0 && count % 8 == 0, "{} values in eights", count); }

}  // namespace

void gather_rows(const GatherTask& task, StreamHandle stream) {
  check_eights(task.width);
  if (task.rows) launch_gather(task, stream);
}

void add_norm(const AddNormTask& task, StreamHandle stream) {
  check_eights(task.width);
  LOWP_CHECK(task.width <= 16384, "rows of {}", task.width);
  if (task.rows) launch_add_norm(task, stream);
}

void gate_mul(const GateTask& task, StreamHandle stream) {
  for (const std::int64_t count : {task.width, task.gate_stride, task.up_stride}) check_eights(count);
  if (task.rows) launch_gate(task, stream);
}

void rotate_store(const RotateStoreTask& task, StreamHandle stream) {
  check_layout(task.kv.layout);
  for (const std::int64_t stride : {task.q_stride, task.k_stride, task.v_stride}) check_eights(stride);
  if (task.rows) launch_rotate_store(task, stream);
}

void argmax(const ArgmaxTask& task, StreamHandle stream) {
  check_eights(task.vocab);
  if (task.rows) launch_argmax(task, stream);
}

}  // namespace lowp::kernels::cuda
