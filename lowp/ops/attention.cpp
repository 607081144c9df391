#include "lowp/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/attention_e4m3.h"
#include "lowp/kernels/head_hadamard.h"

namespace lowp::ops {
namespace {

using formats::Elem;
using formats::round_to;
using kernels::cpu::AttentionKernel;
using kernels::cpu::kPageTokens;
using kernels::cpu::kQueryRows;
using kernels::cpu::kSegmentPages;
using kernels::cpu::kSegmentTokens;

constexpr std::int64_t kUnitTiles = 32;  // that share the keys and values of a segment while these are in the cache

// What query rows (of one tile) have gathered of the segments so far.
struct State {
  float* largest;  // [kQueryRows]; -inf: nothing yet
  float* sum;      // [kQueryRows]
  float* mixed;    // [kQueryRows, dim]
};

// Merges part of a row's softmax into what came before.
void merge(float& largest, float& sum, float* mixed, float part_largest, float part_sum, const float* part,
           std::int64_t dim) {
  if (sum == 0) {
    largest = part_largest;
    sum = part_sum;
    std::copy_n(part, dim, mixed);
    return;
  }
  const float top = std::max(largest, part_largest);
  const float old_weight = std::exp(largest - top), weight = std::exp(part_largest - top);
  largest = top;
  sum = sum * old_weight + part_sum * weight;
  for (std::int64_t i = 0; i < dim; ++i) mixed[i] = mixed[i] * old_weight + part[i] * weight;
}

// How the query rows of a sequence fall into tiles: tokens together with the query heads that share a KV head, so that
// its keys and values are read once for all of them.
struct Tiling {
  std::int64_t heads, kv_heads, group;
  std::int64_t tile_heads, tile_tokens, parts;  // parts: tiles side by side that a wide group takes

  Tiling(std::int64_t query_heads, std::int64_t kv)
      : heads(query_heads),
        kv_heads(kv),
        group(query_heads / kv),
        tile_heads(std::min(group, kQueryRows)),
        tile_tokens(kQueryRows / tile_heads),
        parts(ceil_div(group, tile_heads)) {}
};

// A piece of work: some tiles of one sequence and KV head, over some segments.
struct Unit {
  const AttendSequence* sequence;
  std::int64_t kv_head, first_head, head_count;  // query heads [first_head, first_head + head_count)
  std::int64_t first_row = 0, rows = 0;
  std::int64_t first_segment = 0, segments = 0;
  bool continues = false;  // the unit before, with the segments that follow
  std::int64_t state = 0;  // of its first tile
};

// Memory of one thread.
struct Workspace {
  std::vector<std::byte> queries, keys, values, weights;
  std::vector<float> scores, mixed, key_scales, value_scales;
  std::vector<float> value_logs;  // e4m3: of value_scales, which then are their inverses
  float query_scales[kQueryRows];
};

class Attention {
 public:
  Attention(const KvLayout& layout, const AttendOptions& options, AttendScratch& scratch)
      : layout_(layout),
        options_(options),
        kernel_(layout.kernel()),
        tiling_(options.heads, layout.kv_heads()),
        dim_(layout.padded_dim()),
        scratch_(scratch) {}

  void run(std::span<const AttendSequence> sequences) {
    plan(sequences);
    parallel_for(static_cast<std::int64_t>(units_.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      thread_local Workspace workspace;
      prepare(workspace);
      for (std::int64_t u = begin; u < end; ++u) run(units_[static_cast<std::size_t>(u)], workspace);
    });
    finish();
  }

 private:
  std::int64_t state_floats() const { return kQueryRows * (2 + dim_); }
  State state(std::int64_t index) const {
    float* at = scratch_.states.data() + index * state_floats();
    return {at, at + kQueryRows, at + 2 * kQueryRows};
  }

  // The first position that a token at `position` sees.
  std::int64_t window_begin(std::int64_t position) const {
    return options_.window > 0 ? std::max<std::int64_t>(0, position + 1 - options_.window) : 0;
  }

