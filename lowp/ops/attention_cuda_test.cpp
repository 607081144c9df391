// Attention on the GPU against sums in double, and against itself in other batches and pieces.
#include <algorithm>
#include <functional>
#include <numeric>

#include "lowp/kernels/cuda/attention.h"
#include "lowp/kernels/ref/attention_testing.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp::ops {
namespace {

using formats::Elem;
using kernels::cuda::AttentionTask;
using kernels::cuda::kPageTokens;
using kernels::cuda::KvPageLayout;

struct Heads {
  int query, kv, dim;
  int window = 0;
  bool sinks = false;
  bool causal = true;
};

// Numbers as a cache of a type holds them: rounded to codes and back.
struct Stored {
  std::vector<std::uint32_t> codes;
  float scale = 1;
};
Stored store(Elem type, std::span<const float> x) {
  Stored stored;
  if (type != Elem::bf16) {
    float amax = 0;
    for (const float v : x) amax = std::max(amax, std::fabs(v));
    stored.scale = amax / (type == Elem::int8 ? 127.0f : 448.0f);
  }
  for (const float v : x) stored.codes.push_back(formats::encode(type, stored.scale > 0 ? v / stored.scale : 0));
  return stored;
}

// One sequence with its keys and values, [tokens, kv_heads, dim], as the cache holds them.
struct Sequence {
  int past, rows;
  std::vector<float> keys, values;
  // The same as codes, decoded, and their scales: of keys, then of values, [KV head][tokens, dim] and [KV
  // head][tokens].
  std::vector<float> codes[2], scales[2];
  Bf16Values queries;  // [rows, heads, dim]
  std::vector<int> pages;
};

class CudaAttentionTest : public CudaTest {
 protected:
  // A pool of pages whose every byte is poisoned where no token is stored.
  void begin(Elem type, const Heads& h, const std::vector<std::pair<int, int>>& past_and_rows) {
    heads = h;
    layout = {type, h.kv, h.dim};
    sequences.clear();
    workspace = nullptr;
    sinks.clear();
    std::normal_distribution<float> sink(0, 3);
    for (int i = 0; i < h.query; ++i) sinks.push_back(sink(rng));
    int count = 0;
    for (const auto& [past, rows] : past_and_rows) count += ceil_div(past + rows, kPageTokens);
    std::vector<int> free(static_cast<std::size_t>(count));
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), rng);
    page_bytes = kLayerOffset + layout.bytes() + 128;
    pool.assign(static_cast<std::size_t>(page_bytes * count), 0xFF);
    for (const auto& [past, rows] : past_and_rows) {
      Sequence& s = sequences.emplace_back(Sequence{past, rows, {}, {}, {}, {}, {}, {}});
      for (int p = 0; p < ceil_div(past + rows, kPageTokens); ++p) {
        s.pages.push_back(free.back());
        free.pop_back();
      }
      s.queries = random(std::int64_t{rows} * h.query * h.dim);
      fill(s);
    }
    device_pool = upload(pool);
  }

  void fill(Sequence& s) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> x(static_cast<std::size_t>(layout.head_dim));
    const int tokens = s.past + s.rows;
    for (int side = 0; side < 2; ++side) {
      s.codes[side].resize(static_cast<std::size_t>(layout.kv_heads) * static_cast<std::size_t>(tokens) * x.size());
      s.scales[side].resize(static_cast<std::size_t>(layout.kv_heads * tokens));
    }
    for (int token = 0; token < tokens; ++token)
      for (int head = 0; head < layout.kv_heads; ++head)
        for (const bool keys : {true, false}) {
          for (float& v : x) v = from_bf16(to_bf16(normal(rng) * (token % 7 == 0 ? 3.0f : 1.0f)));
          if (change) change(s, token, keys, x);
          const Stored stored = store(layout.type, x);
          unsigned char* page =
              pool.data() + s.pages[static_cast<std::size_t>(token / kPageTokens)] * page_bytes + kLayerOffset;
          unsigned char* to = page + (keys ? layout.keys_at(head) : layout.values_at(head));
          for (int i = 0; i < layout.head_dim; ++i) {
            const std::uint32_t code = stored.codes[static_cast<std::size_t>(i)];
            std::memcpy(to + layout.offset(token % kPageTokens, i), &code,
                        static_cast<std::size_t>(layout.value_bytes()));
            const float decoded = formats::decode(layout.type, code);
            (keys ? s.keys : s.values).push_back(decoded * stored.scale);
            s.codes[!keys][static_cast<std::size_t>((head * tokens + token) * layout.head_dim + i)] = decoded;
          }
          s.scales[!keys][static_cast<std::size_t>(head * tokens + token)] = stored.scale;
          if (layout.scaled())
            std::memcpy(
                page + (keys ? layout.key_scales_at(head) : layout.value_scales_at(head)) + token % kPageTokens * 4,
                &stored.scale, 4);
        }
  }

  // Rows [first, first + count) of some sequences as one batch.
  struct Part {
    int sequence, first, count;
  };
  using Run = void (*)(const AttentionTask&, kernels::cuda::StreamHandle);
  // The rows' results, [rows, heads * dim]; between rows lies a poisoned gap, which must stay.
  Bf16Values run(Run attend, const std::vector<Part>& parts, int spare_sequences = 0) {
    const std::int64_t width = std::int64_t{heads.query} * heads.dim, stride = width + 16;
    std::int64_t rows = 0, most = 1;
    for (const Sequence& s : sequences) most = std::max<std::int64_t>(most, static_cast<std::int64_t>(s.pages.size()));
    std::vector<std::int32_t> begins = {0}, past;
    std::vector<void*> pages;
    Bf16Values q;
    for (const Part& part : parts) {
      const Sequence& s = sequences[static_cast<std::size_t>(part.sequence)];
      rows += part.count;
      begins.push_back(static_cast<std::int32_t>(rows));
      past.push_back(s.past + part.first);
      for (std::int64_t p = 0; p < most; ++p)
        pages.push_back(p < static_cast<std::int64_t>(s.pages.size())
                            ? device_pool + s.pages[static_cast<std::size_t>(p)] * page_bytes
                            : nullptr);
      for (int r = part.first; r < part.first + part.count; ++r) {
        q.insert(q.end(), s.queries.begin() + r * width, s.queries.begin() + (r + 1) * width);
        q.resize(q.size() + 16, 0x7FFF);
      }
    }
    for (int i = 0; i < spare_sequences; ++i) {
      begins.push_back(static_cast<std::int32_t>(rows));
      past.push_back(-1);
      pages.resize(pages.size() + static_cast<std::size_t>(most));
    }
    std::uint16_t* out = room<std::uint16_t>(rows * stride);
    AttentionTask task{.q = upload(q),
                       .q_stride = stride,
                       .out = out,
                       .out_stride = stride,
                       .kv = {layout, upload(pages), most, kLayerOffset},
                       .heads = heads.query,
                       .scale = scale(),
                       .window = heads.window,
                       .causal = heads.causal,
                       .query_amax = query_amax.empty() ? nullptr : upload(query_amax),
                       .sinks = heads.sinks ? upload(sinks) : nullptr,
                       .row_begin = upload(begins),
                       .past = upload(past),
                       .sequences = static_cast<std::int64_t>(past.size()),
                       .rows = rows};
    // Calls of different sizes share what the first, the largest, asked for.
    if (attend == &kernels::cuda::attend_decode && !workspace)
      workspace = room<std::uint8_t>(kernels::cuda::attend_decode_workspace(task), 0);
    task.workspace = workspace;
    attend(task, handle());
    const Bf16Values found = download(out, rows * stride);
    Bf16Values tight;
    for (std::int64_t r = 0; r < rows; ++r) {
      tight.insert(tight.end(), found.begin() + r * stride, found.begin() + r * stride + width);
      for (std::int64_t i = width; i < stride; ++i)
        EXPECT_EQ(found[static_cast<std::size_t>(r * stride + i)], 0xFFFF) << "written beyond row " << r;
    }
    return tight;
  }
  std::vector<Part> whole() const {
    std::vector<Part> parts;
    for (int i = 0; i < static_cast<int>(sequences.size()); ++i)
      parts.push_back({i, 0, sequences[static_cast<std::size_t>(i)].rows});
    return parts;
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(heads.dim)); }

  std::pair<int, int> seen(const Sequence& s, int row) const {
    const int last = s.past + (heads.causal ? row : s.rows - 1);
    return {heads.window > 0 ? std::max(0, last + 1 - heads.window) : 0, last};
  }

  // Weights are rounded to 8 bits and the result too: 2^-8 of the sum of magnitudes, and as much for the scores.
  void expect_close(const Bf16Values& found, const std::string& what, int row_step = 1) {
    const int group = heads.query / heads.kv;
    std::int64_t at = 0;
    int wrong = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& s = sequences[i];
      for (int r = 0; r < s.rows; ++r)
        for (int h = 0; h < heads.query; ++h, at += heads.dim) {
          if ((r + h) % row_step != 0 && r + 1 != s.rows) continue;
          const auto [first, last] = seen(s, r);
          const auto place = [&](int token) { return (std::int64_t{token} * heads.kv + h / group) * heads.dim; };
          std::vector<double> scores;
          for (int token = first; token <= last; ++token) {
            double sum = 0;
            for (int d = 0; d < heads.dim; ++d)
              sum += static_cast<double>(from_bf16(
                         s.queries[static_cast<std::size_t>((std::int64_t{r} * heads.query + h) * heads.dim + d)])) *
                     s.keys[static_cast<std::size_t>(place(token) + d)];
            scores.push_back(sum * scale());
          }
          const double most = *std::max_element(scores.begin(), scores.end());
          double total = heads.sinks ? std::exp(sinks[static_cast<std::size_t>(h)] - most) : 0;
          std::vector<double> out(static_cast<std::size_t>(heads.dim)), magnitude(out.size());
          for (int token = first; token <= last; ++token) {
            const double weight = std::exp(scores[static_cast<std::size_t>(token - first)] - most);
            total += weight;
            for (std::size_t d = 0; d < out.size(); ++d) {
              const double v = s.values[static_cast<std::size_t>(place(token)) + d];
              out[d] += weight * v;
              magnitude[d] += weight * std::fabs(v);
            }
          }
          for (std::size_t d = 0; d < out.size() && wrong < 5; ++d) {
            const double expected = out[d] / total, bound = magnitude[d] / total * 0x1p-7;
            const float value = from_bf16(found[static_cast<std::size_t>(at) + d]);
            if (!(std::fabs(value - expected) <= bound)) {
              ++wrong;
              ADD_FAILURE() << what << ": sequence " << i << " (" << s.past << " + " << s.rows << "), row " << r
                            << ", head " << h << ", value " << d << ": " << value << " instead of " << expected
                            << " within " << bound;
            }
          }
        }
    }
  }
  // Every sequence alone has the bits that it has in the batch.
  void expect_same_alone(Run attend, const Bf16Values& together, const std::string& what) {
    auto at = together.begin();
    for (const Part& part : whole()) {
      const Bf16Values alone = run(attend, {part});
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), at)) << what << ": sequence " << part.sequence;
      at += static_cast<std::ptrdiff_t>(alone.size());
    }
  }

  // Products of e4m3 against kernels::ref::attend_e4m3(). The tensor cores keep 14 bits of scores, by which a weight
  // may be rounded to the neighbouring e4m3: an eighth of it, rarely. `exact_decibels`: what is asked of the ratio to
  // the result without rounding queries and weights.
  void expect_like_reference(const Bf16Values& found, const std::string& what, int row_step, double exact_decibels) {
    const int group = heads.query / heads.kv;
    const std::size_t dim = static_cast<std::size_t>(heads.dim);
    std::int64_t at = 0;
    double error = 0, exact_error = 0, power = 0, worst = 0;
    for (std::size_t index = 0; index < sequences.size(); ++index) {
      const Sequence& s = sequences[index];
      for (int r = 0; r < s.rows; ++r)
        for (int h = 0; h < heads.query; ++h, at += heads.dim) {
          if ((r + h) % row_step != 0 && r + 1 != s.rows) continue;
          const int tokens = s.past + s.rows, kv = h / group;
          const auto head = [&](int side) {
            return kernels::ref::CodedTokens{
                std::span(s.codes[side])
                    .subspan(static_cast<std::size_t>(kv * tokens) * dim, static_cast<std::size_t>(tokens) * dim),
                std::span(s.scales[side])
                    .subspan(static_cast<std::size_t>(kv * tokens), static_cast<std::size_t>(tokens))};
          };
          std::vector<float> query;
          for (std::size_t d = 0; d < dim; ++d)
            query.push_back(from_bf16(s.queries[static_cast<std::size_t>(r * heads.query + h) * dim + d]));
          const auto [first, last] = seen(s, r);
          const kernels::ref::E4m3Attention how{
              .scale = scale(),
              .sink = heads.sinks ? &sinks[static_cast<std::size_t>(h)] : nullptr,
              .amax = query_amax.empty()
                          ? nullptr
                          : &query_amax[index * static_cast<std::size_t>(heads.kv) + static_cast<std::size_t>(kv)]};
          const std::vector<float> expected = kernels::ref::attend_e4m3(query, head(0), head(1), first, last, how);
          const std::vector<double> exact = kernels::ref::attend_exactly(query, head(0), head(1), first, last, how);
          for (std::size_t d = 0; d < dim; ++d) {
            const double value = from_bf16(found[static_cast<std::size_t>(at) + d]);
            error += std::pow(value - expected[d], 2);
            exact_error += std::pow(value - exact[d], 2);
            power += exact[d] * exact[d];
            worst = std::max(worst, std::fabs(value - expected[d]));
            if (!(std::fabs(value - expected[d]) <= 0.5)) {
              ADD_FAILURE() << what << ": row " << r << " after " << s.past << ", head " << h << ", value " << d << ": "
                            << value << " instead of " << expected[d];
              return;
            }
          }
        }
    }
    const auto decibels = [&](double e) { return 10 * std::log10(power / e); };
    fmt::print("{}: {:.1f} dB from the reference (at most {:.3f}), {:.1f} dB from the exact result\n", what,
               decibels(error), worst, decibels(exact_error));
    EXPECT_GE(decibels(error), 36) << what;
    EXPECT_GE(decibels(exact_error), exact_decibels) << what;
  }
  // Called with a key or a value before it is stored.
  std::function<void(const Sequence&, int token, bool is_key, std::vector<float>& x)> change;

  static constexpr std::int64_t kLayerOffset = 256;
  Heads heads{};
  KvPageLayout layout;
  std::int64_t page_bytes = 0;
  std::vector<unsigned char> pool;
  unsigned char* device_pool = nullptr;
  std::uint8_t* workspace = nullptr;
  std::vector<float> sinks;       // [heads]
  std::vector<float> query_amax;  // [sequences, KV heads], or empty
  std::vector<Sequence> sequences;
};

