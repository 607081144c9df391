// How a text is cut into windows, and which of its tokens each window scores. Pure arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lowp::eval {

enum class Method {
  disjoint,  // windows of `context` tokens, remainder dropped, tokens 1..n-1 scored (GPTQ, AWQ)
  half,      // the same windows, only the second half scored, BOS over the first token (llama.cpp)
  rolling,   // every token scored once, with as much context as fits (lm-eval)
};

/// One forward pass: `tokens` go in; token i of them is scored by the prediction at i - 1 for i in [first,
/// tokens.size()), and `last`, if there is one, by the prediction at the end.
struct Window {
  std::vector<std::int32_t> tokens;
  std::size_t first = 1;
  std::optional<std::int32_t> last;
};

/// disjoint: `ids` with BOS at its very start if the tokenizer adds one. half: `bos` overwrites the first token of each
/// window if set.
std::vector<Window> disjoint_windows(std::span<const std::int32_t> ids, std::int64_t context);
std::vector<Window> half_windows(std::span<const std::int32_t> ids, std::int64_t context,
                                 std::optional<std::int32_t> bos);
/// rolling: the first window is conditioned on `prefix` alone.
std::vector<Window> rolling_windows(std::span<const std::int32_t> ids, std::int64_t context, std::int32_t prefix);

}  // namespace lowp::eval