  void plan(std::span<const AttendSequence> sequences) {
    std::int64_t states = 0;
    for (const AttendSequence& sequence : sequences)
      for (std::int64_t lane = 0; lane < tiling_.kv_heads * tiling_.parts; ++lane) {
        const std::int64_t kv_head = lane / tiling_.parts, skipped = lane % tiling_.parts * tiling_.tile_heads;
        Unit unit{.sequence = &sequence,
                  .kv_head = kv_head,
                  .first_head = kv_head * tiling_.group + skipped,
                  .head_count = std::min(tiling_.tile_heads, tiling_.group - skipped)};
        const std::int64_t step = kUnitTiles * tiling_.tile_tokens;
        for (std::int64_t row = 0; row < sequence.rows; row += step) {
          unit.first_row = row;
          unit.rows = std::min(step, sequence.rows - row);
          const std::int64_t tiles = ceil_div(unit.rows, tiling_.tile_tokens);
          const std::int64_t first = window_begin(sequence.past + row) / kSegmentTokens;
          const std::int64_t segments = ceil_div(sequence.past + row + unit.rows, kSegmentTokens) - first;
          // One tile alone, a sequence that generates: its segments are shared out, and merged by finish().
          const std::int64_t shares = tiles == 1 ? segments : 1;
          unit.segments = segments / shares;
          for (std::int64_t share = 0; share < shares; ++share) {
            unit.first_segment = first + share;
            unit.continues = share > 0;
            unit.state = states;
            states += tiles;
            units_.push_back(unit);
          }
        }
      }
    scratch_.states.resize(std::max(scratch_.states.size(), static_cast<std::size_t>(states * state_floats())));
  }

  void prepare(Workspace& w) const {
    const std::size_t operand = layout_.operand_bytes();
    w.queries.resize(static_cast<std::size_t>(kQueryRows * dim_) * operand);
    w.weights.resize(kQueryRows * kSegmentTokens * operand);
    w.scores.resize(kQueryRows * kSegmentTokens);
    w.mixed.resize(static_cast<std::size_t>(kQueryRows * dim_));
    if (!layout_.direct()) {
      w.keys.resize(static_cast<std::size_t>(kSegmentPages * layout_.page_elements()) * operand);
      w.values.resize(w.keys.size());
    }
    if (layout_.scaled())
      for (auto* scales : {&w.key_scales, &w.value_scales, &w.value_logs}) scales->resize(kSegmentTokens);
  }

  // The operands of a segment's pages.
  struct Segment {
    const void* keys[kSegmentPages];
    const void* values[kSegmentPages];
  };
  Segment operands(const Unit& unit, std::int64_t first_page, std::int64_t pages, Workspace& w) const {
    Segment segment{};
    const std::int64_t count = layout_.page_elements();
    const auto page_operand = [&](const std::byte* stored, std::vector<std::byte>& expanded, std::int64_t p) {
      if (layout_.direct()) return static_cast<const void*>(stored);
      std::byte* to = expanded.data() + static_cast<std::size_t>(p * count) * layout_.operand_bytes();
      if (layout_.type() == Elem::int8)
        kernel_.from_int8(reinterpret_cast<const std::int8_t*>(stored), count, to);
      else if (layout_.type() == Elem::e4m3)
        kernel_.from_e4m3(reinterpret_cast<const std::uint8_t*>(stored), count, to);
      else
        kernel_.from_bf16(reinterpret_cast<const std::uint16_t*>(stored), count, to);
      return static_cast<const void*>(to);
    };
    for (std::int64_t p = 0; p < pages; ++p) {
      const std::byte* page = unit.sequence->pages[static_cast<std::size_t>(first_page + p)];
      segment.keys[p] = page_operand(page + layout_.keys_at(unit.kv_head), w.keys, p);
      segment.values[p] = page_operand(page + layout_.values_at(unit.kv_head), w.values, p);
      if (!layout_.scaled()) continue;
      std::memcpy(&w.key_scales[p * kPageTokens], page + layout_.key_scales_at(unit.kv_head), kPageTokens * 4);
      std::memcpy(&w.value_scales[p * kPageTokens], page + layout_.value_scales_at(unit.kv_head), kPageTokens * 4);
    }
    if (options_.e4m3) invert_value_scales(pages * kPageTokens, w);
    return segment;
  }

