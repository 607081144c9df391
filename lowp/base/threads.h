// A fork-join loop over index ranges.
#pragma once

#include <cstdint>
#include <functional>

namespace lowp {

/// Number of workers: LOWP_THREADS, or the number of cores that this process may use.
int thread_count();

/// Runs body(begin, end) over a partition of [0, count) into chunks of at least `grain` indices, on up to
/// thread_count() threads; returns when all are done. The first exception of a chunk is rethrown. The partition does
/// not affect results: bodies must not depend on it.
void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace lowp
