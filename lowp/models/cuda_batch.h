// What a GPU must know of a step: tokens, where they stand, and the pages of their sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowp/kernels/cuda/kv_pages.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/models/model.h"

namespace lowp::models {

/// Arrays in device memory. Sequences with several rows come first, then those with one.
struct CudaStep {
  std::int64_t rows = 0, sequences = 0;
  std::int64_t prompts = 0, prompt_rows = 0;  // of sequences with several rows
  const std::int32_t* tokens = nullptr;       // [rows]; -1: nobody's
  const std::int32_t* positions = nullptr;    // [rows]; -1
  const std::int32_t* sequence = nullptr;     // [rows]
  const std::int32_t* row_begin = nullptr;    // [sequences + 1]
  const std::int32_t* past = nullptr;         // [sequences]
};

class CudaBatch {
 public:
  static constexpr std::int64_t kMostSequences = 1024;

  /// For steps of any size with sequences of up to `context` tokens, on the thread's device.
  explicit CudaBatch(std::int64_t context);

  /// Makes room for steps of up to `rows` rows. Arrays of earlier steps are void.
  void reserve(std::int64_t rows);

  /// Brings a batch to the device: the rows of `batch`, then nobody's up to `rows` of them, each a sequence of its own.
  /// The step before must have ended. Pages are copied only where they have changed. Throws Error(unsupported) for more
  /// than kMostSequences.
  CudaStep place(std::span<const Chunk> batch, std::int64_t rows, kernels::cuda::StreamHandle stream);
  /// Where the last step's row of the batch (chunk after chunk) is computed.
  std::int64_t row(std::int64_t i) const { return row_[static_cast<std::size_t>(i)]; }

  void* const* pages() const { return pages_.as<void* const>(); }  // [kMostSequences, max_pages()]
  std::int64_t max_pages() const { return max_pages_; }

 private:
  void place_pages(std::span<const Chunk* const> order, kernels::cuda::StreamHandle stream);

  std::int64_t max_pages_;
  kernels::cuda::Memory numbers_, pages_;
  kernels::cuda::HostMemory host_numbers_, host_pages_;
  std::vector<std::vector<const std::byte*>> shown_;  // by sequence: the pages that the device has
  std::vector<std::int64_t> row_;
};

}  // namespace lowp::models
