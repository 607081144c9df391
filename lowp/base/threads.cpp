#include "lowp/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"

namespace lowp {
namespace {

int count_threads() {
  if (const std::string text = env::get("LOWP_THREADS"); !text.empty()) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1024)
      fail(ErrorCode::usage, "LOWP_THREADS: expected a number from 1 to 1024, found '{}'", text);
    return value;
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

int thread_count() {
  static const int count = count_threads();
  return count;
}

void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  const std::int64_t chunks = std::min<std::int64_t>(ceil_div(count, std::max<std::int64_t>(grain, 1)), 64);
  const int workers = static_cast<int>(std::min<std::int64_t>(thread_count(), chunks));
  if (workers <= 1) return body(0, count);

  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    for (std::int64_t c; (c = next.fetch_add(1)) < chunks;) {
      try {
        body(count * c / chunks, count * (c + 1) / chunks);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t < workers; ++t) threads.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace lowp
