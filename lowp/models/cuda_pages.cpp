#include "lowp/models/cuda_pages.h"

#include <algorithm>

#include "lowp/base/error.h"

namespace lowp::models {

std::vector<std::byte*> CudaPages::allocate(std::size_t bytes) {
  kernels::cuda::use_device(device_.cuda);
  // An eighth more than there are, so that many pages take few allocations.
  const std::int64_t room = most_ - count_;
  if (room <= 0)
    fail(ErrorCode::io, "{}: all {} pages of {} tokens for keys and values are in use", device_.name(), count_,
         kPageTokens);
  const std::int64_t more = std::clamp<std::int64_t>(count_ / 8, std::min<std::int64_t>(8, room), room);
  try {
    blocks_.emplace_back(static_cast<std::size_t>(more) * bytes);
  } catch (const Error& e) {
    fail(ErrorCode::io, "{}: no room for more keys and values than {} pages of {} tokens, of {} that were to fit: {}",
         device_.name(), count_, kPageTokens, most_, e.what());
  }
  count_ += more;
  std::vector<std::byte*> pages;
  for (std::int64_t i = more; i-- > 0;)
    pages.push_back(blocks_.back().as<std::byte>() + static_cast<std::size_t>(i) * bytes);
  return pages;
}

void CudaPages::clear(std::byte* page, std::size_t bytes) {
  kernels::cuda::use_device(device_.cuda);
  kernels::cuda::fill(page, 0, bytes, stream_->handle());
}

void CudaPages::copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  kernels::cuda::use_device(device_.cuda);
  kernels::cuda::copy(to, from, bytes, stream_->handle());
}

}  // namespace lowp::models
