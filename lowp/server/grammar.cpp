#include "lowp/server/grammar.h"

#include <algorithm>
#include <set>
#include <stdexcept>

#include "lowp/server/api_error.h"

namespace lowp::server {
namespace {

constexpr std::size_t kMostStates = 200'000, kMostPlaces = 20'000, kMostFrames = 100'000, kMostThreads = 2'000;
constexpr int kMostDepth = 64;  // of rules within rules

}  // namespace

Grammar::State Grammar::add_state() {
  if (nodes_.size() >= kMostStates) throw bad_request("response_format: the schema is too large", "response_format");
  nodes_.emplace_back();
  return static_cast<State>(nodes_.size()) - 1;
}

void Grammar::add_bytes(State from, std::uint8_t low, std::uint8_t high, State to) {
  nodes_[static_cast<std::size_t>(from)].edges.push_back({low, high, to});
}

void Grammar::add_empty(State from, State to) { nodes_[static_cast<std::size_t>(from)].empty.push_back(to); }

void Grammar::add_call(State from, Rule rule, State to) {
  nodes_[static_cast<std::size_t>(from)].calls.emplace_back(rule, to);
}

Grammar::State Grammar::text(State from, std::string_view text) {
  for (const char c : text) from = bytes(from, static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c));
  return from;
}

Grammar::State Grammar::bytes(State from, std::uint8_t low, std::uint8_t high) {
  const State to = add_state();
  add_bytes(from, low, high, to);
  return to;
}

Grammar::State Grammar::call(State from, Rule rule) {
  const State to = add_state();
  add_call(from, rule, to);
  return to;
}

Grammar::State Grammar::join(const std::vector<State>& ends) {
  const State to = add_state();
  for (const State end : ends) add_empty(end, to);
  return to;
}

Matcher::Matcher(Grammar grammar) : grammar_(std::move(grammar)) {
  frames_.push_back({-1, grammar_.whole_.end, -1, 0});
  place_of({{grammar_.whole_.begin, 0}});
}

std::int32_t Matcher::frame(std::int32_t parent, Grammar::State end, Grammar::State resume) {
  const auto [at, added] = frame_ids_.try_emplace({parent, end, resume}, static_cast<std::int32_t>(frames_.size()));
  if (added) {
    if (frames_.size() > kMostFrames) throw std::length_error("the grammar has too many ways to nest");
    frames_.push_back({parent, end, resume, frames_[static_cast<std::size_t>(parent)].depth + 1});
  }
  return at->second;
}

// Everything that can be reached without reading a byte.
void Matcher::close(std::vector<Thread>& threads) {
  std::set<Thread> seen(threads.begin(), threads.end());
  for (std::size_t i = 0; i < threads.size(); ++i) {
    if (threads.size() > kMostThreads) throw std::length_error("the grammar has too many ways at once");
    const auto [state, top] = threads[i];
    const auto reach = [&](Thread next) {
      if (seen.insert(next).second) threads.push_back(next);
    };
    const Grammar::Node& node = grammar_.nodes_[static_cast<std::size_t>(state)];
    for (const Grammar::State next : node.empty) reach({next, top});
    const Frame here = frames_[static_cast<std::size_t>(top)];
    if (here.depth < kMostDepth)  // deeper is not allowed
      for (const auto& [rule, resume] : node.calls) reach({rule.begin, frame(top, rule.end, resume)});
    if (state == here.end && here.parent >= 0) reach({here.resume, here.parent});
  }
}

Matcher::Position Matcher::place_of(std::vector<Thread> threads) {
  close(threads);
  bool complete = false;
  for (const auto& [state, top] : threads) complete |= top == 0 && state == frames_[0].end;
  // Only those that can read a byte matter from here on.
  std::erase_if(threads,
                [&](const Thread& t) { return grammar_.nodes_[static_cast<std::size_t>(t.first)].edges.empty(); });
  if (threads.empty() && !complete) return kDead;
  std::sort(threads.begin(), threads.end());
  if (complete) threads.emplace_back(-1, 0);  // a place of its own
  const auto [at, added] = place_ids_.try_emplace(threads, static_cast<Position>(places_.size()));
  if (added) {
    if (places_.size() >= kMostPlaces) throw std::length_error("the grammar has too many positions");
    if (complete) threads.pop_back();
    places_.push_back({.threads = std::move(threads), .complete = complete, .next = {}});
    places_.back().next.fill(kUnknown);
  }
  return at->second;
}

Matcher::Position Matcher::step(Position from, std::uint8_t byte) {
  const Position known = places_[static_cast<std::size_t>(from)].next[byte];
  if (known != kUnknown) return known;
  std::vector<Thread> reached;
  for (const auto& [state, top] : places_[static_cast<std::size_t>(from)].threads)
    for (const Grammar::Edge& edge : grammar_.nodes_[static_cast<std::size_t>(state)].edges)
      if (byte >= edge.low && byte <= edge.high) reached.emplace_back(edge.to, top);
  std::sort(reached.begin(), reached.end());
  reached.erase(std::unique(reached.begin(), reached.end()), reached.end());
  const Position to = reached.empty() ? kDead : place_of(std::move(reached));
  places_[static_cast<std::size_t>(from)].next[byte] = to;
  return to;
}

}  // namespace lowp::server
