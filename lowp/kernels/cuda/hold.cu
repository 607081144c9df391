#include "lowp/kernels/cuda/profile.h"

namespace lowp::kernels::cuda {
namespace {

__device__ std::int64_t nanoseconds_now() {
  std::int64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

__global__ void wait_for(std::int64_t nanoseconds) {
  const std::int64_t start = nanoseconds_now();
  while (nanoseconds_now() - start < nanoseconds) __nanosleep(1000);
}

}  // namespace

void hold(std::int64_t nanoseconds, StreamHandle stream) {
  wait_for<<<1, 1, 0, stream>>>(nanoseconds);
  check_launch("wait_for");
}

}  // namespace lowp::kernels::cuda
