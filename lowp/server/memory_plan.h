// How much memory keys and values may take.
#pragma once

#include <cstdint>
#include <string>

#include "lowp/models/model.h"

namespace lowp::server {

/// Bytes that keys and values may take at most: what the model's GPU has room for; or the system's available memory, or
/// what this process's control group leaves of it.
std::uint64_t available_memory(const models::Model& model);

struct MemoryPlan {
  std::uint64_t weights = 0, available = 0;  // bytes: of the model, and of memory beside it
  std::uint64_t page_bytes = 0;
  std::int64_t pages = 0;    // for keys and values
  std::int64_t context = 0;  // tokens of a sequence
  std::uint64_t kv_bytes() const { return static_cast<std::uint64_t>(pages) * page_bytes; }
  std::int64_t kv_tokens() const { return pages * models::kPageTokens; }
};

/// Pages for `sequences` of full length if they fit `kv_bytes` (0: `share` of the available memory), else as many as
/// fit. `context` 0: the model's, or less where the pages do not hold it. Throws Error(usage) with the numbers if a
/// context that was asked for does not fit.
MemoryPlan plan_memory(const models::Model& model, std::int64_t context, std::int64_t sequences, std::uint64_t kv_bytes,
                       double share);

}  // namespace lowp::server
