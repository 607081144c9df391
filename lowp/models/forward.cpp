// The forward pass. Dtypes follow transformers in eager mode: the residual stream, norms, RoPE and products are rounded
// to the compute dtype where a tensor of that dtype is written; sums, softmax and norms run in f32.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/elementwise.h"
#include "lowp/models/weights.h"
#include "lowp/models/workspace.h"

namespace lowp::models {
namespace {

using formats::Elem;
using formats::round_to;
using kernels::cpu::elementwise_kernels;
using ops::OutputTile;

constexpr std::int64_t kGrain = 1 << 14;  // elements worth a chunk of a loop

// Rows of `width` elements that make a chunk.
std::int64_t row_grain(std::int64_t width) { return std::max<std::int64_t>(1, kGrain / width); }

// Row r of a tile, and its place in a matrix with rows of `width`.
float* row_of(const OutputTile& tile, std::int64_t r) { return tile.values + r * OutputTile::kStride; }
std::int64_t place_of(const OutputTile& tile, std::int64_t r, std::int64_t width) {
  return (tile.row + r) * width + tile.column;
}

}  // namespace

// All of them, with the input quantized once if they share it: outputs[i] is [rows, projections[i].linear->n()].
void Model::project(std::span<const Projection> projections, std::string_view block, std::span<const float> x) const {
  Workspace& w = *workspace_;
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / projections[0].linear->k();
  std::array<const ops::Linear*, 3> linears;
  std::array<std::span<float>, 3> outputs;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    linears[i] = projections[i].linear;
    outputs[i] = room(*projections[i].output, rows * linears[i]->n());
  }
  for (std::size_t i = 0, next; i < projections.size(); i = next) {
    linears[i]->prepare(x, rows, w.input);
    for (next = i + 1; next < projections.size() && linears[i]->shares_input(*linears[next]);) ++next;
    ops::run_all(std::span(linears).subspan(i, next - i), w.input, std::span(outputs).subspan(i, next - i));
  }
  if (!tap_) return;
  for (std::size_t i = 0; i < projections.size(); ++i)
    tap_(fmt::format("{}{}", block, projections[i].module), x, linears[i]->k(), outputs[i], linears[i]->n());
}

// x [rows, weight.size()], each row normalised.
void Model::norm(std::span<const float> x, const std::vector<float>& weight, std::span<float> out) const {
  const auto width = static_cast<std::int64_t>(weight.size());
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  parallel_for(static_cast<std::int64_t>(x.size()) / width, row_grain(width),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   elementwise_kernels().rms_norm(x.data() + r * width, weight.data(), width, eps,
                                                  !config_.norm_adds_one, bf16(), out.data() + r * width);
               });
}

// Pages, positions, angles and embeddings of the batch.
void Model::begin(std::span<const Chunk> batch) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  w.rows.clear();
  for (const Chunk& chunk : batch) {
    const std::int64_t past = chunk.cache->length_, length = past + static_cast<std::int64_t>(chunk.tokens.size());
    LOWP_CHECK(length <= c.max_position_embeddings, "sequence of {} tokens", length);
    LOWP_CHECK(chunk.cache->pool_ == kv_pool_, "a cache of another model");
    chunk.cache->reserve(length);
    for (std::int64_t position = past; position < length; ++position) w.rows.push_back({chunk.cache, position});
  }
  w.angles.fill(c.rope, w.rows, c.head_dim, options_.compute);
  if (c.window_rope) w.window_angles.fill(*c.window_rope, w.rows, c.head_dim, options_.compute);

  const float scale = round_to(options_.compute, static_cast<float>(c.embedding_scale));
  float* to = room(w.stream, static_cast<std::int64_t>(w.rows.size()) * c.hidden_size).data();
  for (const Chunk& chunk : batch)
    for (const std::int32_t token : chunk.tokens) {
      LOWP_CHECK(token >= 0 && token < c.vocab_size, "token id {} of {}", token, c.vocab_size);
      load_f32(weights_->embedding, token * c.hidden_size, c.hidden_size, to);
      for (std::int64_t i = 0; i < c.hidden_size; ++i)
        to[i] = round_to(options_.compute, round_to(options_.compute, to[i]) * scale);
      to += c.hidden_size;
    }
}