constexpr Elem kTypes[] = {Elem::bf16, Elem::e4m3, Elem::int8};
constexpr Heads kHeads[] = {{4, 1, 128},      {8, 2, 64},     {2, 2, 256},           {24, 1, 128},
                            {6, 2, 128, 100}, {4, 2, 64, 64}, {8, 1, 64, 128, true}, {6, 2, 128, 0, true}};

std::string name(Elem type, const Heads& h) {
  return fmt::format("{} cache, {}/{} heads of {}, window {}{}", formats::name(type), h.query, h.kv, h.dim, h.window,
                     h.sinks ? ", sinks" : "");
}

TEST_F(CudaAttentionTest, DecodeAgainstDouble) {
  for (const Elem type : kTypes)
    for (const Heads& h : kHeads) {
      begin(type, h,
            {{0, 1},
             {1, 1},
             {62, 1},
             {63, 1},
             {64, 1},
             {65, 1},
             {200, 1},
             {1023, 1},
             {1100, 1},
             {2111, 1},
             {300, 3},
             {61, 7}});
      const Bf16Values found = run(&kernels::cuda::attend_decode, whole(), 3);
      expect_close(found, name(type, h));
      EXPECT_EQ(found, run(&kernels::cuda::attend_decode, whole())) << "another run, " << name(type, h);
      expect_same_alone(&kernels::cuda::attend_decode, found, name(type, h));
    }
}

