// Memory on both sides of a device's bus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// Host memory that devices copy from and to without a stop on the way. Throws Error(io) where there is none.
class HostMemory {
 public:
  HostMemory() = default;
  explicit HostMemory(std::size_t bytes);
  ~HostMemory();
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;

  std::size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Device memory that holds these bytes, one part after the other; they may go when this returns.
Memory uploaded(std::span<const std::span<const std::byte>> parts);
inline Memory uploaded(std::span<const std::byte> bytes) { return uploaded({&bytes, 1}); }

/// A copy in memory of its own.
Memory copied(const Memory& memory);

/// Bytes of the thread's device that nobody has.
std::size_t free_memory();

}  // namespace lowp::kernels::cuda
