// Pages of prompts and answers that were, for sequences that begin the same.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lowp/models/kv_cache.h"

namespace lowp::engine {

/// A tree of full pages by the tokens in them, compared exactly. What no sequence uses can be evicted, that which was
/// used longest ago first, and a page only after those that follow it.
class PrefixCache {
  struct Node;

 public:
  /// The pages that a sequence uses, in order; they stay while this lives. Must not outlive the cache.
  class Path {
   public:
    Path() = default;
    ~Path() { release(); }
    Path(Path&& other) noexcept : cache_(other.cache_), nodes_(std::move(other.nodes_)) { other.nodes_.clear(); }
    Path& operator=(Path&& other) noexcept;
    std::size_t pages() const { return nodes_.size(); }

   private:
    friend class PrefixCache;
    void release();
    PrefixCache* cache_ = nullptr;
    std::vector<Node*> nodes_;
  };

  PrefixCache();
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// The longest known beginning of `tokens`, at most `most` pages, into an empty cache. Sequences of different salts
  /// share nothing.
  Path find(std::string_view salt, std::span<const std::int32_t> tokens, std::size_t most, models::Cache& cache);
  /// Enters the full pages of a sequence beyond its path; where others were first, it takes their pages for its own.
  void extend(Path& path, std::string_view salt, std::span<const std::int32_t> tokens, models::Cache& cache);

  /// Pages that no sequence uses.
  std::size_t unused() const { return unused_; }
  /// Lets that many of them go, or all.
  void evict(std::size_t pages);

 private:
  using Block = std::vector<std::int32_t>;
  Block block(std::string_view salt, std::span<const std::int32_t> tokens, std::size_t page) const;
  void use(Node& node);
  void release(Node& node);

  std::unique_ptr<Node> root_;
  std::set<std::pair<std::uint64_t, Node*>> leaves_;  // that no sequence uses, by the time of their last use
  std::size_t unused_ = 0;
  std::uint64_t clock_ = 0;
};

}  // namespace lowp::engine
