// A CUDA GPU as a device of benchmarks: its own clock, cold second-level cache, and the copy of equal traffic as limit.
#pragma once

#include <functional>
#include <memory>
#include <vector>

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

/// Enqueues call number i of many, each over operands of its own as far as there are some.
using CudaCall = std::function<void(std::size_t)>;

/// Operands that a call reads and the next finds in the cache would be read too fast: bytes to rotate over, six times
/// what the second-level cache holds.
inline constexpr std::size_t kBeyondCache = 300'000'000;

/// Seconds of one of `calls` calls in a graph, for each of `replays` replays after two more.
std::vector<double> graph_samples(const CudaCall& call, int calls, int replays);

}  // namespace lowp::bench
