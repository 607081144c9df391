// Casts of rows, of what a norm or a gate gives or of what is there: a block for each row, which it holds in registers.
#include "lowp/kernels/cuda/layers_launch.h"
#include "lowp/kernels/cuda/row_before.cuh"
#include "lowp/kernels/cuda/row_cast.cuh"

namespace lowp::kernels::cuda {
namespace {

struct Args {
  BeforeArgs before;
  CodecArgs codec;
  void* codes;
  void* values;
  float* scale;
  float fixed_scale;
};

// What the codec chooses where the scale is not the row's.
template <RowCast kCast>
__device__ __forceinline__ Chosen fixed_choice(float scale) {
  if constexpr (kCast == RowCast::e4m3) {
    return Chosen(scale);
  } else {
    Chosen chosen;
    chosen.shared[0] = formats::divide(1.0f, scale);
    chosen.stored = float_bits(scale);
    return chosen;
  }
}

template <RowCast kCast, Before kBefore>
__global__ void __launch_bounds__(512) cast_rows_of(const __grid_constant__ Args args) {
  using Codec = RowCodec<kCast>;
  ptx::launch_dependents();
  Bf16x8 row[kRowChunks];
  load_row<kBefore>(args.before, row);
  Chosen chosen;
  if (args.fixed_scale > 0) {
    chosen = fixed_choice<kCast>(args.fixed_scale);
  } else {
    std::uint32_t largest = row[0].max_abs_packed();
#pragma unroll
    for (int i = 1; i < kRowChunks; ++i) largest = max_abs<Elem::bf16>(largest, row[i].max_abs_packed());
    chosen = Codec::choose(args.codec, amax_bits<Elem::bf16>(combine_over_block<Elem::bf16>(largest)));
  }
  if (threadIdx.x == 0) args.scale[blockIdx.x] = bits_float(chosen.stored);
  const std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * args.before.chunks;
#pragma unroll
  for (int i = 0; i < kRowChunks; ++i) {
    const int at = row_chunk(i);
    if (at >= args.before.chunks) continue;
    const std::uint64_t codes = encode_chunk<Codec>(args.codec, chosen, row[i], 0);
    if (args.values)
      store_eight(args.values, (base + at) * 8, values_of_codes<kCast>(codes));
    else
      static_cast<std::uint64_t*>(args.codes)[base + at] = codes;
  }
}

template <RowCast kCast>
void launch(const CastRowsTask& task, const Args& args, StreamHandle stream) {
  const auto kernel = task.norm   ? cast_rows_of<kCast, Before::norm>
                      : task.gate ? cast_rows_of<kCast, Before::gate>
                                  : cast_rows_of<kCast, Before::nothing>;
  launch_early(kernel, task.rows, row_threads(task.width), args, stream);
}

}  // namespace

void launch_cast_rows(const CastRowsTask& task, StreamHandle stream) {
  Args args{.before = before_args(task),
            .codec = row_codec_args(*task.format),
            .codes = task.codes,
            .values = task.values,
            .scale = task.scale,
            .fixed_scale = task.fixed_scale};
  args.codec.given_scale = task.fixed_scale > 0;
  if (row_cast_of(task.format) == RowCast::e4m3)
    launch<RowCast::e4m3>(task, args, stream);
  else
    launch<RowCast::int8>(task, args, stream);
}

}  // namespace lowp::kernels::cuda
