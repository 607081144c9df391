// The CPU as a device of benchmarks: wall clock, limits from cpu_probes.h.
#pragma once

#include <memory>

#include "bench/device.h"

namespace lowp::bench {

std::unique_ptr<Device> cpu_device();

}  // namespace lowp::bench
