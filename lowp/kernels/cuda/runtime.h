// The CUDA runtime, at one place: devices, memory, streams, events, graphs and its errors. Usable from plain C++; in a
// build without CUDA there are no devices and the rest is an Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace lowp::kernels::cuda {

using StreamHandle = CUstream_st*;

struct DeviceInfo {
  int index = 0;
  std::string name;          // as the driver says, e.g. "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0, l2_bytes = 0;
};

/// The devices that this build can use; empty where why_none() says something.
const std::vector<DeviceInfo>& devices();

/// Why devices() is empty: "this build has no CUDA", or what the driver said. "" if it is not.
const std::string& why_none();

/// Compute capabilities that kernels were compiled for, and whether the project has run them there.
struct Architecture {
  std::string name;  // "sm_90a"
  bool ran = false;
};
std::vector<Architecture> architectures();

/// Makes a device the calling thread's; 0 <= index < devices().size().
void use_device(int index);

/// Device memory, 256-byte aligned. Errors: Error(io) with the size when there is not enough.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  std::size_t size() const { return size_; }
  template <typename T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An ordered queue of work on the thread's device.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  StreamHandle handle() const { return handle_; }
  /// Waits for all work of the stream and reports its errors.
  void synchronize() const;

 private:
  StreamHandle handle_ = nullptr;
};

/// A point in a stream's work.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(const Stream& stream);
  /// Seconds from `start` to this event; waits for this one.
  double seconds_since(const Event& start) const;

 private:
  CUevent_st* handle_ = nullptr;
};

/// Work recorded once and replayed with a single launch.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  /// Records what `work` enqueues into `stream` instead of running it.
  template <typename Work>
  void record(const Stream& stream, const Work& work) {
    begin(stream);
    work();
    end(stream);
  }
  void launch(const Stream& stream) const;

 private:
  void begin(const Stream& stream);
  void end(const Stream& stream);
  CUgraphExec_st* handle_ = nullptr;
};

/// Copies within or between host and device memory, in stream order. Host memory must outlive the copy.
void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream);
/// Copies `rows` rows of `width` bytes between arrays whose rows are `to_pitch` and `from_pitch` bytes apart.
void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
               std::size_t rows, StreamHandle stream);
void fill(void* to, int byte, std::size_t bytes, StreamHandle stream);

/// Launches a kernel whose blocks wait for each other: at most `blocks`, and no more than the device can hold at once.
/// `arguments`: addresses of the kernel's arguments.
void launch_cooperative(const void* kernel, unsigned blocks, unsigned threads, void** arguments, StreamHandle stream);

/// Reports an error of the launches so far; `what` names the kernel.
void check_launch(const char* what);

}  // namespace lowp::kernels::cuda
