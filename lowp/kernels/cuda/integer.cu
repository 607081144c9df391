#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

template <class Codec>
bool launch(const RowsArgs& args, int experts, StreamHandle stream) {
  const BlockSpec& format = args.codec.format;
  if (format.group_rows == 1 && format.group_cols == 0) return launch_row<Codec>(args, experts, stream);
  if (format.group_rows != 1 || args.lanes < kUnroll) return false;
  launch_groups<Codec>(args, experts, stream);
  return true;
}

template <Elem In>
bool launch_rule(const RowsArgs& args, int experts, StreamHandle stream) {
  const BlockSpec& format = args.codec.format;
  switch (format.rule) {
    case Rule::symmetric:
      if (format.group_rows == 0 && !format.scale_in_input_dtype) {
        launch_flat(cast_whole<IntegerCodec<Rule::symmetric, false, In>>, args, experts, stream);
        return true;
      }
      return format.scale_in_input_dtype ? launch<IntegerCodec<Rule::symmetric, true, In>>(args, experts, stream)
                                         : launch<IntegerCodec<Rule::symmetric, false, In>>(args, experts, stream);
    case Rule::asymmetric:
      return format.scale_in_input_dtype ? launch<IntegerCodec<Rule::asymmetric, true, In>>(args, experts, stream)
                                         : launch<IntegerCodec<Rule::asymmetric, false, In>>(args, experts, stream);
    case Rule::tinygemm:
      return format.scale_in_input_dtype && launch<IntegerCodec<Rule::tinygemm, true, In>>(args, experts, stream);
    case Rule::sym8:
      return !format.scale_in_input_dtype && launch<IntegerCodec<Rule::sym8, false, In>>(args, experts, stream);
    case Rule::absmax:
      return !format.scale_in_input_dtype && launch<IntegerCodec<Rule::absmax, false, In>>(args, experts, stream);
    default:
      return false;
  }
}

}  // namespace

bool launch_integer(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  bool launched = false;
  for_input(input, [&](auto in) { launched = launch_rule<in()>(args, experts, stream); });
  check_launch("an integer cast");
  return launched;
}

}  // namespace lowp::kernels::cuda