TEST_F(CudaAttentionTest, DecodeOfLongSequences) {
  for (const Elem type : kTypes) {
    begin(type, {8, 2, 128}, {{8191, 1}, {5, 1}, {8200, 1}});
    const Bf16Values found = run(&kernels::cuda::attend_decode, whole());
    expect_close(found, "8k");
    expect_same_alone(&kernels::cuda::attend_decode, found, "8k");
  }
}

TEST_F(CudaAttentionTest, DecodeInRandomBatches) {
  std::vector<std::pair<int, int>> lengths;
  std::uniform_int_distribution<int> length(0, 700);
  for (int i = 0; i < 64; ++i) lengths.emplace_back(length(rng), 1);
  begin(Elem::bf16, {4, 1, 128}, lengths);
  const std::int64_t width = 4 * 128;
  const Bf16Values together = run(&kernels::cuda::attend_decode, whole());
  expect_close(together, "64 sequences", 2);
  for (int round = 0; round < 8; ++round) {
    std::vector<Part> parts = whole();
    std::shuffle(parts.begin(), parts.end(), rng);
    parts.resize(static_cast<std::size_t>(2 + 7 * round));
    const Bf16Values some = run(&kernels::cuda::attend_decode, parts);
    for (std::size_t i = 0; i < parts.size(); ++i)
      EXPECT_TRUE(std::equal(some.begin() + static_cast<std::ptrdiff_t>(i) * width,
                             some.begin() + static_cast<std::ptrdiff_t>(i + 1) * width,
                             together.begin() + parts[i].sequence * width))
          << "sequence " << parts[i].sequence << " among " << parts.size();
  }
}

