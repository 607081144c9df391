// Rounding by chance, and the arithmetic of NVFP4 training, from bf16.
#include "lowp/kernels/cuda/cast_columns.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

// Calls body(codec) with the codec of the format and rounding; false if there is none.
template <class Body>
bool for_codec(const CodecArgs& args, const Body& body) {
  constexpr Elem In = Elem::bf16;
  const BlockSpec& format = args.format;
  if (format.group_rows != 1) return false;
  if (format.rule == Rule::nvfp4_training && format.group_cols == 16) {
    if (args.stochastic)
      body(Stochastic<TrainingCodec<In>>());
    else
      body(TrainingCodec<In>());
    return true;
  }
  if (!args.stochastic) return false;
  if (format.rule == Rule::nvfp4 && format.group_cols == 16 && format.tensor_scale)
    body(Stochastic<Nvfp4Codec<Nvfp4::two_levels, In>>());
  else if (format.rule == Rule::mx && format.group_cols == 32 && format.element == Elem::e4m3)
    body(Stochastic<MxCodec<Elem::e4m3, In>>());
  else if (format.rule == Rule::mx && format.group_cols == 32 && format.element == Elem::e2m1)
    body(Stochastic<MxCodec<Elem::e2m1, In>>());
  else
    return false;
  return true;
}

}  // namespace

bool launch_training_rows(const RowsArgs& args, Elem input, int experts, StreamHandle stream) {
  const bool rotates = args.front.kind == Front::hadamard;
  if (input != Elem::bf16 || args.lanes == 0 || (rotates && args.codec.format.rule != Rule::nvfp4_training))
    return false;
  const bool launched = for_codec(args.codec, [&](auto codec) {
    using Codec = decltype(codec);
    if constexpr (Codec::kRotates) {
      if (rotates) return launch_groups<Codec, Rotated<Codec::kInput>>(args, experts, stream);
    }
    launch_groups<Codec>(args, experts, stream);
  });
  check_launch("a training cast");
  return launched;
}

bool launch_training_columns(const ColumnsArgs& args, Elem input, int experts, StreamHandle stream) {
  if (input != Elem::bf16 || (args.hadamard && args.codec.format.rule != Rule::nvfp4_training)) return false;
  const bool launched = for_codec(args.codec, [&](auto codec) {
    using Codec = decltype(codec);
    cast_columns<Codec><<<tile_grid<Codec>(args.m, args.k, experts), kColumnWarps<Codec> * 32, 0, stream>>>(args);
  });
  check_launch("a training cast");
  return launched;
}

}  // namespace lowp::kernels::cuda
