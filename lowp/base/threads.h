// A fork-join loop over index ranges, on threads that persist.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lowp {

constexpr int kMostThreads = 1024;

/// Number of threads that compute, the caller's included: set_thread_count(), else LOWP_THREADS, else the number of
/// cores that this process may use. Throws Error(usage) for a LOWP_THREADS that is no number from 1 to kMostThreads.
int thread_count();

/// Changes thread_count(), from 1 to kMostThreads. Not from inside a parallel_for().
void set_thread_count(int count);

/// A reference to a callable (begin, end), valid while that lives.
class RangeBody {
 public:
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, RangeBody>) RangeBody(F&& body)
      : object_(std::addressof(body)), call_([](const void* object, std::int64_t begin, std::int64_t end) {
          (*static_cast<std::remove_reference_t<F>*>(const_cast<void*>(object)))(begin, end);
        }) {}
  void operator()(std::int64_t begin, std::int64_t end) const { call_(object_, begin, end); }

 private:
  const void* object_;
  void (*call_)(const void*, std::int64_t, std::int64_t);
};

/// Runs body(begin, end) over a partition of [0, count) into chunks of at least `grain` indices, on up to
/// thread_count() threads; returns when all are done. The first exception of a chunk is rethrown. The partition does
/// not affect results: bodies must not depend on it. Inside a body, or while another thread is in one, a call runs on
/// the caller alone. Throws Error(unsupported) if the system refuses the threads.
void parallel_for(std::int64_t count, std::int64_t grain, RangeBody body);

}  // namespace lowp
