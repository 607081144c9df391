// What single kernels take: events around named launches, where somebody asks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// The rate of multiplying that bounds a kernel.
enum class Multiplies : std::uint8_t { nothing, bf16, e4m3, int8 };

/// What the launches of a call do. bytes: that must be read and written at least; 0: not known to the host.
struct Work {
  std::string name;
  double bytes = 0, flop = 0;
  Multiplies multiplies = Multiplies::nothing;
};
struct TimedWork : Work {
  double seconds = 0;
};

/// While one lives, the thread's calls that are Timed are timed. Their kernels run one after the other, none begins
/// before its predecessor ended, and the host stays ahead of the device, so that it is not waited for. Not with graphs.
class Profile {
 public:
  Profile();
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Waits; what was timed since the last call, in order.
  std::vector<TimedWork> take();

  /// The thread's, or null.
  static Profile* current();

 private:
  friend class Timed;
  struct Record;
  void begin(Work work, StreamHandle stream);
  void end(StreamHandle stream);
  std::vector<Record> records_;
};

/// Stands in a function that launches. `describe` returns its Work and is called only if there is a Profile.
class Timed {
 public:
  template <typename Describe>
  Timed(StreamHandle stream, const Describe& describe) : profile_(Profile::current()), stream_(stream) {
    if (profile_) profile_->begin(describe(), stream);
  }
  ~Timed() {
    if (profile_) profile_->end(stream_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  Profile* profile_;
  StreamHandle stream_;
};

/// Keeps a stream busy for so long.
void hold(std::int64_t nanoseconds, StreamHandle stream);

}  // namespace lowp::kernels::cuda