// A recorded call serves other lengths.
TEST_F(CudaAttentionTest, DecodeReplayed) {
  begin(Elem::bf16, {4, 1, 128}, {{1500, 1}});
  const Sequence& s = sequences[0];
  std::vector<void*> pages;
  for (const int p : s.pages) pages.push_back(device_pool + p * page_bytes);
  const std::int64_t width = 4 * 128;
  std::int32_t* past = upload(std::vector<std::int32_t>{0});
  std::uint16_t* out = room<std::uint16_t>(width);
  AttentionTask task{.q = upload(s.queries),
                     .q_stride = width,
                     .out = out,
                     .out_stride = width,
                     .kv = {layout, upload(pages), static_cast<std::int64_t>(pages.size()), kLayerOffset},
                     .heads = 4,
                     .scale = scale(),
                     .row_begin = upload(std::vector<std::int32_t>{0, 1}),
                     .past = past,
                     .sequences = 1,
                     .rows = 1};
  task.workspace = room<std::uint8_t>(kernels::cuda::attend_decode_workspace(task), 0);
  kernels::cuda::Graph graph;
  graph.record(*stream, [&] { kernels::cuda::attend_decode(task, handle()); });
  for (const std::int32_t length : {1500, 3, 700, 64}) {
    kernels::cuda::copy(past, &length, 4, handle());
    graph.launch(*stream);
    const Bf16Values replayed = download(out, width);
    Sequence shorter = s;
    shorter.past = length;
    sequences = {shorter};
    expect_close(replayed, "replayed");
    EXPECT_EQ(replayed, run(&kernels::cuda::attend_decode, whole()));
    sequences = {s};
  }
}

