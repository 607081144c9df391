#include "lowp/server/memory_plan.h"

#include <algorithm>
#include <fstream>
#include <limits>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"

namespace lowp::server {
namespace {

constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

std::uint64_t read_number(const char* path) {
  std::uint64_t value = 0;
  return std::ifstream(path) >> value ? value : kNone;  // "max" is no number
}

}  // namespace

std::uint64_t available_memory(const models::Model& model) {
  if (const std::int64_t most = model.kv_pool()->most(); most > 0)
    return static_cast<std::uint64_t>(most) * model.kv_pool()->page_bytes();
  std::uint64_t available = kNone;
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key;) {
    std::uint64_t kib = 0;
    if (key == "MemAvailable:" && info >> kib) available = kib * 1024;
  }
  constexpr const char* kGroups[][2] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit, usage] : kGroups) {
    const std::uint64_t most = read_number(limit), used = read_number(usage);
    if (most != kNone && used != kNone) available = std::min(available, most - std::min(most, used));
  }
  return available;
}

MemoryPlan plan_memory(const models::Model& model, std::int64_t context, std::int64_t sequences, std::uint64_t kv_bytes,
                       double share) {
  MemoryPlan plan{.weights = model.weight_bytes(),
                  .available = available_memory(model),
                  .page_bytes = model.kv_pool()->page_bytes()};
  const std::int64_t most = model.config().max_position_embeddings;
  plan.context = context > 0 ? std::min(context, most) : most;
  if (kv_bytes == 0) kv_bytes = static_cast<std::uint64_t>(share * static_cast<double>(plan.available));
  const auto fits =
      static_cast<std::int64_t>(std::min<std::uint64_t>(kv_bytes / plan.page_bytes, std::uint64_t{1} << 40));
  const std::int64_t wanted = ceil_div(plan.context, models::kPageTokens);
  if (fits < (context > 0 ? wanted : 1))
    fail(ErrorCode::usage,
         "keys and values of {} tokens take {} bytes and there is room for {}: ask for a shorter context, or more "
         "memory for them",
         context > 0 ? plan.context : models::kPageTokens, static_cast<std::uint64_t>(wanted) * plan.page_bytes,
         kv_bytes);
  plan.pages = std::min(fits, sequences * wanted);
  plan.context = std::min(plan.context, plan.pages * models::kPageTokens);
  return plan;
}

}  // namespace lowp::server
