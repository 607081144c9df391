// An engine on a thread of its own: requests from any thread go in, events come out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lowp/engine/engine.h"

namespace lowp::server {

class EngineThread {
 public:
  /// Called on the engine's thread after each step that had something to tell, with the time when it began.
  using Deliver = std::function<void(std::vector<engine::Event>, std::chrono::steady_clock::time_point)>;
  /// Called on the engine's thread, once, if a step throws: nothing runs any more.
  using Broken = std::function<void(const std::string&)>;

  /// `max_waiting` bounds the requests that have not begun. The engine must outlive this, which alone uses it.
  EngineThread(engine::Engine& engine, engine::Budget budget, std::size_t max_waiting, Deliver deliver, Broken broken);
  /// Ends after the running step.
  ~EngineThread();

  /// All or none of them; each gets its own events under its id.
  engine::Admit submit(std::vector<engine::Request> requests);
  void cancel(std::vector<std::uint64_t> ids);

  /// As of the last step; requests that wait for the first one count as waiting.
  engine::Metrics metrics() const;
  /// How long the running step takes so far.
  std::chrono::steady_clock::duration step_age() const;

 private:
  void run();
  bool take_orders(std::vector<engine::Event>& refused);

  engine::Engine& engine_;
  const engine::Budget budget_;
  const std::size_t max_waiting_;
  const Deliver deliver_;
  const Broken broken_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<engine::Request> submitted_;
  std::vector<std::uint64_t> cancelled_;
  engine::Metrics metrics_;
  std::chrono::steady_clock::time_point step_began_;
  bool stepping_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace lowp::server