TEST_F(CudaAttentionTest, PrefillAgainstDouble) {
  for (const Elem type : kTypes)
    for (const Heads& h : kHeads) {
      begin(type, h, {{0, 1}, {0, 65}, {130, 64}, {63, 2}, {0, 200}, {500, 33}, {127, 129}});
      const Bf16Values found = run(&kernels::cuda::attend_prefill, whole(), 2);
      expect_close(found, name(type, h), 5);
      EXPECT_EQ(found, run(&kernels::cuda::attend_prefill, whole())) << "another run, " << name(type, h);
      expect_same_alone(&kernels::cuda::attend_prefill, found, name(type, h));
    }
}

TEST_F(CudaAttentionTest, PrefillInPieces) {
  for (const Elem type : kTypes)
    for (const Heads& h : kHeads) {
      begin(type, h, {{0, 300}});
      const Bf16Values together = run(&kernels::cuda::attend_prefill, whole());
      const std::int64_t width = std::int64_t{h.query} * h.dim;
      for (const int step : {1, 64, 77, 128, 299})
        for (int first = step == 1 ? 280 : 0; first < 300; first += step) {
          const Bf16Values piece = run(&kernels::cuda::attend_prefill, {{0, first, std::min(step, 300 - first)}});
          EXPECT_TRUE(std::equal(piece.begin(), piece.end(), together.begin() + first * width))
              << name(type, h) << ": rows from " << first << " in steps of " << step;
        }
    }
}

