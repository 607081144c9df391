// A grammar over bytes, and what may come next in it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lowp::server {

/// A recursive transition network: states with edges that read a byte, read nothing, or call another part of the
/// network and go on where it ends. Built once, then only read.
class Grammar {
 public:
  using State = std::int32_t;

  /// Throws ApiError 400 once there are more states than a request may have.
  State add_state();
  void add_bytes(State from, std::uint8_t low, std::uint8_t high, State to);
  void add_empty(State from, State to);
  /// From `from`, everything between `rule.begin` and `rule.end`, then `to`.
  struct Rule {
    State begin = -1, end = -1;
  };
  void add_call(State from, Rule rule, State to);

  // ---- shorthands: from a state over something to a new one
  State text(State from, std::string_view text);
  State bytes(State from, std::uint8_t low, std::uint8_t high);
  State call(State from, Rule rule);
  /// One of several ways: a state that all of `ends` lead to.
  State join(const std::vector<State>& ends);
  Rule rule() { return {add_state(), add_state()}; }

  void set_start(Rule whole) { whole_ = whole; }

 private:
  friend class Matcher;
  struct Edge {
    std::uint8_t low, high;
    State to;
  };
  struct Node {
    std::vector<Edge> edges = {};
    std::vector<State> empty = {};
    std::vector<std::pair<Rule, State>> calls = {};
  };
  std::vector<Node> nodes_;
  Rule whole_;
};

/// Walks a grammar. What was found once is remembered: a position is a number, and a step from it is mostly a look-up.
/// Not for several threads at once.
class Matcher {
 public:
  using Position = std::int32_t;
  static constexpr Position kDead = -1;

  explicit Matcher(Grammar grammar);

  Position start() const { return 0; }
  /// Rules within rules end at a depth of 64. Throws std::length_error beyond the limit of remembered positions.
  Position step(Position from, std::uint8_t byte);
  /// Whether the text may end here.
  bool complete(Position at) const { return places_[static_cast<std::size_t>(at)].complete; }

 private:
  // A state of the grammar and what is to be done when its rule ends: an index of frames_.
  using Thread = std::pair<Grammar::State, std::int32_t>;
  struct Place {
    std::vector<Thread> threads;
    bool complete = false;
    std::array<Position, 256> next;  // kUnknown: not asked yet
  };
  static constexpr Position kUnknown = -2;

  Position place_of(std::vector<Thread> threads);
  void close(std::vector<Thread>& threads);
  std::int32_t frame(std::int32_t parent, Grammar::State end, Grammar::State resume);

  struct Frame {
    std::int32_t parent;
    Grammar::State end, resume;
    int depth;
  };
  const Grammar grammar_;
  std::vector<Frame> frames_;
  std::map<std::array<std::int32_t, 3>, std::int32_t> frame_ids_;
  std::vector<Place> places_;
  std::map<std::vector<Thread>, Position> place_ids_;
};

}  // namespace lowp::server
