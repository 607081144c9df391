#include "lowp/engine/prefix_cache.h"

#include "lowp/base/error.h"

namespace lowp::engine {

using models::kPageTokens;

struct PrefixCache::Node {
  Node* parent = nullptr;
  models::KvPage page = {};
  std::map<Block, std::unique_ptr<Node>> children = {};
  std::map<Block, std::unique_ptr<Node>>::iterator place = {};  // in the parent's children
  std::size_t users = 0;
  std::uint64_t last_use = 0;
};

PrefixCache::PrefixCache() : root_(std::make_unique<Node>()) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Path& PrefixCache::Path::operator=(Path&& other) noexcept {
  if (this == &other) return *this;
  release();
  cache_ = other.cache_;
  nodes_ = std::exchange(other.nodes_, {});
  return *this;
}

void PrefixCache::Path::release() {
  for (; !nodes_.empty(); nodes_.pop_back()) cache_->release(*nodes_.back());
}

// What a node is found by below its parent: its tokens, and before the first of a sequence its salt.
PrefixCache::Block PrefixCache::block(std::string_view salt, std::span<const std::int32_t> tokens,
                                      std::size_t page) const {
  const auto part = tokens.subspan(page * static_cast<std::size_t>(kPageTokens), kPageTokens);
  Block block(part.begin(), part.end());
  if (page == 0) block.insert(block.end(), salt.begin(), salt.end());
  return block;
}

void PrefixCache::use(Node& node) {
  if (node.users++ > 0) return;
  --unused_;
  leaves_.erase({node.last_use, &node});
}

void PrefixCache::release(Node& node) {
  if (--node.users > 0) return;
  ++unused_;
  node.last_use = ++clock_;
  if (node.children.empty()) leaves_.emplace(node.last_use, &node);
}

PrefixCache::Path PrefixCache::find(std::string_view salt, std::span<const std::int32_t> tokens, std::size_t most,
                                    models::Cache& cache) {
  Path path;
  path.cache_ = this;
  Node* node = root_.get();
  for (std::size_t page = 0; page < most; ++page) {
    const auto next = node->children.find(block(salt, tokens, page));
    if (next == node->children.end()) break;
    node = next->second.get();
    use(*node);
    path.nodes_.push_back(node);
    cache.adopt(node->page);
  }
  return path;
}

void PrefixCache::extend(Path& path, std::string_view salt, std::span<const std::int32_t> tokens,
                         models::Cache& cache) {
  path.cache_ = this;
  const auto full = static_cast<std::size_t>(cache.length() / kPageTokens);
  for (std::size_t page = path.pages(); page < full; ++page) {
    Node* parent = path.nodes_.empty() ? root_.get() : path.nodes_.back();
    const auto [place, added] = parent->children.try_emplace(block(salt, tokens, page));
    if (added) {
      place->second = std::make_unique<Node>(Node{.parent = parent, .page = cache.pages()[page], .place = place});
      ++unused_;
    } else {
      cache.replace(page, place->second->page);
    }
    use(*place->second);
    path.nodes_.push_back(place->second.get());
  }
}

void PrefixCache::evict(std::size_t pages) {
  for (; pages > 0 && !leaves_.empty(); --pages) {
    Node* node = leaves_.begin()->second;
    leaves_.erase(leaves_.begin());
    Node* parent = node->parent;
    parent->children.erase(node->place);
    --unused_;
    if (parent != root_.get() && parent->users == 0 && parent->children.empty())
      leaves_.emplace(parent->last_use, parent);
  }
}

}  // namespace lowp::engine
