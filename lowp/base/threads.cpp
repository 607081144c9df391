#include "lowp/base/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"

namespace lowp {
namespace {

// How long a thread looks for work before it sleeps: longer than the serial parts between two loops of a forward pass,
// short enough to cost nothing where a program pauses.
constexpr std::chrono::microseconds kSpin{50};

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  if (cpus.empty()) cpus.resize(std::max(1u, std::thread::hardware_concurrency()), -1);  // more cores than a cpu_set_t
  return cpus;
}

int default_threads() {
  const std::string text = env::get("LOWP_THREADS");
  if (text.empty()) return std::min<int>(static_cast<int>(allowed_cpus().size()), kMostThreads);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMostThreads)
    fail(ErrorCode::usage, "LOWP_THREADS: expected a number from 1 to {}, found '{}'", kMostThreads, text);
  return value;
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once value != unwanted: looks for a while if `spin`, then sleeps.
template <typename T>
void await_change(const std::atomic<T>& value, T unwanted, bool spin) {
  if (spin) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (value.load(std::memory_order_acquire) != unwanted) return;
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  while (value.load(std::memory_order_acquire) == unwanted) value.wait(unwanted, std::memory_order_acquire);
}

// One parallel_for.
class Loop {
 public:
  Loop(std::int64_t count, std::int64_t chunks, RangeBody body) : count_(count), chunks_(chunks), body_(body) {}

  void work() {
    for (std::int64_t c; (c = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;) {
      try {
        body_(count_ * c / chunks_, count_ * (c + 1) / chunks_);
      } catch (...) {
        const std::lock_guard lock(failure_mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
    }
  }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  const std::int64_t count_, chunks_;
  const RangeBody body_;
  std::atomic<std::int64_t> next_{0};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

thread_local bool in_loop = false;

// threads - 1 workers, each waiting at its own cache line; the caller of run() is the last of the team.
class Pool {
 public:
  explicit Pool(int threads) : workers_(static_cast<std::size_t>(threads - 1)) {
    const std::vector<int> cpus = allowed_cpus();
    // Threads that outnumber the cores must not look for work on the cores that others need to do it.
    spin_ = static_cast<std::size_t>(threads) <= cpus.size();
    // One thread a core: pinned, but for the caller's, which is not ours to move. With cores left over the system
    // chooses better: two programs of us would pin to the same.
    const bool pin = static_cast<std::size_t>(threads) == cpus.size() && cpus.front() >= 0;
    try {
      for (std::size_t i = 0; i < workers_.size(); ++i) {
        workers_[i].thread = std::thread([this, &worker = workers_[i]] { serve(worker); });
        if (pin) pin_to(workers_[i].thread, cpus[i + 1]);
      }
    } catch (const std::system_error& e) {
      stop();
      fail(ErrorCode::unsupported, "cannot start {} threads: {}", threads, e.code().message());
    }
  }
  ~Pool() { stop(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// `helpers` workers and the caller take chunks until none is left.
  void run(Loop& loop, int helpers) {
    loop_ = &loop;
    running_.store(helpers, std::memory_order_relaxed);
    for (int i = 0; i < helpers; ++i) send(workers_[static_cast<std::size_t>(i)], Order::work);
    loop.work();
    for (int i = 0; i < helpers; ++i)  // who has not begun need not
      if (claim(workers_[static_cast<std::size_t>(i)])) running_.fetch_sub(1, std::memory_order_relaxed);
    for (int left; (left = running_.load(std::memory_order_acquire)) != 0;) await_change(running_, left, spin_);
  }

 private:
  enum class Order : int { wait, work, stop };
  struct alignas(64) Worker {
    std::atomic<Order> order{Order::wait};
    std::thread thread;
  };

  static void send(Worker& worker, Order order) {
    worker.order.store(order, std::memory_order_release);
    worker.order.notify_one();
  }
  // Takes an order to work: the worker to do it, or the caller to take it back.
  static bool claim(Worker& worker) {
    Order expected = Order::work;
    return worker.order.compare_exchange_strong(expected, Order::wait, std::memory_order_acq_rel);
  }
  static void pin_to(std::thread& thread, int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // a wish: fails where the core went away
  }

  void serve(Worker& worker) {
    in_loop = true;
    while (true) {
      await_change(worker.order, Order::wait, spin_);
      if (worker.order.load(std::memory_order_acquire) == Order::stop) return;
      if (!claim(worker)) continue;
      loop_->work();
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
  }
  void stop() {
    for (Worker& worker : workers_)
      if (worker.thread.joinable()) {
        send(worker, Order::stop);
        worker.thread.join();
      }
  }

  std::vector<Worker> workers_;
  bool spin_ = true;
  Loop* loop_ = nullptr;
  alignas(64) std::atomic<int> running_{0};
};

struct Team {
  std::mutex mutex;  // held by the loop that uses the pool
  std::atomic<int> count{0};
  std::unique_ptr<Pool> pool;  // of `count` threads, from its first loop on
};

Team& team() {
  static Team team;
  return team;
}

}  // namespace

int thread_count() {
  std::atomic<int>& count = team().count;
  if (count.load() == 0) {
    int unset = 0;
    count.compare_exchange_strong(unset, default_threads());
  }
  return count.load();
}

void set_thread_count(int count) {
  LOWP_CHECK(count >= 1 && count <= kMostThreads && !in_loop, "thread count {}", count);
  const std::lock_guard lock(team().mutex);
  team().pool.reset();
  team().count = count;
}

void parallel_for(std::int64_t count, std::int64_t grain, RangeBody body) {
  if (count <= 0) return;
  const int threads = thread_count();
  const std::int64_t most = std::max<std::int64_t>(64, 8 * threads);
  const std::int64_t chunks = std::min(ceil_div(count, std::max<std::int64_t>(grain, 1)), most);
  const int helpers = static_cast<int>(std::min<std::int64_t>(threads, chunks)) - 1;
  if (helpers < 1 || in_loop) return body(0, count);
  const std::unique_lock lock(team().mutex, std::try_to_lock);
  if (!lock) return body(0, count);
  if (!team().pool) team().pool = std::make_unique<Pool>(team().count.load());
  Loop loop(count, chunks, body);
  in_loop = true;
  team().pool->run(loop, std::min(helpers, team().count.load() - 1));
  in_loop = false;
  loop.rethrow();
}

}  // namespace lowp
