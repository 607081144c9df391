#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

template <Elem E>
bool launch(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  for_input(input, [&](auto in) { launch_groups<MxCodec<E, in()>>(args, experts, stream); });
  check_launch("cast_groups (mx)");
  return true;
}

}  // namespace

bool launch_mx_rows(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  if (args.lanes != 4) return false;
  switch (args.codec.format.element) {
    case Elem::e4m3:
      return launch<Elem::e4m3>(args, input, experts, stream);
    case Elem::e5m2:
      return launch<Elem::e5m2>(args, input, experts, stream);
    case Elem::e2m3:
      return launch<Elem::e2m3>(args, input, experts, stream);
    case Elem::e3m2:
      return launch<Elem::e3m2>(args, input, experts, stream);
    case Elem::e2m1:
      return launch<Elem::e2m1>(args, input, experts, stream);
    default:
      return false;
  }
}

}  // namespace lowp::kernels::cuda
