#include "lowp/kernels/cuda/cast.h"

#include <limits>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/fast_codec.h"
#include "lowp/kernels/cuda/launch.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/kernels/cuda/rope.h"

namespace lowp::kernels::cuda {
namespace {

bool aligned(const void* p, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

CodecArgs codec_args(const CastTask& task) {
  CodecArgs args;
  args.format = task.format;
  args.scaling = task.scaling;
  if (task.format.rule == Rule::mx) args.mx_bump = mx_bump(task.format.element, task.scaling);
  if (!formats::info(task.format.element).is_float())
    args.range = {formats::min_value(task.format.element), formats::max_value(task.format.element)};
  if (task.format.tensor_scale && !task.amax) {
    args.tensor_scale = formats::choosing_scale(task.format, task.static_amax);
    args.reciprocal = formats::divide(1.0f, args.tensor_scale);
    args.all_zero = task.static_amax == 0;
  }
  args.stochastic = task.stochastic.has_value();
  args.random = task.stochastic.value_or(formats::Stochastic{});
  args.given_scale = !task.amax && task.format.group_rows == 0;
  return args;
}

formats::ScaleGrid grid_of(const CastResult& to, std::int64_t h, std::int64_t w) {
  return {to.layout, h, w, to.groups, to.group_count};
}

// Bytes of a result's scales in its layout, where the layout has padding to zero; 0 otherwise.
std::int64_t padded_bytes(const CastResult& to, std::int64_t experts, std::int64_t h, std::int64_t w) {
  const bool whole = h % formats::kTileRows == 0 && w % formats::kTileCols == 0;
  switch (to.layout) {
    case formats::ScaleLayout::rows:
      return 0;
    case formats::ScaleLayout::tiled:
      return experts * h % formats::kTileRows == 0 && w % formats::kTileCols == 0
                 ? 0
                 : formats::tiled_bytes(experts * h, w);
    case formats::ScaleLayout::tiled_per_expert:
      return whole ? 0 : experts * formats::tiled_bytes(h, w);
    case formats::ScaleLayout::tiled_m_groups:
      return (h + formats::kTileRows * to.group_count) * round_up(w, formats::kTileCols);
    case formats::ScaleLayout::tiled_k_groups:
      return round_up(h, formats::kTileRows) * (w + formats::kTileCols * to.group_count);
  }
  return 0;
}

// Rows as the fast kernels take them; false if they do not fit.
bool rows_args(const CastTask& task, RowsArgs& args) {
  const formats::BlockSpec& format = task.format;
  const std::int64_t most = std::numeric_limits<std::uint32_t>::max() / 2;
  if (task.k % 8 != 0 || task.m * task.k / 8 > most || task.experts > 65535 || task.experts * task.m > most)
    return false;
  if (!aligned(task.x, 16) || !aligned(task.along_k.codes, 8)) return false;
  const std::int64_t width = format.group_cols == 0 ? task.k : format.group_cols;
  if (task.front.other && !aligned(task.front.other, 16)) return false;
  args.x = task.x;
  args.front = task.front;
  args.codes = task.along_k.codes;
  args.scale = task.along_k.scale;
  args.zero_point = task.along_k.zero_point;
  args.amax = task.amax;
  args.static_amax = float_bits(task.static_amax);
  args.chunks = static_cast<std::uint32_t>(task.m * task.k / 8);
  args.rows = static_cast<std::uint32_t>(task.m);
  args.row_chunks = static_cast<std::uint32_t>(task.k / 8);
  args.groups_per_row = static_cast<std::uint32_t>(ceil_div(task.k, width));
  args.row_of_group = FastDivide(args.groups_per_row);
  args.groups = args.rows * args.groups_per_row;
  const bool in_warp = width % 8 == 0 && width / 8 <= 32 && (width / 8 & (width / 8 - 1)) == 0 && task.k % width == 0;
  args.lanes = format.group_cols != 0 && in_warp ? static_cast<int>(width / 8) : 0;
  args.place = grid_of(task.along_k, task.m, args.groups_per_row);
  const formats::ScaleLayout layout = task.along_k.layout;
  const bool alone = layout == formats::ScaleLayout::tiled_per_expert ||
                     (layout == formats::ScaleLayout::tiled && (task.experts == 1 || task.m % formats::kTileRows == 0));
  args.whole_tiles = alone && aligned(task.along_k.scale, 16) && task.m / formats::kTileRows < 65535;
  args.codec = codec_args(task);
  return true;
}

bool columns_args(const CastTask& task, ColumnsArgs& args) {
  const formats::BlockSpec& format = task.format;
  const std::int64_t most = std::numeric_limits<std::uint32_t>::max() / 2;
  if (format.group_rows != 1 || format.group_cols == 0) return false;
  if (task.m % 32 != 0 || task.k % 2 != 0 || task.m > most || task.k > most || task.experts > 65535) return false;
  if (!aligned(task.x, task.input == Elem::f32 ? 8 : 4) || !aligned(task.along_m.codes, 16) ||
      !aligned(task.along_m.scale, 2))
    return false;
  args.x = task.x;
  args.hadamard = task.front.kind == Front::hadamard;
  args.codes = task.along_m.codes;
  args.scale = static_cast<std::uint8_t*>(task.along_m.scale);
  args.amax = task.amax;
  args.m = static_cast<std::uint32_t>(task.m);
  args.k = static_cast<std::uint32_t>(task.k);
  args.place = grid_of(task.along_m, task.k, task.m / format.group_cols);
  args.codec = codec_args(task);
  return task.m / 128 <= 65535;
}

bool is_training(const CastTask& task) {
  return task.stochastic || task.front.kind == Front::hadamard || task.format.rule == Rule::nvfp4_training;
}

bool launch_rows(const CastTask& task, const RowsArgs& args, StreamHandle stream) {
  const Elem input = task.input;
  const int experts = static_cast<int>(task.experts);
  if (task.front.kind == Front::rms_norm) return launch_norm(args, input, stream);
  if (task.front.kind == Front::silu_mul || task.front.kind == Front::relu)
    return launch_activation(args, input, experts, stream);
  if (is_training(task)) return launch_training_rows(args, input, experts, stream);
  switch (args.codec.format.rule) {
    case Rule::mx:
      return launch_mx_rows(args, input, experts, stream);
    case Rule::nvfp4:
      return launch_nvfp4_rows(args, input, experts, stream);
    case Rule::float8:
      return launch_float8(args, input, experts, stream);
    case Rule::plain:
    case Rule::codebook:
      return false;
    default:
      return launch_integer(args, input, experts, stream);
  }
}

void cast_by_definition(const CastTask& task, bool along_m, StreamHandle stream) {
  const CastResult& to = along_m ? task.along_m : task.along_k;
  AnyArgs args;
  args.x = task.x;
  args.input = task.input;
  args.experts = task.experts;
  args.rows = along_m ? task.k : task.m;
  args.columns = along_m ? task.m : task.k;
  args.row_stride = along_m ? 1 : task.k;
  args.column_stride = along_m ? task.k : 1;
  args.format = task.format;
  args.scaling = task.scaling;
  args.hadamard = task.front.kind == Front::hadamard;
  args.stochastic = task.stochastic.has_value();
  args.random = task.stochastic.value_or(formats::Stochastic{});
  args.codes = to.codes;
  args.scale = to.scale;
  args.zero_point = to.zero_point;
  args.transposed_scales = along_m && to.layout == formats::ScaleLayout::rows;
  const std::int64_t width = task.format.group_cols == 0 ? args.columns : task.format.group_cols;
  const std::int64_t height = task.format.group_rows == 0 ? args.rows : task.format.group_rows;
  args.place = grid_of(to, ceil_div(args.rows, height), ceil_div(args.columns, width));
  args.amax = task.amax;
  args.static_amax = task.static_amax;
  args.codebook = task.codebook;
  launch_any(args, stream);
}

}  // namespace

void cast(const CastTask& task, StreamHandle stream) {
  if (task.experts == 0 || task.m == 0 || task.k == 0) return;
  const Timed timed(stream, [&] {
    const int bits = formats::info(task.input).bits + formats::info(task.format.element).bits;
    return Work{.name = "cast", .bytes = static_cast<double>(task.experts * task.m * task.k) * bits / 8};
  });
  const bool computed = task.front.kind != Front::none && task.front.kind != Front::hadamard;
  LOWP_CHECK(!computed ||
                 (!task.along_m.codes && !task.stochastic && (task.experts == 1 || task.front.kind != Front::rms_norm)),
             "a norm or an activation goes in front of casts along k, to the nearest, a norm of one matrix");
  const auto clear_padding = [&](const CastResult& to, std::int64_t h, std::int64_t columns) {
    if (!to.codes || task.format.group_cols == 0) return;
    const std::int64_t bytes =
        padded_bytes(to, task.experts, h, ceil_div<std::int64_t>(columns, task.format.group_cols));
    if (bytes) fill(to.scale, 0, static_cast<std::size_t>(bytes), stream);
  };
  RowsArgs rows;
  ColumnsArgs columns;
  const int experts = static_cast<int>(task.experts);
  const bool fast_rows = task.along_k.codes && rows_args(task, rows);
  const bool fast_columns = task.along_m.codes && columns_args(task, columns);
  const bool both = fast_rows && fast_columns && !is_training(task);
  if (!fast_rows || both || !rows.whole_tiles) clear_padding(task.along_k, task.m, task.k);
  clear_padding(task.along_m, task.k, task.m);
  if (both && launch_both(rows, columns, task.input, experts, stream)) return;
  if (task.along_k.codes && !(fast_rows && launch_rows(task, rows, stream))) {
    if (computed)
      fail(ErrorCode::unsupported, "no kernel with a norm or an activation in front casts [{}, {}] into this format",
           task.m, task.k);
    cast_by_definition(task, false, stream);
  }
  const auto columns_launch = is_training(task) ? launch_training_columns : launch_columns;
  if (task.along_m.codes && !(fast_columns && columns_launch(columns, task.input, experts, stream)))
    cast_by_definition(task, true, stream);
}

bool amax_and_cast(const CastTask& task, MatrixAmax* amax, StreamHandle stream) {
  RowsArgs rows;
  if (task.experts != 1 || !task.along_k.codes || task.along_m.codes || task.front.kind != Front::none ||
      task.stochastic || task.along_k.layout != formats::ScaleLayout::rows || task.m == 0 || task.k == 0 ||
      !rows_args(task, rows))
    return false;
  return launch_amax_and_cast(rows, task.input, amax, stream);
}

void rope_cast(const HeadsTask& task, StreamHandle stream) {
  LOWP_CHECK(task.dim == 64 || task.dim == 128 || task.dim == 256, "heads of {} values", task.dim);
  LOWP_CHECK(task.heads % task.heads_per_scale == 0, "{} heads, {} a scale", task.heads, task.heads_per_scale);
  LOWP_CHECK(task.codes || task.input == formats::Elem::bf16, "heads of {} on their way into attention",
             formats::name(task.input));
  LOWP_CHECK(!task.kv.pages || (task.kv.layout.type == formats::Elem::e4m3 && task.kv.layout.head_dim == task.dim &&
                                task.kv.layout.kv_heads == task.heads),
             "pages of other heads");
  launch_rope(task, stream);
}

}  // namespace lowp::kernels::cuda
