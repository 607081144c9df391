// What a device does for a model: one implementation for each kind of device.   <- ADD A DEVICE
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lowp/models/kv_cache.h"

namespace lowp::models {

struct Chunk;

/// The weights on a device, and what computes with them. The functions are Model's of the same names.
class Runner {
 public:
  virtual ~Runner() = default;
  /// Leaves the caches' lengths to Model.
  virtual void forward(std::span<const Chunk> batch) = 0;
  virtual void logits(std::span<const std::int64_t> rows, std::span<float> out) = 0;
  virtual std::vector<std::int32_t> likeliest(std::span<const std::int64_t> rows, std::int64_t limit) = 0;
  virtual const std::shared_ptr<KvPool>& kv_pool() const = 0;
  virtual std::string memory_plan() const { return ""; }
};

}  // namespace lowp::models
