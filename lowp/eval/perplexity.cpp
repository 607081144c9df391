#include "lowp/eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/base/threads.h"
#include "lowp/eval/encode.h"
#include "lowp/eval/wikitext.h"

namespace lowp::eval {
namespace {

struct Position {
  double nll = 0, kl = 0, dp = 0;
  bool same_top = false;
};

double mean_of(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double stderr_of(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values), n = static_cast<double>(values.size());
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / (n - 1) / n);
}

Divergence summarise(const std::vector<Position>& positions) {
  std::vector<double> kl, dp;
  double same = 0, squares = 0;
  for (const Position& p : positions) {
    kl.push_back(p.kl);
    dp.push_back(p.dp);
    same += p.same_top;
    squares += p.dp * p.dp;
  }
  const double n = static_cast<double>(positions.size());
  Divergence d;
  d.mean = mean_of(kl);
  d.stderr_ = stderr_of(kl);
  d.median = quantile(kl, 0.5);
  d.p99 = quantile(kl, 0.99);
  d.max = *std::max_element(kl.begin(), kl.end());
  d.top1 = same / n;
  d.top1_stderr = n > 1 ? std::sqrt(d.top1 * (1 - d.top1) / (n - 1)) : 0;
  d.dp_mean = mean_of(dp);
  d.dp_rms = std::sqrt(squares / n);
  return d;
}

Position compare(std::span<float> model, std::span<float> other, std::int32_t token) {
  Position p;
  log_softmax(model);
  p.nll = -static_cast<double>(model[static_cast<std::size_t>(token)]);
  if (other.empty()) return p;
  log_softmax(other);
  p.kl = divergence(other, model);
  p.dp = std::exp(-p.nll) - std::exp(static_cast<double>(other[static_cast<std::size_t>(token)]));
  p.same_top = std::max_element(model.begin(), model.end()) - model.begin() ==
               std::max_element(other.begin(), other.end()) - other.begin();
  return p;
}

// Sums of squares of a module's output and of its error.
class LayerMeter {
 public:
  LayerMeter(models::Model& model, models::Model& other) : model_(model), other_(other) {
    other_.set_tap([this](const std::string& module, std::span<const float> x, std::int64_t k, std::span<const float> y,
                          std::int64_t n) {
      const ops::Linear* linear = model_.find_linear(module);
      if (!linear || linear->k() != k || linear->n() != n) return;
      std::vector<float> mine(y.size());
      linear->run(x, static_cast<std::int64_t>(x.size()) / k, mine);
      auto [at, fresh] = sums_.try_emplace(module);
      if (fresh) order_.push_back(module);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double value = y[i], error = value - static_cast<double>(mine[i]);
        at->second.first += value * value;
        at->second.second += error * error;
      }
    });
  }
  ~LayerMeter() { other_.set_tap(nullptr); }

  std::vector<LayerSqnr> result() const {
    std::vector<LayerSqnr> rows;
    for (const std::string& module : order_) {
      const auto [signal, noise] = sums_.at(module);
      rows.push_back({module, noise == 0 ? INFINITY : 10 * std::log10(signal / noise)});
    }
    return rows;
  }

 private:
  models::Model& model_;
  models::Model& other_;
  std::map<std::string, std::pair<double, double>> sums_;
  std::vector<std::string> order_;
};

// The scored positions of one window, appended.
void score(const Window& window, models::Model& model, models::Model* other, std::vector<Position>& positions) {
  const auto run = [&](models::Model& m) {
    models::Cache cache(m);
    const models::Chunk chunk{window.tokens, &cache};
    m.forward({&chunk, 1});
  };
  run(model);
  if (other) run(*other);
  std::vector<std::int32_t> targets(window.tokens.begin() + static_cast<std::ptrdiff_t>(window.first),
                                    window.tokens.end());
  if (window.last) targets.push_back(*window.last);
  const std::size_t begin = window.first - 1;  // row that predicts the first target
  for (std::size_t at = 0; at < targets.size(); at += kRowSlice) {
    const std::size_t count = std::min(kRowSlice, targets.size() - at);
    std::vector<std::int64_t> rows(count);
    std::iota(rows.begin(), rows.end(), static_cast<std::int64_t>(begin + at));
    std::vector<float> logits = model.logits(rows);
    std::vector<float> others = other ? other->logits(rows) : std::vector<float>();
    const std::size_t vocab = logits.size() / count;
    const std::size_t first = positions.size();
    positions.resize(first + count);
    parallel_for(static_cast<std::int64_t>(count), 8, [&](std::int64_t from, std::int64_t to) {
      for (auto i = static_cast<std::size_t>(from); i < static_cast<std::size_t>(to); ++i)
        positions[first + i] =
            compare(std::span(logits).subspan(i * vocab, vocab),
                    other ? std::span(others).subspan(i * vocab, vocab) : std::span<float>(), targets[at + i]);
    });
  }
}

