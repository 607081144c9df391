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

/// Seconds of one of many calls of `run`, which enqueues into cuda_stream(), after 0.1 s of them: the chip's clock then
/// is the one that this work leads to, not its predecessor's.
double sustained(const std::function<void()>& run);

}  // namespace lowp::bench
