// RMSNorm in front of casts.
#include "lowp/kernels/cuda/cast_norm.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {

bool launch_norm(const RowsArgs& args, Elem input, StreamHandle stream) {
  const std::int64_t k = std::int64_t{args.row_chunks} * 8;
  bool launched = false;
  for_input(input, [&](auto in) {
    launched = for_front_codec<in()>(args, [&](auto codec, auto whole_row) {
      using Codec = decltype(codec);
      const int lanes = norm_lanes(k);
      if (k <= 8192) {
        cast_norm<Codec, 4, whole_row()><<<args.rows, lanes, 0, stream>>>(args);
        return true;
      }
      if constexpr (in() != Elem::f32) {
        if (k > kMostNorm) return false;
        cast_norm<Codec, 8, whole_row()><<<args.rows, lanes, 0, stream>>>(args);
        return true;
      } else {
        return false;  // eight chunks of f32 do not fit the registers
      }
    });
  });
  check_launch("a norm and a cast");
  return launched;
}

}  // namespace lowp::kernels::cuda
