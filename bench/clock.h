// Wall-clock time between two points.
#pragma once

#include <chrono>

namespace lowp::bench {

using Clock = std::chrono::steady_clock;

/// Seconds.
inline double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace lowp::bench
