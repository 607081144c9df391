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

class HostPages final : public PageMemory {
 public:
  ~HostPages() override {
    for (std::byte* page : pages_) ::operator delete(page, kAlignment);
  }
  std::vector<std::byte*> allocate(std::size_t bytes) override {
    pages_.reserve(pages_.size() + 1);
    pages_.push_back(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
    return {pages_.back()};
  }
  void clear(std::byte* page, std::size_t bytes) override { std::memset(page, 0, bytes); }
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  std::vector<std::byte*> pages_;
};

}  // namespace

KvPool::KvPool(std::size_t layer_bytes, std::int64_t layers, std::unique_ptr<PageMemory> memory)
    : layer_bytes_(layer_bytes), layers_(layers), memory_(memory ? std::move(memory) : std::make_unique<HostPages>()) {}

KvPool::~KvPool() { LOWP_CHECK(used_ == 0, "{} pages are in use", used_); }

std::size_t KvPool::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

KvPage KvPool::lend() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) free_ = memory_->allocate(page_bytes());
  std::byte* page = free_.back();
  free_.pop_back();
  ++used_;
  return KvPage(page, [pool = shared_from_this()](std::byte* p) { pool->give_back(p); });
}

KvPage KvPool::take() {
  KvPage page = lend();
  memory_->clear(page.get(), page_bytes());
  return page;
}

KvPage KvPool::copy(const KvPage& page) {
  KvPage made = lend();
  memory_->copy(made.get(), page.get(), page_bytes());
  return made;
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
  if (length_ % kPageTokens != 0 && pages_.back().use_count() > 1)  // truncated into a page that others have, too
    pages_.back() = pool_->copy(pages_.back());
  while (pages_.size() < count) pages_.push_back(pool_->take());
}

void Cache::layer_pages(std::int64_t layer, std::vector<const std::byte*>& pages) const {
  const std::size_t offset = static_cast<std::size_t>(layer) * pool_->layer_bytes();
  for (const KvPage& page : pages_) pages.push_back(page.get() + offset);
}

std::byte* Cache::page(std::int64_t layer, std::int64_t position) const {
  return pages_[static_cast<std::size_t>(position / kPageTokens)].get() +
         static_cast<std::size_t>(layer) * pool_->layer_bytes();
}

}  // namespace lowp::models
