// Largest magnitudes of whole matrices: one read at memory speed, one atomic for each block.
#include <algorithm>

#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/cast_row.cuh"
#include "lowp/kernels/cuda/for_input.cuh"
#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

// grid: blocks of an expert, experts. x: whole chunks from a 16-byte aligned address if `chunks`, then single values.
template <Elem In>
__global__ void __launch_bounds__(256) find_amax(const void* x, std::int64_t size, bool chunks, MatrixAmax* out) {
  const std::int64_t from = blockIdx.y * size, count = chunks ? size / 8 : 0;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x,
                     first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  std::uint32_t amax = 0;
  for (std::int64_t i = first; i < count; i += kUnroll * stride) {
    Chunk<In> chunk[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u * stride < count)
        chunk[u].load(x, static_cast<std::size_t>(from / 8 + i + u * stride));
      else
        chunk[u].clear();
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) amax = max_abs<In>(amax, chunk[u].max_abs_packed());
  }
  for (std::int64_t i = count * 8 + first; i < size; i += stride) {
    if constexpr (In == Elem::f32)
      amax = max_abs<In>(amax, static_cast<const std::uint32_t*>(x)[from + i]);
    else
      amax = max_abs<In>(amax, static_cast<const std::uint16_t*>(x)[from + i]);
  }
  const std::uint32_t bits = amax_bits<In>(combine_over_block<In>(amax));
  if (threadIdx.x != 0) return;
  MatrixAmax& mine = out[blockIdx.y];
  atomicMax(&mine.bits, bits);
  __threadfence();
  if (atomicAdd(&mine.arrived, 1u) + 1 == gridDim.x) {  // the last block
    const float tensor_scale = formats::nvfp4_tensor_scale(bits_float(atomicMax(&mine.bits, 0u)));
    mine.tensor_scale = tensor_scale;
    mine.reciprocal = formats::divide(1.0f, tensor_scale);
  }
}

}  // namespace

void amax(const void* x, Elem input, std::int64_t experts, std::int64_t size, MatrixAmax* out, StreamHandle stream) {
  const Timed timed(stream, [&] {
    return Work{.name = "amax", .bytes = static_cast<double>(experts * size * formats::info(input).bits / 8)};
  });
  fill(out, 0, static_cast<std::size_t>(experts) * sizeof *out, stream);
  const bool chunks = size % 8 == 0 && reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  // Enough blocks to fill any device, few enough that their atomics do not matter.
  const std::int64_t wanted = ceil_div<std::int64_t>(size, 256 * 8 * kUnroll);
  const dim3 grid(static_cast<unsigned>(std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(2048 / experts, 1))),
                  static_cast<unsigned>(experts));
  for_input(input, [&](auto in) { find_amax<in()><<<grid, 256, 0, stream>>>(x, size, chunks, out); });
  check_launch("find_amax");
}

}  // namespace lowp::kernels::cuda
