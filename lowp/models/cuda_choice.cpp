#include "lowp/models/cuda_choice.h"

#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/sample.h"
#include "lowp/models/model.h"

namespace lowp::models {
namespace {

namespace cuda = kernels::cuda;

static_assert(cuda::ScoreTask::kMostTop == Model::kMostScored);

constexpr std::int64_t kChangedRows = 32;  // of edited logits in device memory at a time
constexpr double kCoolest = 1e-30, kHottest = 1e30;

// Arrays one behind the other, each at a multiple of 16 bytes.
class Layout {
 public:
  template <typename T>
  std::size_t take(std::size_t count) {
    const std::size_t at = bytes_;
    bytes_ += round_up<std::size_t>(count * sizeof(T), 16);
    return at;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

}  // namespace

CudaChoice::CudaChoice(std::int64_t vocab)
    : vocab_(vocab),
      argmax_(static_cast<std::size_t>(cuda::argmax_workspace(kMostRows, vocab))),
      tokens_(kMostRows * sizeof(std::int32_t)),
      host_tokens_(tokens_.size()) {
  const cuda::Stream stream;
  cuda::fill(argmax_.as<>(), 0, argmax_.size(), stream.handle());
  stream.synchronize();
}

void CudaChoice::reserve(std::size_t bytes) {
  if (bytes <= host_.size()) return;
  bytes = round_up<std::size_t>(bytes + bytes / 2, 4096);
  device_ = {};
  device_ = cuda::Memory(bytes);
  host_ = cuda::HostMemory(bytes);
}

void CudaChoice::likeliest(const void* logits, std::int64_t rows, std::int64_t limit, cuda::StreamHandle stream) {
  cuda::argmax({.logits = logits,
                .rows = rows,
                .vocab = vocab_,
                .limit = limit,
                .token = tokens_.as<std::int32_t>(),
                .workspace = argmax_.as<>()},
               stream);
}

// Of the choices `which`, at most kChangedRows of which change logits.
void CudaChoice::draw(const void* logits, std::span<const std::int32_t> rows, std::span<const TokenChoice> choices,
                      std::span<const std::size_t> which, std::int64_t limit, cuda::StreamHandle stream) {
  const auto words = static_cast<std::size_t>(ceil_div<std::int64_t>(limit, 32));
  std::size_t edits = 0, masks = 0;
  for (const std::size_t i : which) {
    edits += choices[i].edits.size();
    masks += choices[i].allowed.empty() ? 0 : 1;
  }
  Layout layout;
  const std::size_t draws_at = layout.take<cuda::Draw>(which.size()), edits_at = layout.take<kernels::LogitEdit>(edits),
                    allowed_at = layout.take<std::uint32_t>(masks * words);
  reserve(layout.bytes());
  auto* const draws = reinterpret_cast<cuda::Draw*>(host_.as<std::byte>() + draws_at);
  auto* const all_edits = reinterpret_cast<kernels::LogitEdit*>(host_.as<std::byte>() + edits_at);
  auto* const all_allowed = reinterpret_cast<std::uint32_t*>(host_.as<std::byte>() + allowed_at);
  std::int32_t changed = 0;
  edits = masks = 0;
  for (std::size_t k = 0; k < which.size(); ++k) {
    const TokenChoice& c = choices[which[k]];
    cuda::Draw d{
        .uniform = c.uniform,
        .top_p = c.top_p,
        .min_p = static_cast<float>(c.min_p),
        .temperature = c.temperature == 0 ? 0.0f : static_cast<float>(std::clamp(c.temperature, kCoolest, kHottest)),
        .top_k = static_cast<std::int32_t>(std::clamp<std::int64_t>(c.top_k, 0, limit)),
        .row = rows[which[k]],
        .edits = static_cast<std::int32_t>(edits)};
    std::copy(c.edits.begin(), c.edits.end(), all_edits + edits);
    edits += c.edits.size();
    d.edits_end = static_cast<std::int32_t>(edits);
    if (!c.allowed.empty()) {
      d.allowed = static_cast<std::int32_t>(masks * words);
      auto* const to = all_allowed + masks++ * words;
      std::fill(std::copy_n(c.allowed.begin(), std::min(words, c.allowed.size()), to), to + words, 0u);
    }
    if (!c.edits.empty() || !c.allowed.empty()) d.changed = changed++;
    draws[k] = d;
  }
  LOWP_CHECK(changed <= kChangedRows, "{} rows change", changed);
  if (changed && changed_.size() == 0) changed_ = cuda::Memory(static_cast<std::size_t>(kChangedRows * vocab_) * 4);
  cuda::copy(device_.as<>(), host_.as<void>(), layout.bytes(), stream);
  auto* const on_device = device_.as<std::byte>();
  cuda::sample({.logits = logits,
                .vocab = vocab_,
                .limit = limit,
                .draws = reinterpret_cast<cuda::Draw*>(on_device + draws_at),
                .count = static_cast<std::int64_t>(which.size()),
                .edits = reinterpret_cast<kernels::LogitEdit*>(on_device + edits_at),
                .allowed = reinterpret_cast<std::uint32_t*>(on_device + allowed_at),
                .changed = changed_.as<float>(),
                .token = tokens_.as<std::int32_t>()},
               stream);
}

std::vector<std::int32_t> CudaChoice::choose(const void* logits, std::span<const std::int32_t> rows,
                                             std::span<const TokenChoice> choices, std::int64_t limit,
                                             const cuda::Stream& stream) {
  LOWP_CHECK(static_cast<std::int64_t>(choices.size()) <= kMostRows, "{} choices", choices.size());
  std::vector<std::int32_t> ids(choices.size(), -1);
  const auto* const found = host_tokens_.as<const std::int32_t>();
  const auto fetch = [&](std::int64_t count) {
    cuda::copy(host_tokens_.as<void>(), tokens_.as<>(), static_cast<std::size_t>(count) * sizeof(std::int32_t),
               stream.handle());
    stream.synchronize();
  };
  std::int64_t plain = 0;  // rows up to the last that is likeliest
  for (std::size_t i = 0; i < choices.size(); ++i)
    if (choices[i].plain()) plain = std::max<std::int64_t>(plain, rows[i] + 1);
  if (plain) {
    likeliest(logits, plain, limit, stream.handle());
    fetch(plain);
    for (std::size_t i = 0; i < choices.size(); ++i)
      if (choices[i].plain()) ids[i] = found[static_cast<std::size_t>(rows[i])];
  }
  std::vector<std::size_t> which;
  std::int64_t changed = 0;
  for (std::size_t i = 0; i <= choices.size(); ++i) {
    const bool end = i == choices.size(), changes = !end && !(choices[i].edits.empty() && choices[i].allowed.empty());
    if (!which.empty() && (end || (changes && changed == kChangedRows))) {
      draw(logits, rows, choices, which, limit, stream.handle());
      fetch(static_cast<std::int64_t>(which.size()));
      for (std::size_t k = 0; k < which.size(); ++k) ids[which[k]] = found[k];
      which.clear();
      changed = 0;
    }
    if (end || choices[i].plain()) continue;
    which.push_back(i);
    changed += changes;
  }
  return ids;
}

std::vector<TokenScore> CudaChoice::score(const void* logits, std::span<const std::int32_t> rows,
                                          std::span<const TokenQuestion> questions, std::int64_t limit,
                                          const cuda::Stream& stream) {
  const std::size_t count = questions.size();
  std::size_t listed = 0;
  for (const TokenQuestion& q : questions) listed = std::max(listed, static_cast<std::size_t>(q.top));
  LOWP_CHECK(static_cast<std::int64_t>(count) <= kMostRows && listed <= cuda::ScoreTask::kMostTop,
             "{} scores with {} ids", count, listed);
  Layout layout;
  const std::size_t row_at = layout.take<std::int32_t>(count), token_at = layout.take<std::int32_t>(count),
                    top_at = layout.take<std::int32_t>(count), asked = layout.bytes(),
                    logprob_at = layout.take<float>(count), above_at = layout.take<std::int32_t>(count),
                    ids_at = layout.take<std::int32_t>(count * listed), theirs_at = layout.take<float>(count * listed);
  reserve(layout.bytes());
  auto* const here = host_.as<std::byte>();
  auto* const there = device_.as<std::byte>();
  const auto ints = [](std::byte* base, std::size_t at) { return reinterpret_cast<std::int32_t*>(base + at); };
  const auto floats = [](std::byte* base, std::size_t at) { return reinterpret_cast<float*>(base + at); };
  for (std::size_t i = 0; i < count; ++i) {
    LOWP_CHECK(questions[i].token >= 0 && questions[i].token < vocab_, "the score of token {}", questions[i].token);
    ints(here, row_at)[i] = rows[i];
    ints(here, token_at)[i] = questions[i].token;
    ints(here, top_at)[i] = questions[i].top;
  }
  cuda::copy(there, here, asked, stream.handle());
  cuda::score({.logits = logits,
               .vocab = vocab_,
               .limit = limit,
               .row = ints(there, row_at),
               .token = ints(there, token_at),
               .top = ints(there, top_at),
               .count = static_cast<std::int64_t>(count),
               .listed = static_cast<std::int64_t>(listed),
               .logprob = floats(there, logprob_at),
               .above = ints(there, above_at),
               .top_token = ints(there, ids_at),
               .top_logprob = floats(there, theirs_at)},
              stream.handle());
  cuda::copy(here + asked, there + asked, layout.bytes() - asked, stream.handle());
  stream.synchronize();
  std::vector<TokenScore> scores(count);
  for (std::size_t i = 0; i < count; ++i) {
    TokenScore& s = scores[i];
    s.token = questions[i].token;
    s.logprob = floats(here, logprob_at)[i];
    s.rank = ints(here, above_at)[i] + 1;
    for (std::size_t k = i * listed; k < i * listed + static_cast<std::size_t>(questions[i].top); ++k)
      if (const std::int32_t id = ints(here, ids_at)[k]; id >= 0) s.top.emplace_back(id, floats(here, theirs_at)[k]);
  }
  return scores;
}

}  // namespace lowp::models
