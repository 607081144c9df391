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

/// Memory for pages. What is given back is lent again.
class KvPool : public std::enable_shared_from_this<KvPool> {
 public:
  KvPool(const ops::KvLayout& layout, std::int64_t layers);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  const ops::KvLayout& layout() const { return layout_; }
  std::int64_t layers() const { return layers_; }
  std::size_t page_bytes() const { return static_cast<std::size_t>(layers_) * layout_.page_bytes(); }
  /// Pages lent out.
  std::size_t used() const;

  /// A page of zeros: what attention reads behind the last token must be finite. Throws std::bad_alloc.
  KvPage take();

 private:
  void give_back(std::byte* page);
  const ops::KvLayout layout_;
  const std::int64_t layers_;
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

 private:
  friend class Model;
  /// Makes room for positions up to `length`, its own from length() on. Throws std::bad_alloc.
  void reserve(std::int64_t length);
  /// The parts of the pages that belong to a layer, appended.
  void layer_pages(std::int64_t layer, std::vector<const std::byte*>& pages) const;
  /// The page of a position in a layer.
  std::byte* page(std::int64_t layer, std::int64_t position) const;

  std::shared_ptr<KvPool> pool_;
  std::int64_t length_ = 0;
  std::vector<KvPage> pages_;
};

}  // namespace lowp::models