// RoPE (after the norms of heads, where there are any) and the new keys and values into their pages.
void Model::rotate_and_store(const Layer& layer, std::int64_t index) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  const auto& kernels = elementwise_kernels();
  const std::int64_t d = c.head_dim, heads = c.num_attention_heads, kv_heads = c.num_key_value_heads, half = d / 2;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const Angles& angles = c.window[static_cast<std::size_t>(index)] > 0 && c.window_rope ? w.window_angles : w.angles;
  const auto turn = [&](float* head, const std::vector<float>& norm, std::int64_t row) {
    if (c.head_norms) kernels.rms_norm(head, norm.data(), d, eps, !c.norm_adds_one, bf16(), head);
    kernels.rotate(head, angles.cos.data() + row * half, angles.sin.data() + row * half, half, bf16());
  };
  parallel_for(static_cast<std::int64_t>(w.rows.size()), row_grain((heads + 2 * kv_heads) * d),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const BatchRow& row = w.rows[static_cast<std::size_t>(r)];
                   for (std::int64_t h = 0; h < heads; ++h) turn(&w.queries[(r * heads + h) * d], layer.q_norm, r);
                   std::byte* page = row.cache->page(index, row.position);
                   for (std::int64_t h = 0; h < kv_heads; ++h) {
                     float* key = &w.keys[(r * kv_heads + h) * d];
                     turn(key, layer.k_norm, r);
                     kv_pool_->layout().store(page, h, row.position % kernels::cpu::kPageTokens, key,
                                              &w.values[(r * kv_heads + h) * d]);
                   }
                 }
               });
}

// The sequences of the batch as attention sees them, reading w.queries and writing w.mixed.
void Model::plan_attention(std::span<const Chunk> batch, std::int64_t index) {
  Workspace& w = *workspace_;
  const std::int64_t width = config_.num_attention_heads * config_.head_dim;
  w.pages.clear();
  for (const Chunk& chunk : batch) chunk.cache->layer_pages(index, w.pages);
  w.sequences.clear();
  std::int64_t row = 0;
  std::size_t page = 0;
  for (const Chunk& chunk : batch) {
    const auto rows = static_cast<std::int64_t>(chunk.tokens.size());
    const std::size_t pages = chunk.cache->pages_.size();
    w.sequences.push_back({.queries = w.queries.data() + row * width,
                           .out = w.mixed.data() + row * width,
                           .rows = rows,
                           .past = chunk.cache->length_,
                           .pages = std::span(w.pages).subspan(page, pages)});
    row += rows;
    page += pages;
  }
}

void Model::attention(const Layer& layer, std::int64_t index, std::span<const Chunk> batch, std::span<const float> x) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  const Projection inputs[] = {{&*layer.q, "self_attn.q_proj", &w.queries},
                               {&*layer.k, "self_attn.k_proj", &w.keys},
                               {&*layer.v, "self_attn.v_proj", &w.values}};
  project(inputs, layer.prefix, x);
  rotate_and_store(layer, index);
  const std::span<float> mixed =
      room(w.mixed, static_cast<std::int64_t>(w.rows.size()) * c.num_attention_heads * c.head_dim);
  plan_attention(batch, index);
  const ops::AttendOptions options{
      .heads = c.num_attention_heads,
      .scale = c.query_scale > 0 ? static_cast<float>(c.query_scale) : 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
      .window = c.window[static_cast<std::size_t>(index)],
      .compute = options_.compute};
  ops::attend(kv_pool_->layout(), options, w.sequences, w.attend);
  add_to_stream({&*layer.o, "self_attn.o_proj", &w.out}, layer.prefix, mixed, layer.attention_output_norm);
}

