#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {

bool launch_float8(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  const BlockSpec& format = args.codec.format;
  if (format.element != Elem::e4m3) return false;
  bool launched = true;
  for_input(input, [&](auto in) {
    using Codec = Float8Codec<in()>;
    if (format.group_rows == 0) {
      launch_flat(cast_whole<Codec>, args, experts, stream);
    } else if (format.group_rows == 1 && format.group_cols == 0) {
      launched = launch_row<Codec>(args, experts, stream);
    } else if (format.group_rows == 1 && format.group_cols == Codec::kGroup) {
      launch_groups<Codec>(args, experts, stream);
    } else if (format.group_rows == 128 && format.group_cols == 128) {
      const dim3 grid(args.groups_per_row, ceil_div<std::uint32_t>(args.rows, 128), static_cast<unsigned>(experts));
      cast_square<Codec><<<grid, 256, 0, stream>>>(args);
    } else {
      launched = false;
    }
  });
  check_launch("a float8 cast");
  return launched;
}

}  // namespace lowp::kernels::cuda
