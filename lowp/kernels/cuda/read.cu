#include "lowp/kernels/cuda/read.h"

namespace lowp::kernels::cuda {
namespace {

constexpr int kThreads = 512, kLoads = 4;

__global__ void __launch_bounds__(kThreads) read_words(const uint4* from, std::size_t count, std::uint32_t* out) {
  std::uint32_t folded = 0;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads * kLoads + threadIdx.x; i < count;
       i += std::size_t{gridDim.x} * kThreads * kLoads) {
    uint4 v[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j)
      v[j] = i + static_cast<std::size_t>(j) * kThreads < count
                 ? __ldg(from + i + static_cast<std::size_t>(j) * kThreads)
                 : uint4{};
#pragma unroll
    for (int j = 0; j < kLoads; ++j) folded ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (folded == 0x9E3779B9u) *out = folded;  // hardly ever, but the compiler cannot know
}

}  // namespace

void read_all(const void* from, std::size_t bytes, std::uint32_t* out, StreamHandle stream) {
  read_words<<<528, kThreads, 0, stream>>>(static_cast<const uint4*>(from), bytes / 16, out);
  check_launch("read_words");
}

}  // namespace lowp::kernels::cuda