// The residual stream gains a product (normalised first, if `norm` is not empty).
void Model::add_to_stream(const Projection& projection, std::string_view block, std::span<const float> x,
                          const std::vector<float>& norm_weight) {
  Workspace& w = *workspace_;
  const std::int64_t width = config_.hidden_size;
  if (!tap_ && norm_weight.empty()) {
    projection.linear->prepare(x, static_cast<std::int64_t>(w.rows.size()), w.input);
    return ops::run_tiles({&projection.linear, 1}, w.input, [&](std::span<const OutputTile> tiles) {
      for (std::int64_t r = 0; r < tiles[0].rows; ++r)
        elementwise_kernels().add(w.stream.data() + place_of(tiles[0], r, width), row_of(tiles[0], r), tiles[0].columns,
                                  bf16());
    });
  }
  project({&projection, 1}, block, x);
  add_block(norm_weight);
}

// The residual stream gains w.out, normalised first if `norm_weight` is not empty.
void Model::add_block(const std::vector<float>& norm_weight) {
  Workspace& w = *workspace_;
  const std::size_t count = w.rows.size() * static_cast<std::size_t>(config_.hidden_size);
  const std::span<float> out = std::span(w.out).first(count);
  if (!norm_weight.empty()) norm(out, norm_weight, out);
  parallel_for(static_cast<std::int64_t>(count), kGrain, [&](std::int64_t begin, std::int64_t end) {
    elementwise_kernels().add(w.stream.data() + begin, out.data() + begin, end - begin, bf16());
  });
}

// w.gate = activation(gate(x)) * up(x); the result.
std::span<const float> Model::gate_up(const ops::Linear& gate, const ops::Linear& up, std::string_view block,
                                      std::span<const float> x) {
  Workspace& w = *workspace_;
  const bool silu = config_.gate_activation == GateActivation::silu;
  const auto multiply = silu ? elementwise_kernels().silu_mul : elementwise_kernels().gelu_mul;
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / gate.k(), width = gate.n();
  const std::span<float> out = room(w.gate, rows * width);
  if (!tap_ && gate.shares_input(up)) {
    const ops::Linear* const both[] = {&gate, &up};
    gate.prepare(x, rows, w.input);
    ops::run_tiles(both, w.input, [&](std::span<const OutputTile> tiles) {
      for (std::int64_t r = 0; r < tiles[0].rows; ++r) {
        multiply(row_of(tiles[0], r), row_of(tiles[1], r), tiles[0].columns, bf16());
        std::copy_n(row_of(tiles[0], r), tiles[0].columns, out.data() + place_of(tiles[0], r, width));
      }
    });
    return out;
  }
  const Projection both[] = {{&gate, "gate_proj", &w.gate}, {&up, "up_proj", &w.up}};
  project(both, block, x);
  parallel_for(rows * width, kGrain, [&](std::int64_t begin, std::int64_t end) {
    multiply(out.data() + begin, w.up.data() + begin, end - begin, bf16());
  });
  return out;
}

void Model::mlp(const Layer& layer, std::span<const float> x) {
  const std::string block = tap_ ? layer.prefix + "mlp." : std::string();
  add_to_stream({&*layer.down, "down_proj", &workspace_->out}, block, gate_up(*layer.gate, *layer.up, block, x),
                layer.mlp_output_norm);
}

