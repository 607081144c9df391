#include "lowp/kernels/cuda/profile.h"

#include <cuda_runtime_api.h>

#include "lowp/base/error.h"

namespace lowp::kernels::cuda {
namespace {

thread_local Profile* current_profile = nullptr;

// While it lasts the host enqueues a step. It takes some milliseconds for the longest.
constexpr std::int64_t kAhead = 20'000'000;

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(ErrorCode::io, "CUDA: {}: {}", what, cudaGetErrorString(status));
}

class Moment {
 public:
  Moment() { check(cudaEventCreate(&handle_), "creating an event"); }
  ~Moment() {
    if (handle_) cudaEventDestroy(handle_);
  }
  Moment(Moment&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Moment& operator=(Moment&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  void record(StreamHandle stream) const { check(cudaEventRecord(handle_, stream), "recording an event"); }
  double seconds_since(const Moment& start) const {
    check(cudaEventSynchronize(handle_), "waiting for an event");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start.handle_, handle_), "reading an event");
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace

struct Profile::Record {
  Work work;
  Moment begin, end;
};

Profile::Profile() {
  LOWP_CHECK(!current_profile, "two profiles at a time");
  current_profile = this;
}
Profile::~Profile() { current_profile = nullptr; }
Profile* Profile::current() { return current_profile; }

void Profile::begin(Work work, StreamHandle stream) {
  Record record{std::move(work), {}, {}};
  if (cudaStreamQuery(stream) == cudaSuccess) hold(kAhead, stream);
  record.begin.record(stream);
  records_.push_back(std::move(record));
}
void Profile::end(StreamHandle stream) { records_.back().end.record(stream); }

std::vector<TimedWork> Profile::take() {
  std::vector<TimedWork> all;
  for (Record& record : records_) {
    const double seconds = record.end.seconds_since(record.begin);
    all.push_back({std::move(record.work), seconds});
  }
  records_.clear();
  return all;
}

}  // namespace lowp::kernels::cuda