TEST_F(CudaAttentionTest, PrefillOfLongSequences) {
  for (const Elem type : kTypes) {
    begin(type, {4, 1, 128}, {{8000, 200}, {0, 8192}});
    expect_close(run(&kernels::cuda::attend_prefill, whole()), "8k", 997);
  }
}

// Every row sees all of its sequence.
TEST_F(CudaAttentionTest, PrefillOfAllTokens) {
  for (const Elem type : kTypes) {
    begin(type, {6, 2, 128, 0, false, false}, {{0, 65}, {130, 64}, {0, 1}, {127, 129}});
    expect_close(run(&kernels::cuda::attend_prefill, whole(), 2), "all tokens", 3);
  }
}

void attend_prefill_e4m3(const AttentionTask& task, kernels::cuda::StreamHandle stream) {
  AttentionTask e4m3 = task;
  e4m3.e4m3 = true;
  kernels::cuda::attend_prefill(e4m3, stream);
}

TEST_F(CudaAttentionTest, E4m3PrefillAgainstReference) {
  for (Heads h : kHeads)
    for (const bool causal : {true, false}) {
      if (h.dim > 128 || (!causal && h.window > 0)) continue;
      h.causal = causal;
      begin(Elem::e4m3, h, {{0, 1}, {0, 65}, {130, 64}, {63, 2}, {0, 200}, {500, 33}, {127, 129}});
      const std::string what = name(Elem::e4m3, h) + (causal ? "" : ", all tokens");
      const Bf16Values found = run(&attend_prefill_e4m3, whole(), 2);
      expect_like_reference(found, what, 3, 22);
      EXPECT_EQ(found, run(&attend_prefill_e4m3, whole())) << "another run, " << what;
      expect_same_alone(&attend_prefill_e4m3, found, what);
    }
}

TEST_F(CudaAttentionTest, E4m3PrefillInPieces) {
  for (const Heads& h : kHeads) {
    if (h.dim > 128) continue;
    begin(Elem::e4m3, h, {{0, 300}});
    const Bf16Values together = run(&attend_prefill_e4m3, whole());
    const std::int64_t width = std::int64_t{h.query} * h.dim;
    for (const int step : {1, 64, 77, 128, 299})
      for (int first = step == 1 ? 280 : 0; first < 300; first += step) {
        const Bf16Values piece = run(&attend_prefill_e4m3, {{0, first, std::min(step, 300 - first)}});
        EXPECT_TRUE(std::equal(piece.begin(), piece.end(), together.begin() + first * width))
            << name(Elem::e4m3, h) << ": rows from " << first << " in steps of " << step;
      }
  }
}

