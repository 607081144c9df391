// Pages of keys and values in a GPU's memory.
#pragma once

#include <memory>
#include <vector>

#include "lowp/kernels/cuda/transfer.h"
#include "lowp/models/kv_cache.h"
#include "lowp/ops/device.h"

namespace lowp::models {

/// Clears and copies in the order of a stream, in which the model's steps run too.
class CudaPages final : public PageMemory {
 public:
  /// `most`: pages that there is room for.
  CudaPages(const ops::Device& device, std::shared_ptr<kernels::cuda::Stream> stream, std::int64_t most)
      : device_(device), stream_(std::move(stream)), most_(most) {}

  /// Throws Error(io) saying how many pages there are and how many were expected to fit.
  std::vector<std::byte*> allocate(std::size_t bytes) override;
  void clear(std::byte* page, std::size_t bytes) override;
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override;
  std::int64_t most() const override { return most_; }

 private:
  const ops::Device device_;
  const std::shared_ptr<kernels::cuda::Stream> stream_;
  const std::int64_t most_;
  std::int64_t count_ = 0;
  std::vector<kernels::cuda::Memory> blocks_;
};

}  // namespace lowp::models