// Windows of all documents, and the words and bytes that rolling perplexities are normalised by.
struct Plan {
  std::vector<Window> windows;
  std::uint64_t tokens = 0;
  std::int64_t words = 0;
  std::uint64_t bytes = 0;
};

Plan make_plan(const models::Model& model, const text::Tokenizer& tokenizer, const std::string& text,
               const PerplexityOptions& options, std::int64_t context) {
  Plan plan;
  if (options.method != Method::rolling) {
    std::vector<std::int32_t> ids = encode(model, tokenizer, text, true);
    if (options.tokens > 0) ids.resize(std::min(ids.size(), static_cast<std::size_t>(options.tokens)));
    plan.tokens = ids.size();
    const auto bos = tokenizer.adds_bos() ? std::optional(tokenizer.prefix().front()) : std::nullopt;
    plan.windows =
        options.method == Method::disjoint ? disjoint_windows(ids, context) : half_windows(ids, context, bos);
    if (plan.windows.empty())
      fail(ErrorCode::bad_input, "the text has {} tokens, fewer than one window of {}", ids.size(), context);
    return plan;
  }
  const std::int32_t prefix = prefix_token(model);
  for (const std::string& page :
       options.wikitext_documents ? wikitext_documents(text) : std::vector<std::string>{text}) {
    const std::vector<std::int32_t> ids =
        encode(model, tokenizer, options.wikitext_documents ? wikitext_detokenize(page) : page, false);
    plan.tokens += ids.size();
    plan.words += word_count(page);
    plan.bytes += page.size();
    for (Window& window : rolling_windows(ids, context, prefix)) plan.windows.push_back(std::move(window));
  }
  if (plan.windows.empty()) fail(ErrorCode::bad_input, "the text has no tokens");
  return plan;
}

std::int64_t checked_context(const models::Model& model, const models::Model* other, const PerplexityOptions& options) {
  std::int64_t most = model.config().max_position_embeddings;
  if (other) most = std::min(most, other->config().max_position_embeddings);
  const std::int64_t context = options.context != 0                ? options.context
                               : options.method == Method::rolling ? most
                                                                   : std::min<std::int64_t>(512, most);
  const std::int64_t least = options.method == Method::rolling ? 1 : 2;
  if (context < least || context > most)
    fail(ErrorCode::usage, "context {}: expected {} to {}, what the model was made for", context, least, most);
  return context;
}

}  // namespace

void log_softmax(std::span<float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += static_cast<double>(std::exp(v - largest));
  const auto shift = static_cast<float>(static_cast<double>(largest) + std::log(sum));
  for (float& v : logits) v -= shift;
}

double divergence(std::span<const float> log_p, std::span<const float> log_q) {
  double kl = 0;
  for (std::size_t i = 0; i < log_p.size(); ++i)
    kl += std::exp(static_cast<double>(log_p[i])) * (static_cast<double>(log_p[i]) - static_cast<double>(log_q[i]));
  return std::max(kl, 0.0);  // rounding may leave it a hair below
}

PerplexityResult perplexity(models::Model& model, models::Model* other, bool layers, const text::Tokenizer& tokenizer,
                            const std::string& text, const PerplexityOptions& options) {
  if (other && other->config().vocab_size != model.config().vocab_size)
    fail(ErrorCode::usage, "the models' vocabularies differ: {} and {} tokens", model.config().vocab_size,
         other->config().vocab_size);
  PerplexityResult result;
  result.context = checked_context(model, other, options);
  const Plan plan = make_plan(model, tokenizer, text, options, result.context);
  std::optional<LayerMeter> meter;
  if (layers && other) meter.emplace(model, *other);
  std::vector<Position> positions;
  std::uint64_t done = 0;
  for (const Window& window : plan.windows) {
    score(window, model, other, positions);
    if (options.progress)
      options.progress(done += window.tokens.size(), plan.windows.size() * static_cast<std::uint64_t>(result.context));
  }
  std::vector<double> nll;
  for (const Position& p : positions) nll.push_back(p.nll);
  result.tokens = plan.tokens;
  result.scored = nll.size();
  result.nll = mean_of(nll);
  result.nll_stderr = stderr_of(nll);
  result.perplexity = std::exp(result.nll);
  if (options.method == Method::rolling) {
    const double total = result.nll * static_cast<double>(nll.size());
    result.word_perplexity = std::exp(total / static_cast<double>(plan.words));
    result.byte_perplexity = std::exp(total / static_cast<double>(plan.bytes));
    result.bits_per_byte = total / (static_cast<double>(plan.bytes) * std::log(2.0));
  }
  if (other) result.kl = summarise(positions);
  if (meter) result.layers = meter->result();
  return result;
}

}  // namespace lowp::eval
