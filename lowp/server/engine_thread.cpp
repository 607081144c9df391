#include "lowp/server/engine_thread.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

namespace lowp::server {

EngineThread::EngineThread(engine::Engine& engine, engine::Budget budget, std::size_t max_waiting, Deliver deliver,
                           Broken broken)
    : engine_(engine),
      budget_(budget),
      max_waiting_(max_waiting),
      deliver_(std::move(deliver)),
      broken_(std::move(broken)),
      thread_([this] { run(); }) {}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

engine::Admit EngineThread::submit(std::vector<engine::Request> requests) {
  engine::Admit answer;
  for (const engine::Request& request : requests)
    if (answer = engine_.check(request); !answer) return answer;
  {
    const std::lock_guard lock(mutex_);
    const std::size_t waiting = metrics_.waiting + submitted_.size();
    if (waiting + requests.size() > max_waiting_)
      return {.status = engine::Admit::Status::queue_full,
              .message = fmt::format("{} requests are waiting already", waiting)};
    std::move(requests.begin(), requests.end(), std::back_inserter(submitted_));
  }
  wake_.notify_one();
  return answer;
}

void EngineThread::cancel(std::vector<std::uint64_t> ids) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(cancelled_.end(), ids.begin(), ids.end());
  }
  wake_.notify_one();
}

engine::Metrics EngineThread::metrics() const {
  const std::lock_guard lock(mutex_);
  engine::Metrics now = metrics_;
  now.waiting += submitted_.size();
  return now;
}

std::chrono::steady_clock::duration EngineThread::step_age() const {
  const std::lock_guard lock(mutex_);
  return stepping_ ? std::chrono::steady_clock::now() - step_began_ : std::chrono::steady_clock::duration::zero();
}

// Waits for something to do; false at the end. A request that the engine still refuses ends with an error event.
bool EngineThread::take_orders(std::vector<engine::Event>& refused) {
  std::vector<engine::Request> submitted;
  std::vector<std::uint64_t> cancelled;
  {
    std::unique_lock lock(mutex_);
    metrics_ = engine_.metrics();
    stepping_ = false;
    wake_.wait(lock, [&] { return stop_ || !submitted_.empty() || !cancelled_.empty() || !engine_.idle(); });
    if (stop_) return false;
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    metrics_.waiting += submitted.size();
    stepping_ = true;
    step_began_ = std::chrono::steady_clock::now();
  }
  for (engine::Request& request : submitted) {
    const std::uint64_t id = request.id;
    if (const engine::Admit admit = engine_.submit(std::move(request)); !admit) {
      engine::Event& event = refused.emplace_back();
      event.id = id;
      event.what = engine::Finished{.reason = engine::FinishReason::error, .message = admit.message};
    }
  }
  for (const std::uint64_t id : cancelled) engine_.cancel(id);
  return true;
}

void EngineThread::run() try {
  std::vector<engine::Event> events;
  while (take_orders(events)) {
    std::vector<engine::Event> told = engine_.step(budget_);
    std::move(told.begin(), told.end(), std::back_inserter(events));
    if (!events.empty()) deliver_(std::exchange(events, {}), step_began_);
  }
} catch (const std::exception& e) {
  broken_(e.what());
}

}  // namespace lowp::server
