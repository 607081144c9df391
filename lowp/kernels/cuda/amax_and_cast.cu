// A two-level cast in one launch: blocks that are all resident find the largest magnitude together, wait for each
// other, and cast what they read, the last of it first, as far as the second-level cache still holds it.
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/grid.cuh"
#include "lowp/kernels/cuda/launch.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Waits until all blocks of the grid have added their magnitude; that of all.
__device__ std::uint32_t amax_over_grid(MatrixAmax& all, std::uint32_t mine) {
  __shared__ std::uint32_t result;
  if (threadIdx.x == 0) {
    atomicMax(&all.bits, mine);
    __threadfence();
    atomicAdd(&all.arrived, 1u);
    while (ptx::load_acquire(&all.arrived) < gridDim.x) {
    }
    result = ptx::load_acquire(&all.bits);
  }
  __syncthreads();
  return result;
}

template <class Codec>
__global__ void __launch_bounds__(kThreads, Codec::kInput == Elem::f32 ? 3 : 4)
    find_amax_and_cast(const __grid_constant__ RowsArgs args, MatrixAmax* found) {
  constexpr Elem In = Codec::kInput;
  constexpr std::uint32_t kSegment = kThreads * kUnroll;
  const std::uint32_t lane = threadIdx.x % 32, own = (threadIdx.x - lane) * kUnroll + lane;
  Chunk<In> chunk[kUnroll];
  Places places = {0, 32, {}};
  const auto load = [&](std::uint32_t segment) {
    places.first = segment * kSegment + own;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      places.inside[u] = places.at(u) < args.chunks;
      if (places.inside[u])
        chunk[u].load(args.x, places.at(u));
      else
        chunk[u].clear();
    }
  };
  const std::uint32_t segments = ceil_div(args.chunks, kSegment);
  std::uint32_t amax = 0;
  for (std::uint32_t s = blockIdx.x; s < segments; s += gridDim.x) {
    load(s);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) amax = max_abs<In>(amax, chunk[u].max_abs_packed());
  }
  const std::uint32_t bits = amax_over_grid(*found, amax_bits<In>(combine_over_block<In>(amax)));
  CodecArgs codec = args.codec;
  codec.all_zero = bits == 0;
  codec.tensor_scale = formats::choosing_scale(codec.format, bits_float(bits));
  codec.reciprocal = formats::divide(1.0f, codec.tensor_scale);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    found->tensor_scale = formats::nvfp4_tensor_scale(bits_float(bits));
    found->reciprocal = formats::divide(1.0f, found->tensor_scale);
  }
  if (blockIdx.x >= segments) return;
  const std::uint32_t last = blockIdx.x + (segments - 1 - blockIdx.x) / gridDim.x * gridDim.x;
  for_tensor_scale<Codec>(codec, [&](auto used) {
    for (std::uint32_t s = last;; s -= gridDim.x) {
      if (s != last) load(s);  // the last one is still here
      cast_chunks<decltype(used)>(args, codec, chunk, places, [&](std::uint32_t u, const Chosen& c) {
        const std::uint32_t at = s * kSegment + own + u * 32;
        if (at < args.chunks) store_scale<decltype(used)>(args, 0, at / (Codec::kGroup / 8), c);
      });
      if (s == blockIdx.x) break;
    }
  });
}

}  // namespace

bool launch_amax_and_cast(const RowsArgs& args, Elem input, MatrixAmax* found, StreamHandle stream) {
  const BlockSpec& format = args.codec.format;
  if (!format.tensor_scale || format.group_rows != 1 || args.lanes != 2) return false;
  fill(found, 0, sizeof *found, stream);
  for_input(input, [&](auto in) {
    const auto run = [&](auto kernel) {
      RowsArgs copy = args;
      void* arguments[] = {&copy, &found};
      const unsigned segments = ceil_div<std::uint32_t>(args.chunks, kThreads * kUnroll);
      launch_cooperative(reinterpret_cast<const void*>(kernel), segments, kThreads, arguments, stream);
    };
    if (format.rule == Rule::nvfp4_training)
      run(&find_amax_and_cast<TrainingCodec<in()>>);
    else
      run(&find_amax_and_cast<Nvfp4Codec<Nvfp4::two_levels, in()>>);
  });
  return true;
}

}  // namespace lowp::kernels::cuda
