#include "lowp/kernels/cuda/layers.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/gemm_rebase.h"
#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/kernels/cuda/row_rebase.h"

namespace lowp::kernels::cuda {
namespace {

void check_eights(std::int64_t count) { LOWP_CHECK(count > 0 && count % 8 == 0, "{} values in eights", count); }

// Of a kernel that reads and writes so many bf16 values.
Work moves(const char* name, std::int64_t rows, std::int64_t values) {
  return {.name = name, .bytes = 2.0 * static_cast<double>(rows) * static_cast<double>(values)};
}

void check_rows(const CastRowsTask& task, std::int64_t most) {
  check_eights(task.width);
  LOWP_CHECK(task.width <= (task.norm || task.gate ? kMostRow : most), "rows of {}", task.width);
  LOWP_CHECK(!task.norm || (task.norm->rows == task.rows && task.norm->width == task.width), "a norm of other rows");
}

}  // namespace

void gather_rows(const GatherTask& task, StreamHandle stream) {
  check_eights(task.width);
  const Timed timed(stream, [&] { return moves("gather_rows", task.rows, 2 * task.width); });
  if (task.rows) launch_gather(task, stream);
}

void add_norm(const AddNormTask& task, StreamHandle stream) {
  check_eights(task.width);
  LOWP_CHECK(task.width <= kMostRow, "rows of {}", task.width);
  const Timed timed(stream, [&] { return moves("add_norm", task.rows, (task.add ? 4 : 2) * task.width); });
  if (task.rows) launch_add_norm(task, stream);
}

void gate_mul(const GateTask& task, StreamHandle stream) {
  for (const std::int64_t count : {task.width, task.gate_stride, task.up_stride}) check_eights(count);
  LOWP_CHECK(!task.by_eights || task.gate_stride >= 2 * task.width, "rows of {} by eights", task.width);
  const Timed timed(stream, [&] { return moves("gate_mul", task.rows, 3 * task.width); });
  if (task.rows) launch_gate(task, stream);
}

bool casts_rows(const formats::BlockSpec& f) {
  const bool float8 = f.rule == formats::Rule::float8 && f.element == formats::Elem::e4m3,
             integer =
                 f.rule == formats::Rule::symmetric && f.element == formats::Elem::int8 && !f.scale_in_input_dtype;
  return (float8 || integer) && f.group_cols == 0 && f.zero_point == formats::ZeroPoint::none && !f.tensor_scale;
}

void cast_rows(const CastRowsTask& task, StreamHandle stream) {
  check_rows(task, kMostRow);
  LOWP_CHECK(casts_rows(*task.format) && (task.format->group_rows == 1 || task.fixed_scale > 0),
             "a cast that is not of rows");
  const Timed timed(stream, [&] { return moves("cast_rows", task.rows, 2 * task.width); });
  if (task.rows) launch_cast_rows(task, stream);
}

void rebase_rows(const CastRowsTask& task, StreamHandle stream) {
  check_rows(task, kMostRebasedRow);
  const formats::BlockSpec& f = *task.format;
  LOWP_CHECK((rebases(f) || f.rule == formats::Rule::nvfp4) && task.codes && task.width % f.group_cols == 0,
             "a format that has no base of rows");
  const Timed timed(stream, [&] { return moves("rebase_rows", task.rows, 2 * task.width); });
  if (task.rows) launch_rebase_rows(task, stream);
}

void rotate_store(const RotateStoreTask& task, StreamHandle stream) {
  check_layout(task.kv.layout);
  for (const std::int64_t stride : {task.q_stride, task.k_stride, task.v_stride}) check_eights(stride);
  const Timed timed(stream, [&] {
    const KvPageLayout& kv = task.kv.layout;
    return moves("rotate_store", task.rows, (2 * task.heads + 3 * kv.kv_heads) * kv.head_dim);
  });
  if (task.rows) launch_rotate_store(task, stream);
}

void hadamard_heads(const HadamardTask& task, StreamHandle stream) {
  LOWP_CHECK(task.head_dim == 64 || task.head_dim == 128 || task.head_dim == 256, "heads of {}", task.head_dim);
  const Timed timed(stream, [&] { return moves("hadamard_heads", task.rows, 2 * task.heads * task.head_dim); });
  if (task.rows) launch_hadamard(task, stream);
}

void argmax(const ArgmaxTask& task, StreamHandle stream) {
  check_eights(task.vocab);
  const Timed timed(stream, [&] { return moves("argmax", task.rows, task.vocab); });
  if (task.rows) launch_argmax(task, stream);
}

}  // namespace lowp::kernels::cuda
