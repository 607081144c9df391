// A CUDA GPU as a device of benchmarks: its own clock, cold second-level cache, and the copy of equal traffic as limit.
#pragma once

#include <memory>

#include "bench/device.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::bench {

std::unique_ptr<Device> cuda_device(int index);

/// Calls in a graph that is compared with the limit "graph_copy".
inline constexpr int kGraphCalls = 64;

/// The stream that cases enqueue into and the device times.
const kernels::cuda::Stream& cuda_stream();

}  // namespace lowp::bench
