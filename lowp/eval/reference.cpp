#include "lowp/eval/reference.h"

#include <algorithm>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/eval/encode.h"
#include "lowp/eval/perplexity.h"

namespace lowp::eval {
namespace {

// Calls each(position, log probabilities) for the scored positions of a window, from several threads.
template <class Each>
void predict(const Window& window, models::Model& model, const Each& each) {
  models::Cache cache(model);
  const models::Chunk chunk{window.tokens, &cache};
  model.forward({&chunk, 1});
  const std::size_t positions = window.tokens.size() - 1;
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
  for (std::size_t at = 0; at < positions; at += kRowSlice) {
    std::vector<std::int64_t> rows(std::min(kRowSlice, positions - at));
    std::iota(rows.begin(), rows.end(), static_cast<std::int64_t>(at));
    std::vector<float> logits = model.logits(rows);
    parallel_for(static_cast<std::int64_t>(rows.size()), 8, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        const auto row = std::span(logits).subspan(i * vocab, vocab);
        log_softmax(row);
        each(at + i, row);
      }
    });
  }
}

}  // namespace

Reference::Reference(models::Model& model, const text::Tokenizer& tokenizer, const std::string& text,
                     std::int64_t tokens) {
  std::vector<std::int32_t> ids = encode(model, tokenizer, text, true);
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(tokens)));
  const std::int64_t context = std::min<std::int64_t>(512, model.config().max_position_embeddings);
  windows_ = disjoint_windows(ids, context);
  if (windows_.empty())
    fail(ErrorCode::bad_input, "the text has {} tokens, fewer than one window of {}", ids.size(), context);
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
  for (const Window& window : windows_) {
    std::vector<float>& kept = log_probabilities_.emplace_back((window.tokens.size() - 1) * vocab);
    predict(window, model, [&](std::size_t position, std::span<const float> row) {
      std::copy(row.begin(), row.end(), kept.begin() + static_cast<std::ptrdiff_t>(position * vocab));
    });
  }
}

std::vector<double> Reference::divergences(models::Model& model) const {
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
  std::vector<double> result;
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    const std::size_t before = result.size();
    result.resize(before + windows_[w].tokens.size() - 1);
    predict(windows_[w], model, [&](std::size_t position, std::span<const float> row) {
      result[before + position] = divergence(std::span(log_probabilities_[w]).subspan(position * vocab, vocab), row);
    });
  }
  return result;
}

}  // namespace lowp::eval