TEST_F(CudaAttentionTest, E4m3PrefillOfLongSequences) {
  begin(Elem::e4m3, {4, 1, 128}, {{8000, 200}, {0, 8192}});
  expect_like_reference(run(&attend_prefill_e4m3, whole()), "8k", 997, 20);
}

// Sums over 131072 tokens: all alike, whose values are one and noise, and a needle among them.
TEST_F(CudaAttentionTest, E4m3PrefillOf128kTokens) {
  constexpr int kNeedle = 77777;
  change = [&](const Sequence& s, int token, bool is_key, std::vector<float>& x) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!is_key) x[i] = token == kNeedle ? (i % 2 ? -8.0f : 8.0f) : 1 + 0.25f * x[i];
      if (is_key && token == kNeedle) x[i] = 3 * from_bf16(s.queries[i]);
    }
  };
  begin(Elem::e4m3, {1, 1, 128}, {{131072 - 3, 3}});
  Sequence& s = sequences[0];
  for (int i = 0; i < 128; ++i) {  // the first row asks for the needle, the second for nothing, the third for noise
    s.queries[static_cast<std::size_t>(128 + i)] = 0;
    s.queries[static_cast<std::size_t>(256 + i)] =
        to_bf16(0.5f * from_bf16(s.queries[static_cast<std::size_t>(256 + i)]));
  }
  const Bf16Values found = run(&attend_prefill_e4m3, whole());
  for (int i = 0; i < 128; ++i) {
    EXPECT_NEAR(from_bf16(found[static_cast<std::size_t>(i)]), i % 2 ? -8 : 8, 0.1) << "the needle, value " << i;
    EXPECT_NEAR(from_bf16(found[static_cast<std::size_t>(128 + i)]), 1, 0.01) << "all alike, value " << i;
  }
  expect_like_reference(found, "128k", 1, 30);
}

// What a row does not see does not meet it, be it not a number.
TEST_F(CudaAttentionTest, E4m3PrefillBeforeATokenThatIsNotFinite) {
  begin(Elem::e4m3, {4, 1, 128}, {{0, 200}});
  const Bf16Values clean = run(&attend_prefill_e4m3, whole());
  const int page = sequences[0].pages[1];
  const float nan = NAN;
  for (const auto at : {layout.key_scales_at(0), layout.value_scales_at(0)})
    std::memcpy(pool.data() + page * page_bytes + kLayerOffset + at + (100 - 64) * 4, &nan, 4);
  device_pool = upload(pool);
  const Bf16Values found = run(&attend_prefill_e4m3, whole());
  EXPECT_TRUE(std::equal(clean.begin(), clean.begin() + 100 * 512, found.begin()));
  for (std::size_t i = 100 * 512; i < found.size(); ++i) ASSERT_TRUE(std::isnan(from_bf16(found[i]))) << i;
}

// One scale for all queries that share a KV head and for all of its keys and values, as torchao's attention has them.
TEST_F(CudaAttentionTest, E4m3PrefillWithAQueryScaleForAHead) {
  begin(Elem::e4m3, {4, 2, 128}, {{0, 150}, {0, 33}});
  std::vector<float> amax(4, 0.0f);
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t v = 0; v < sequences[i].queries.size(); ++v) {
      float& most = amax[2 * i + v / 256 % 2];
      most = std::max(most, std::fabs(from_bf16(sequences[i].queries[v])));
    }
  query_amax = amax;
  expect_like_reference(run(&attend_prefill_e4m3, whole()), "a scale for a head", 1, 22);
}

}  // namespace
}  // namespace lowp::ops