// The experts_per_token likeliest experts of each row and their weights, and for each expert its rows.
void Model::route(std::span<const float> scores) {
  Workspace& w = *workspace_;
  const std::int64_t experts = config_.num_experts, top = config_.experts_per_token;
  const auto rows = static_cast<std::int64_t>(w.rows.size());
  if (w.choices.size() < w.rows.size()) w.choices.resize(w.rows.size());
  parallel_for(rows, row_grain(16 * experts), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> p(static_cast<std::size_t>(experts));
    std::vector<std::int64_t> order(static_cast<std::size_t>(experts));
    for (std::int64_t r = begin; r < end; ++r) {
      const float* s = scores.data() + r * experts;
      const float largest = *std::max_element(s, s + experts);
      float sum = 0;
      for (std::int64_t e = 0; e < experts; ++e) sum += p[e] = std::exp(s[e] - largest);
      for (float& value : p) value /= sum;
      std::iota(order.begin(), order.end(), std::int64_t{0});
      std::partial_sort(order.begin(), order.begin() + top, order.end(),
                        [&](std::int64_t a, std::int64_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
      float kept = 0;
      for (std::int64_t i = 0; i < top; ++i) kept += p[order[i]];
      std::vector<Choice>& chosen = w.choices[static_cast<std::size_t>(r)];
      chosen.clear();
      for (std::int64_t i = 0; i < top; ++i) {
        const float weight = p[order[i]];
        chosen.push_back({order[i], round_to(options_.compute, config_.norm_topk_prob ? weight / kept : weight)});
      }
    }
  });
  w.visits.resize(static_cast<std::size_t>(experts));
  for (std::vector<Visit>& visits : w.visits) visits.clear();
  for (std::int64_t r = 0; r < rows; ++r)
    for (const Choice& choice : w.choices[static_cast<std::size_t>(r)])
      w.visits[static_cast<std::size_t>(choice.expert)].push_back({r, choice.weight});
}

// Each expert multiplies its rows together; a row gains its experts' outputs in the order of their numbers.
void Model::experts(const Layer& layer, std::span<const float> x) {
  Workspace& w = *workspace_;
  const std::int64_t hidden = config_.hidden_size;
  const Elem compute = options_.compute;
  const Projection router{&*layer.router, "gate", &w.scores};
  project({&router, 1}, layer.moe, x);
  route(w.scores);

  const std::span<float> out = room(w.out, static_cast<std::int64_t>(x.size()));
  std::fill(out.begin(), out.end(), 0.0f);
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const std::vector<Visit>& visits = w.visits[e];
    if (visits.empty()) continue;
    const Layer::Expert& expert = layer.experts[e];
    const auto rows = static_cast<std::int64_t>(visits.size());
    const std::span<float> in = room(w.visitors, rows * hidden);
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(x.data() + visits[static_cast<std::size_t>(i)].row * hidden, hidden, in.data() + i * hidden);
    const std::string block = tap_ ? fmt::format("{}experts.{}.", layer.moe, e) : std::string();
    const Projection down{&expert.down, "down_proj", &w.expert_out};
    project({&down, 1}, block, gate_up(expert.gate, expert.up, block, in));
    parallel_for(rows, row_grain(hidden), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Visit& visit = visits[static_cast<std::size_t>(i)];
        const float* from = w.expert_out.data() + i * hidden;
        float* to = out.data() + visit.row * hidden;
        for (std::int64_t j = 0; j < hidden; ++j)
          to[j] = round_to(compute, to[j] + round_to(compute, from[j] * visit.weight));
      }
    });
  }
  add_block(layer.mlp_output_norm);
}

std::vector<float> Model::forward(std::span<const Chunk> batch) {
  Workspace& w = *workspace_;
  begin(batch);
  const std::int64_t count = static_cast<std::int64_t>(w.rows.size()) * config_.hidden_size;
  const std::span<const float> stream(w.stream.data(), static_cast<std::size_t>(count));
  const std::span<float> normed = room(w.normed, count);
  for (std::size_t i = 0; i < weights_->layers.size(); ++i) {
    const Layer& layer = weights_->layers[i];
    norm(stream, layer.attention_norm, normed);
    attention(layer, static_cast<std::int64_t>(i), batch, normed);
    norm(stream, layer.mlp_norm, normed);
    layer.experts.empty() ? mlp(layer, normed) : experts(layer, normed);
  }
  for (const Chunk& chunk : batch) chunk.cache->length_ += static_cast<std::int64_t>(chunk.tokens.size());
  std::vector<float> hidden(static_cast<std::size_t>(count));
  norm(stream, weights_->norm, hidden);
  return hidden;
}

}  // namespace lowp::models