  // A scale may be NaN, of a token that only later rows see. Its logarithm keeps that; its inverse meets a weight of
  // zero.
  static void invert_value_scales(std::int64_t tokens, Workspace& w) {
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) {
      const float scale = w.value_scales[t], least = kernels::kE4m3LeastValueScale;
      w.value_logs[t] = std::log(scale < least ? least : scale);
      w.value_scales[t] = 1 / (scale > least ? scale : least);
    }
  }

  void run(const Unit& unit, Workspace& w) const {
    const std::int64_t tiles = ceil_div(unit.rows, tiling_.tile_tokens);
    for (std::int64_t t = 0; t < tiles; ++t) std::fill_n(state(unit.state + t).sum, kQueryRows, 0.0f);
    const std::int64_t visible = unit.sequence->past + unit.first_row + unit.rows;  // by the last row
    for (std::int64_t s = unit.first_segment; s < unit.first_segment + unit.segments; ++s) {
      const std::int64_t first = s * kSegmentTokens;
      const Segment segment =
          operands(unit, s * kSegmentPages, ceil_div(std::min(kSegmentTokens, visible - first), kPageTokens), w);
      for (std::int64_t t = 0; t < tiles; ++t) {
        const std::int64_t row = unit.first_row + t * tiling_.tile_tokens;
        const std::int64_t tokens = std::min(tiling_.tile_tokens, unit.first_row + unit.rows - row);
        if (unit.sequence->past + row + tokens > first)
          run_tile(unit, row, tokens, first, segment, state(unit.state + t), w);
      }
    }
  }

  // The tokens of a segment that one row sees.
  struct Visible {
    std::int64_t begin, end;
  };

  void run_tile(const Unit& unit, std::int64_t row, std::int64_t tokens, std::int64_t first, const Segment& segment,
                const State& state, Workspace& w) const {
    const std::int64_t rows = tokens * unit.head_count;
    const auto visible = [&](std::int64_t r) {
      const std::int64_t position = unit.sequence->past + row + r / unit.head_count;
      return Visible{std::max<std::int64_t>(window_begin(position) - first, 0),
                     std::clamp<std::int64_t>(position + 1 - first, 0, kSegmentTokens)};
    };
    const std::int64_t pages = ceil_div(visible(rows - 1).end, kPageTokens);
    gather_queries(unit, row, rows, w);
    kernel_.scores(w.queries.data(), rows, segment.keys, pages, dim_, w.scores.data());
    const bool scaled = layout_.scaled();
    kernels::cpu::SoftmaxStats stats[kQueryRows];
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::size_t at = static_cast<std::size_t>(r * kSegmentTokens);
      const auto [begin, end] = visible(r);
      float* scores = w.scores.data() + at;
      std::byte* weights = w.weights.data() + at * layout_.operand_bytes();
      stats[r] = options_.e4m3
                     ? kernel_.softmax_e4m3(scores, begin, end, pages * kPageTokens, options_.scale * w.query_scales[r],
                                            w.key_scales.data(), w.value_logs.data(), w.value_scales.data(), weights)
                     : kernel_.softmax(scores, begin, end, pages * kPageTokens, options_.scale,
                                       scaled ? w.key_scales.data() : nullptr, scaled ? w.value_scales.data() : nullptr,
                                       weights);
    }
    kernel_.mix(w.weights.data(), rows, segment.values, pages, dim_, w.mixed.data());
    for (std::int64_t r = 0; r < rows; ++r)
      if (const auto [begin, end] = visible(r); begin < end)
        merge(state.largest[r], state.sum[r], state.mixed + r * dim_, stats[r].largest, stats[r].sum,
              w.mixed.data() + r * dim_, dim_);
  }

  // Row r of a tile: token r / head_count, head r % head_count.
  std::int64_t offset(const Unit& unit, std::int64_t row, std::int64_t r) const {
    return ((row + r / unit.head_count) * tiling_.heads + unit.first_head + r % unit.head_count) * layout_.head_dim();
  }

  float sink(const Unit& unit, std::int64_t r) const {
    return options_.sinks[static_cast<std::size_t>(unit.first_head + r % unit.head_count)];
  }

