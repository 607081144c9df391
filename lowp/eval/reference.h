// What a model predicts on a text, kept so that many variants of it can be compared with it at the cost of one pass
// each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lowp/eval/windows.h"
#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

/// Log probabilities (f32, vocab_size for each position) over disjoint windows of 512 tokens, or of the model's context
/// if that is less; the remainder of the text is dropped, and the last token of a window predicts nothing that is
/// scored.
class Reference {
 public:
  /// The first `tokens` of the text, at most. Throws Error(bad_input) for a text shorter than one window.
  Reference(models::Model& model, const text::Tokenizer& tokenizer, const std::string& text, std::int64_t tokens);

  const std::vector<Window>& windows() const { return windows_; }

  /// KL(reference || model) in nats at every scored position.
  std::vector<double> divergences(models::Model& model) const;

 private:
  std::vector<Window> windows_;
  std::vector<std::vector<float>> log_probabilities_;  // by window: [positions, vocab_size]
};

}  // namespace lowp::eval
