#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {

bool launch_nvfp4_rows(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  if (args.lanes != 2 || args.codec.format.element != Elem::e2m1) return false;
  for_input(input, [&](auto in) {
    if (args.codec.format.tensor_scale)
      launch_groups<Nvfp4Codec<Nvfp4::two_levels, in()>>(args, experts, stream);
    else
      launch_groups<Nvfp4Codec<Nvfp4::one_level, in()>>(args, experts, stream);
  });
  check_launch("cast_groups (nvfp4)");
  return true;
}

}  // namespace lowp::kernels::cuda
