#include "lowp/eval/calibrate.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/eval/encode.h"

namespace lowp::eval {
namespace {

// Adds up what the taps of a model see. Neighbouring Linears that read the same memory share their statistics.
class Collector {
 public:
  explicit Collector(const std::set<std::string>& grams) : grams_(grams) {}

  void see(const std::string& module, std::span<const float> input, std::int64_t k) {
    if (input.data() != seen_.data() || input.size() != seen_.size()) added_ = nullptr;
    seen_ = input;
    if (!grams_.empty() && !grams_.contains(module)) return;
    std::shared_ptr<ops::InputStats>& stats = found_[module];
    if (!stats) stats = added_ ? added_ : std::make_shared<ops::InputStats>();
    if (stats == added_) return;
    stats->add(input, k, !grams_.empty());
    added_ = stats;
  }

  /// Between two batches: the memory holds other values from now on.
  void next() { seen_ = {}; }

  std::map<std::string, std::shared_ptr<const ops::InputStats>> result() const {
    return {found_.begin(), found_.end()};
  }

 private:
  const std::set<std::string>& grams_;
  std::map<std::string, std::shared_ptr<ops::InputStats>> found_;
  std::span<const float> seen_;             // the last input
  std::shared_ptr<ops::InputStats> added_;  // that it was added to, if any
};

}  // namespace

std::map<std::string, std::shared_ptr<const ops::InputStats>> input_stats(
    models::Model& model, const text::Tokenizer& tokenizer, const std::string& text, std::int64_t tokens,
    const std::set<std::string>& grams, const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::vector<std::int32_t> ids = encode(model, tokenizer, text, true);
  if (ids.empty()) fail(ErrorCode::bad_input, "the calibration text has no tokens");
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(tokens)));
  Collector collector(grams);
  model.set_tap([&](const std::string& module, std::span<const float> input, std::int64_t k, std::span<const float>,
                    std::int64_t) { collector.see(module, input, k); });
  const auto window = static_cast<std::size_t>(std::min<std::int64_t>(512, model.config().max_position_embeddings));
  for (std::size_t at = 0; at < ids.size(); at += window) {
    collector.next();
    models::Cache cache(model);
    const models::Chunk chunk{std::span(ids).subspan(at, std::min(window, ids.size() - at)), &cache};
    model.forward({&chunk, 1});
    if (progress) progress(std::min(at + window, ids.size()), ids.size());
  }
  model.set_tap(nullptr);
  return collector.result();
}

}  // namespace lowp::eval
