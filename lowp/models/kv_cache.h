// Keys and values of sequences, in pages of ops::kPageTokens tokens that a pool lends out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "lowp/ops/attention.h"

namespace lowp::models {

inline constexpr std::int64_t kPageTokens = kernels::cpu::kPageTokens;

/// A page of a pool: its tokens' keys and values of all layers. Goes back to the pool with its last owner; what is full
/// may have several.
using KvPage = std::shared_ptr<std::byte>;

/// Where pages lie: the memory of a device.
class PageMemory {
 public:
  virtual ~PageMemory() = default;
  /// Memory of some pages more, of `bytes` each, which stays until this ends. Throws std::bad_alloc or Error where
  /// there is none.
  virtual std::vector<std::byte*> allocate(std::size_t bytes) = 0;
  virtual void clear(std::byte* page, std::size_t bytes) = 0;
  virtual void copy(std::byte* to, const std::byte* from, std::size_t bytes) = 0;
  /// Pages that there can be in all; 0: nobody knows.
  virtual std::int64_t most() const { return 0; }
};

/// Lends pages. What is given back is lent again.
class KvPool : public std::enable_shared_from_this<KvPool> {
 public:
  /// Pages of `layers` layers, each of which takes `layer_bytes` of a page; no memory: the host's.
  KvPool(std::size_t layer_bytes, std::int64_t layers, std::unique_ptr<PageMemory> memory = nullptr);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  std::size_t layer_bytes() const { return layer_bytes_; }
  std::size_t page_bytes() const { return static_cast<std::size_t>(layers_) * layer_bytes_; }
  /// Pages that there can be in all; 0: nobody knows.
  std::int64_t most() const { return memory_->most(); }
  /// Pages lent out.
  std::size_t used() const;

  /// A page of zeros: what attention reads behind the last token must be finite. Throws as PageMemory::allocate().
  KvPage take();
  /// A page that holds the same.
  KvPage copy(const KvPage& page);

 private:
  KvPage lend();
  void give_back(std::byte* page);
  const std::size_t layer_bytes_;
  const std::int64_t layers_;
  const std::unique_ptr<PageMemory> memory_;
  mutable std::mutex mutex_;
  std::vector<std::byte*> free_;
  std::size_t used_ = 0;
};

class Model;

/// Keys and values of one sequence; they fit only the model that they were made for, and may outlive it.
class Cache {
 public:
  explicit Cache(const Model& model);
  Cache(Cache&&) = default;
  Cache& operator=(Cache&&) = delete;

  std::int64_t length() const { return length_; }
  /// Forgets everything from position `length` on.
  void truncate(std::int64_t length);

  std::span<const KvPage> pages() const { return pages_; }
  /// Begins, empty so far, with full pages of another sequence of the same model.
  void adopt(KvPage page);
  /// Takes an equal page in place of its own.
  void replace(std::size_t index, KvPage page) { pages_[index] = std::move(page); }

  // For runners.
  const std::shared_ptr<KvPool>& pool() const { return pool_; }
  /// Makes room for positions up to `length`, its own from length() on. Throws as PageMemory::allocate().
  void reserve(std::int64_t length);
  /// Counts `tokens` more, whose keys and values are in the pages.
  void advance(std::int64_t tokens) { length_ += tokens; }
  /// The parts of the pages that belong to a layer, appended.
  void layer_pages(std::int64_t layer, std::vector<const std::byte*>& pages) const;
  /// The page of a position in a layer.
  std::byte* page(std::int64_t layer, std::int64_t position) const;

 private:
  std::shared_ptr<KvPool> pool_;
  std::int64_t length_ = 0;
  std::vector<KvPage> pages_;
};

}  // namespace lowp::models
