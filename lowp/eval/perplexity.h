// Negative log-likelihood of a text under a model, and how far its predictions are from another model's.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/eval/windows.h"
#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

struct PerplexityOptions {
  Method method = Method::disjoint;
  std::int64_t context = 0;         // tokens a window; 0 takes 512, or the model's whole context when rolling
  bool wikitext_documents = false;  // rolling: split at titles and detokenize; otherwise the text is one document
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // in tokens
  std::int64_t tokens = 0;  // not rolling: only the first so many tokens of the text; 0 takes all
};

/// KL(OTHER || MODEL) over scored positions, in nats; delta p is MODEL's probability of the right token minus OTHER's.
struct Divergence {
  double mean = 0, median = 0, p99 = 0, max = 0, stderr_ = 0;
  double top1 = 0, top1_stderr = 0;  // share of positions where both would choose the same token
  double dp_mean = 0, dp_rms = 0;
};

/// Output SQNR of a Linear of MODEL against OTHER's, fed by OTHER's input.
struct LayerSqnr {
  std::string module;
  double sqnr = 0;  // dB
};

struct PerplexityResult {
  std::int64_t context = 0;
  std::uint64_t tokens = 0, scored = 0;
  double nll = 0, nll_stderr = 0;  // mean over scored tokens, nats
  double perplexity = 0;
  std::optional<double> word_perplexity, byte_perplexity, bits_per_byte;  // rolling
  std::optional<Divergence> kl;
  std::vector<LayerSqnr> layers;
};

/// `other` (the reference, may be nullptr) sees the same windows in the same pass; `layers` also compares each Linear.
/// Throws Error(bad_input) for a text that gives no window, Error(usage) for a context beyond either model's.
PerplexityResult perplexity(models::Model& model, models::Model* other, bool layers, const text::Tokenizer& tokenizer,
                            const std::string& text, const PerplexityOptions& options);

/// Rows whose logits are held at a time: bounds memory with large vocabularies.
inline constexpr std::size_t kRowSlice = 128;

/// log softmax of one row of logits.
void log_softmax(std::span<float> logits);

/// KL(p || q) in nats of two rows of log probabilities.
double divergence(std::span<const float> log_p, std::span<const float> log_q);

}  // namespace lowp::eval
