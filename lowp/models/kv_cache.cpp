#include "lowp/models/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/models/model.h"

namespace lowp::models {

namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

KvPool::KvPool(const ops::KvLayout& layout, std::int64_t layers) : layout_(layout), layers_(layers) {}

KvPool::~KvPool() {
  LOWP_CHECK(used_ == 0, "{} pages are in use", used_);
  for (std::byte* page : free_) ::operator delete(page, kAlignment);
}

std::size_t KvPool::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

KvPage KvPool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) free_.push_back(static_cast<std::byte*>(::operator new(page_bytes(), kAlignment)));
  std::byte* page = free_.back();
  free_.pop_back();
  ++used_;
  std::memset(page, 0, page_bytes());
  return KvPage(page, [pool = shared_from_this()](std::byte* p) { pool->give_back(p); });
}

void KvPool::give_back(std::byte* page) {
  const std::lock_guard lock(mutex_);
  free_.push_back(page);
  --used_;
}

Cache::Cache(const Model& model) : pool_(model.kv_pool()) {}

void Cache::truncate(std::int64_t length) {
  LOWP_CHECK(length >= 0 && length <= length_, "truncating a cache of {} to {}", length_, length);
  length_ = length;
  pages_.resize(std::min(pages_.size(), static_cast<std::size_t>(ceil_div(length, kPageTokens))));
}

void Cache::adopt(KvPage page) {
  LOWP_CHECK(length_ == static_cast<std::int64_t>(pages_.size()) * kPageTokens, "adopting a page at {}", length_);
  pages_.push_back(std::move(page));
  length_ += kPageTokens;
}

void Cache::reserve(std::int64_t length) {
  const auto count = static_cast<std::size_t>(ceil_div(length, kPageTokens));
  pages_.reserve(count);
  if (length_ % kPageTokens != 0 && pages_.back().use_count() > 1) {  // truncated into a page that others have, too
    KvPage copy = pool_->take();
    std::memcpy(copy.get(), pages_.back().get(), pool_->page_bytes());
    pages_.back() = std::move(copy);
  }
  while (pages_.size() < count) pages_.push_back(pool_->take());
}

void Cache::layer_pages(std::int64_t layer, std::vector<const std::byte*>& pages) const {
  const std::size_t offset = static_cast<std::size_t>(layer) * pool_->layout().page_bytes();
  for (const KvPage& page : pages_) pages.push_back(page.get() + offset);
}

std::byte* Cache::page(std::int64_t layer, std::int64_t position) const {
  return pages_[static_cast<std::size_t>(position / kPageTokens)].get() +
         static_cast<std::size_t>(layer) * pool_->layout().page_bytes();
}

}  // namespace lowp::models