  void gather_queries(const Unit& unit, std::int64_t row, std::int64_t rows, Workspace& w) const {
    const std::int64_t width = layout_.head_dim();
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = unit.sequence->queries + offset(unit, row, r);
      if (options_.e4m3) {
        const kernels::E4m3Scales scales = kernels::e4m3_scales(amax(from, width));
        w.query_scales[r] = scales.down;
        kernel_.to_e4m3(from, width, dim_, scales.up,
                        w.queries.data() + static_cast<std::size_t>(r * dim_) * layout_.operand_bytes());
      } else if (kernel_.bf16) {
        auto* to = reinterpret_cast<std::uint16_t*>(w.queries.data()) + r * dim_;
        for (std::int64_t i = 0; i < width; ++i) to[i] = static_cast<std::uint16_t>(float_bits(from[i]) >> 16);
        std::fill(to + width, to + dim_, std::uint16_t{0});
      } else {
        auto* to = reinterpret_cast<float*>(w.queries.data()) + r * dim_;
        std::copy_n(from, width, to);
        std::fill(to + width, to + dim_, 0.0f);
      }
    }
  }

  // NaN if not all are finite.
  static float amax(const float* x, std::int64_t count) {
    float most = 0;
    for (std::int64_t i = 0; i < count; ++i) most = is_finite(x[i]) ? std::max(most, std::fabs(x[i])) : NAN;
    return most;
  }

  // Merges the shares of what was shared out, divides, rounds.
  void finish() const {
    parallel_for(static_cast<std::int64_t>(units_.size()), 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t u = begin; u < end; ++u) {
        const Unit& unit = units_[static_cast<std::size_t>(u)];
        if (unit.continues) continue;
        for (std::int64_t t = 0; t < ceil_div(unit.rows, tiling_.tile_tokens); ++t) finish_tile(unit, u, t);
      }
    });
  }
  void finish_tile(const Unit& unit, std::int64_t index, std::int64_t tile) const {
    const std::int64_t row = unit.first_row + tile * tiling_.tile_tokens;
    const std::int64_t rows = std::min(tiling_.tile_tokens, unit.first_row + unit.rows - row) * unit.head_count;
    const State whole = state(unit.state + tile);
    for (auto next = static_cast<std::size_t>(index) + 1; next < units_.size() && units_[next].continues; ++next) {
      const State part = state(units_[next].state);
      for (std::int64_t r = 0; r < rows; ++r)
        if (part.sum[r] != 0)
          merge(whole.largest[r], whole.sum[r], whole.mixed + r * dim_, part.largest[r], part.sum[r],
                part.mixed + r * dim_, dim_);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      float* out = unit.sequence->out + offset(unit, row, r);
      float sum = whole.sum[r];
      if (!options_.sinks.empty()) sum += std::exp(sink(unit, r) - whole.largest[r]);
      for (std::int64_t i = 0; i < layout_.head_dim(); ++i) out[i] = whole.mixed[r * dim_ + i] / sum;
      if (options_.hadamard) kernels::hadamard_head(out, layout_.head_dim());
      for (std::int64_t i = 0; i < layout_.head_dim(); ++i) out[i] = round_to(options_.compute, out[i]);
    }
  }

  const KvLayout& layout_;
  const AttendOptions& options_;
  const AttentionKernel& kernel_;
  const Tiling tiling_;
  const std::int64_t dim_;
  AttendScratch& scratch_;
  std::vector<Unit> units_;
};

}  // namespace

void attend(const KvLayout& layout, const AttendOptions& options, std::span<const AttendSequence> sequences,
            AttendScratch& scratch) {
  LOWP_CHECK(options.heads % layout.kv_heads() == 0, "{} heads for {}", options.heads, layout.kv_heads());
  LOWP_CHECK(options.sinks.empty() || static_cast<std::int64_t>(options.sinks.size()) == options.heads,
             "{} sinks of {} heads", options.sinks.size(), options.heads);
  LOWP_CHECK(!options.e4m3 || layout.type() == Elem::e4m3, "products of e4m3 over {}", formats::name(layout.type()));
  for (const AttendSequence& s : sequences)
    LOWP_CHECK(static_cast<std::int64_t>(s.pages.size()) * kPageTokens >= s.past + s.rows, "{} + {} tokens in {} pages",
               s.past, s.rows, s.pages.size());
  Attention(layout, options, scratch).run(sequences);
}

}  // namespace lowp::ops
