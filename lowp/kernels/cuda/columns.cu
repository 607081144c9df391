#include "lowp/kernels/cuda/cast_both.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

// Calls body(Codec) for the format's codec; false if columns have no kernel for it.
template <class Body>
bool for_codec(const BlockSpec& format, Elem input, const Body& body) {
  bool known = true;
  for_input(input, [&](auto in) {
    if (format.rule == Rule::nvfp4 && format.group_cols == 16) {
      if (format.tensor_scale)
        body(Nvfp4Codec<Nvfp4::two_levels, in()>());
      else
        body(Nvfp4Codec<Nvfp4::one_level, in()>());
      return;
    }
    known = format.rule == Rule::mx && format.group_cols == 32;
    if (!known) return;
    switch (format.element) {
      case Elem::e4m3:
        return body(MxCodec<Elem::e4m3, in()>());
      case Elem::e5m2:
        return body(MxCodec<Elem::e5m2, in()>());
      case Elem::e2m3:
        return body(MxCodec<Elem::e2m3, in()>());
      case Elem::e3m2:
        return body(MxCodec<Elem::e3m2, in()>());
      case Elem::e2m1:
        return body(MxCodec<Elem::e2m1, in()>());
      default:
        known = false;
    }
  });
  return known;
}

}  // namespace

bool launch_columns(const ColumnsArgs& args, Elem input, int experts, StreamHandle stream) {
  const bool launched = for_codec(args.codec.format, input, [&](auto codec) {
    using Codec = decltype(codec);
    cast_columns<Codec><<<tile_grid<Codec>(args.m, args.k, experts), kColumnWarps<Codec> * 32, 0, stream>>>(args);
  });
  check_launch("cast_columns");
  return launched;
}

bool launch_both(const RowsArgs& rows, const ColumnsArgs& columns, Elem input, int experts, StreamHandle stream) {
  const bool launched = for_codec(columns.codec.format, input, [&](auto codec) {
    using Codec = decltype(codec);
    cast_both<Codec>
        <<<tile_grid<Codec>(columns.m, columns.k, experts), kColumnWarps<Codec> * 32, 0, stream>>>(rows, columns);
  });
  check_launch("cast_both");
  return launched;
}

}  // namespace lowp::kernels::cuda
