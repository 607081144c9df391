// SiLU * up and ReLU in front of casts.
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {

bool launch_activation(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  bool launched = false;
  for_input(input, [&](auto in) {
    launched = for_front_codec<in()>(args, [&](auto codec, auto whole_row) {
      using Codec = decltype(codec);
      using Source = Activation<in()>;
      if constexpr (whole_row())
        return launch_row<Codec, Source>(args, experts, stream);
      else
        launch_groups<Codec, Source>(args, experts, stream);
      return true;
    });
  });
  check_launch("an activation and a cast");
  return launched;
}

}  // namespace lowp::kernels::cuda
