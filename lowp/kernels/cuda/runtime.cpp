#include "lowp/kernels/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/transfer.h"

namespace lowp::kernels::cuda {
namespace {

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clear it, unless the device is lost
  fail(ErrorCode::io, "CUDA: {}: {}", what, cudaGetErrorString(status));
}

struct Found {
  std::vector<DeviceInfo> devices;
  std::string why;
};

const Found& found() {
  static const Found all = [] {
    Found result;
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
      cudaGetLastError();
      result.why = std::string("CUDA: ") + cudaGetErrorString(status);
      return result;
    }
    for (int i = 0; i < count; ++i) {
      cudaDeviceProp p;
      check(cudaGetDeviceProperties(&p, i), "reading the properties of device " + std::to_string(i));
      result.devices.push_back({i, p.name, p.major, p.minor, p.multiProcessorCount,
                                static_cast<std::int64_t>(p.totalGlobalMem), p.l2CacheSize});
    }
    if (count == 0) result.why = "CUDA: no device";
    return result;
  }();
  return all;
}

}  // namespace

const std::vector<DeviceInfo>& devices() { return found().devices; }
const std::string& why_none() { return found().why; }

std::vector<Architecture> architectures() {
  std::vector<Architecture> result;
  const std::string list = LOWP_CUDA_ARCHITECTURES;  // "90a 100 120"
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find(' ', begin), list.size());
    const std::string name = list.substr(begin, end - begin);
    result.push_back({"sm_" + name, name == "90a"});
    begin = end + 1;
  }
  return result;
}

void use_device(int index) { check(cudaSetDevice(index), "choosing device " + std::to_string(index)); }

Memory::Memory(std::size_t bytes) : size_(bytes) {
  if (bytes) check(cudaMalloc(&data_, bytes), fmt::format("allocating {} bytes", bytes));
}
Memory::~Memory() { cudaFree(data_); }
Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

HostMemory::HostMemory(std::size_t bytes) : size_(bytes) {
  if (bytes) check(cudaMallocHost(&data_, bytes), fmt::format("allocating {} bytes of pinned host memory", bytes));
}
HostMemory::~HostMemory() { cudaFreeHost(data_); }
HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Memory uploaded(std::span<const std::span<const std::byte>> parts) {
  std::size_t bytes = 0;
  for (const auto& part : parts) bytes += part.size();
  Memory memory(bytes);
  const Stream stream;
  std::size_t at = 0;
  for (const auto& part : parts) {
    if (!part.empty()) copy(memory.as<std::byte>() + at, part.data(), part.size(), stream.handle());
    at += part.size();
  }
  stream.synchronize();
  return memory;
}

Memory copied(const Memory& memory) {
  Memory made(memory.size());
  const Stream stream;
  if (memory.size()) copy(made.as<>(), memory.as<>(), memory.size(), stream.handle());
  stream.synchronize();
  return made;
}

std::size_t free_memory() {
  std::size_t free = 0, all = 0;
  check(cudaMemGetInfo(&free, &all), "asking for free memory");
  return free;
}

Stream::Stream() { check(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "creating a stream"); }
Stream::~Stream() { cudaStreamDestroy(handle_); }
void Stream::synchronize() const { check(cudaStreamSynchronize(handle_), "waiting for a stream"); }

Event::Event() { check(cudaEventCreate(&handle_), "creating an event"); }
Event::~Event() { cudaEventDestroy(handle_); }
void Event::record(const Stream& stream) { check(cudaEventRecord(handle_, stream.handle()), "recording an event"); }
double Event::seconds_since(const Event& start) const {
  check(cudaEventSynchronize(handle_), "waiting for an event");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, start.handle_, handle_), "reading an event");
  return milliseconds * 1e-3;
}

Graph::~Graph() {
  if (handle_) cudaGraphExecDestroy(handle_);
}
void Graph::begin(const Stream& stream) {
  check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal), "beginning a graph");
}
void Graph::end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream.handle(), &graph), "ending a graph");
  const cudaError_t status = cudaGraphInstantiate(&handle_, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "instantiating a graph");
}
void Graph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(handle_, stream.handle()), "launching a graph");
}

void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), fmt::format("copying {} bytes", bytes));
}
void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
               std::size_t rows, StreamHandle stream) {
  check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, stream), "copying rows");
}
void fill(void* to, int byte, std::size_t bytes, StreamHandle stream) {
  check(cudaMemsetAsync(to, byte, bytes, stream), fmt::format("filling {} bytes", bytes));
}

void launch_cooperative(const void* kernel, unsigned blocks, unsigned threads, void** arguments, StreamHandle stream) {
  int device = 0, each = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, static_cast<int>(threads), 0),
        "asking how many blocks fit");
  const int multiprocessors = devices()[static_cast<std::size_t>(device)].multiprocessors;
  const unsigned grid = std::min(blocks, static_cast<unsigned>(each * multiprocessors));
  check(cudaLaunchCooperativeKernel(kernel, grid, threads, arguments, 0, stream), "launching blocks that wait");
}

void check_launch(const char* what) { check(cudaGetLastError(), std::string("launching ") + what); }

}  // namespace lowp::kernels::cuda
