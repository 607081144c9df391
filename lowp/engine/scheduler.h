// Which sequences run in a step, and how many of their tokens: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lowp::engine {

/// What one step may do.
struct Budget {
  std::int64_t tokens = 512;    // run through the model, prompt and generated together
  std::int64_t sequences = 64;  // that have begun and not finished
};

/// A sequence as the scheduler sees it.
struct Progress {
  std::int64_t pending = 0;       // known tokens that the model has not seen: 1 while generating
  bool begun = false;             // has seen some
  bool generating = false;        // the whole prompt has been seen
  std::uint64_t waits_since = 0;  // the step that ran it last, or that of its arrival
};

struct Slice {
  std::size_t sequence = 0;  // index into the sequences
  std::int64_t tokens = 0;
};

/// `sequences` in the order of their arrival. Every generating sequence and the first of those with prompt left to see
/// get a token, those that wait longest first; what is left of the budget goes to prompts in the order of arrival, and
/// prompts are cut where it ends. So prompts never stop the generating ones, nor these the prompts, however small the
/// budget.
std::vector<Slice> schedule(std::span<const Progress> sequences, const Budget& budget);

}  // namespace lowp::engine
