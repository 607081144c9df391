// Which sequences run in a step, and how many of their tokens: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace lowp::engine {

/// What one step may do.
struct Budget {
  std::int64_t tokens = 512;    // run through the model, prompt and generated together
  std::int64_t sequences = 64;  // that have begun and not finished
  // Of prompts while others generate, whose next tokens wait for the whole step.
  std::int64_t prompt_tokens = std::numeric_limits<std::int64_t>::max();
};

/// Room for keys and values.
struct Memory {
  std::int64_t page_tokens = 1;
  std::int64_t free_pages = std::numeric_limits<std::int64_t>::max();
};

/// A sequence as the scheduler sees it.
struct Progress {
  std::int64_t pending = 0;       // known tokens that the model has not seen: 1 while generating
  bool begun = false;             // has its part of the memory
  bool generating = false;        // the whole prompt has been seen
  std::uint64_t waits_since = 0;  // the step that ran it last, or that of its arrival
  std::int64_t seen = 0;          // tokens in memory
  std::int64_t pages = 0;         // that it holds
};

struct Slice {
  std::size_t sequence = 0;  // index into the sequences
  std::int64_t tokens = 0;
};

struct Plan {
  std::vector<Slice> slices = {};
  /// Memory does not suffice for those that have begun: this one must give its pages back and begin anew later. Then
  /// there are no slices; ask again.
  std::optional<std::size_t> preempt = {};
};

/// `sequences` in the order of their arrival. Every generating sequence and the first of those with prompt left to see
/// get a token, those that wait longest first; what is left of the budget, or less beside those that generate, goes to
/// prompts in the order of arrival, and prompts are cut where it ends. So prompts never stop the generating ones, nor
/// these the prompts, however small the budget. A sequence begins only when its whole prompt and a page for each that
/// has begun fit the free memory, and none before an earlier one; if memory is full nevertheless, the one that came
/// last is preempted.
Plan schedule(std::span<const Progress> sequences, const Budget& budget, const Memory& memory = {});

}  // namespace lowp::engine
