// RMSNorm in front of casts.
#include "lowp/kernels/cuda/cast_norm.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

// As many blocks as the device holds at once. (Without a device there are none, and the launch is an error.)
template <class Kernel>
void launch_resident(const Kernel& kernel, const RowsArgs& args, int threads, StreamHandle stream) {
  int device = 0, each = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, 0) != cudaSuccess)
    each = 0;
  const int resident = each * devices()[static_cast<std::size_t>(device)].multiprocessors;
  kernel<<<std::min(args.rows, static_cast<std::uint32_t>(resident)), threads, 0, stream>>>(args);
}

}  // namespace

bool launch_norm(const RowsArgs& args, Elem input, StreamHandle stream) {
  const std::int64_t k = std::int64_t{args.row_chunks} * 8;
  bool launched = false;
  for_input(input, [&](auto in) {
    launched = for_front_codec<in()>(args, [&](auto codec, auto whole_row) {
      using Codec = decltype(codec);
      const int lanes = norm_lanes(k);
      if (k <= 8192) {
        launch_resident(&cast_norm<Codec, 4, whole_row()>, args, lanes, stream);
        return true;
      }
      if constexpr (in() != Elem::f32) {
        if (k > kMostNorm) return false;
        launch_resident(&cast_norm<Codec, 8, whole_row()>, args, lanes, stream);
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
