// The forward pass. Dtypes follow transformers in eager mode: the residual stream, norms, RoPE and products are rounded
// to the compute dtype where a tensor of that dtype is written; sums, softmax and norms run in f32.
#include <algorithm>
#include <array>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/elementwise.h"
#include "lowp/kernels/head_hadamard.h"
#include "lowp/models/workspace.h"

namespace lowp::models {
namespace {

using formats::round_to;
using kernels::cpu::elementwise_kernels;
using ops::OutputTile;

}  // namespace

// What they are; in w.normed if they are to be normalised.
std::span<const float> CpuRunner::values(Rows in) const {
  if (!in.norm) return in.x;
  const std::span<float> normed = room(workspace_->normed, static_cast<std::int64_t>(in.x.size()));
  norm(in.x, *in.norm, normed);
  return normed;
}

// Quantizes them into w.input: each row is normalised where it is quantized.
void CpuRunner::prepare(const ops::Linear& linear, Rows in) const {
  const std::int64_t k = linear.k(), rows = static_cast<std::int64_t>(in.x.size()) / k;
  if (!in.norm) return linear.prepare(in.x, rows, workspace_->input);
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const auto normalised = [&](std::int64_t row, float* out) {
    elementwise_kernels().rms_norm(in.x.data() + row * k, in.norm->data(), k, eps, !config_.norm_rounds_once, bf16(),
                                   out);
  };
  linear.prepare(normalised, rows, workspace_->input);
}

// All of them, with the input quantized once if they share it: outputs[i] is [rows, projections[i].linear->n()].
void CpuRunner::project(std::span<const Projection> projections, std::string_view block, Rows in) const {
  Workspace& w = *workspace_;
  if (tap_) in = {values(in)};
  const std::int64_t rows = static_cast<std::int64_t>(in.x.size()) / projections[0].linear->k();
  std::array<const ops::Linear*, 3> linears;
  std::array<std::span<float>, 3> outputs;
  for (std::size_t i = 0; i < projections.size(); ++i) {
    linears[i] = projections[i].linear;
    outputs[i] = room(*projections[i].output, rows * linears[i]->n());
  }
  for (std::size_t i = 0, next; i < projections.size(); i = next) {
    prepare(*linears[i], in);
    for (next = i + 1; next < projections.size() && linears[i]->shares_input(*linears[next]);) ++next;
    ops::run_all(std::span(linears).subspan(i, next - i), w.input, std::span(outputs).subspan(i, next - i));
  }
  if (!tap_) return;
  for (std::size_t i = 0; i < projections.size(); ++i)
    tap_(fmt::format("{}{}", block, projections[i].module), in.x, linears[i]->k(), outputs[i], linears[i]->n());
}

// x [rows, weight.size()], each row normalised.
void CpuRunner::norm(std::span<const float> x, const std::vector<float>& weight, std::span<float> out) const {
  const auto width = static_cast<std::int64_t>(weight.size());
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  parallel_for(static_cast<std::int64_t>(x.size()) / width, row_grain(width),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r)
                   elementwise_kernels().rms_norm(x.data() + r * width, weight.data(), width, eps,
                                                  !config_.norm_rounds_once, bf16(), out.data() + r * width);
               });
}

// Pages, positions, angles and embeddings of the batch.
void CpuRunner::begin(std::span<const Chunk> batch) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  w.rows.clear();
  for (const Chunk& chunk : batch) {
    const std::int64_t past = chunk.cache->length(), length = past + static_cast<std::int64_t>(chunk.tokens.size());
    for (std::int64_t position = past; position < length; ++position) w.rows.push_back({chunk.cache, position});
  }
  w.angles.fill(c.rope, w.rows, c.head_dim, options_.compute);
  if (c.window_rope) w.window_angles.fill(*c.window_rope, w.rows, c.head_dim, options_.compute);

  const float scale = round_to(options_.compute, static_cast<float>(c.embedding_scale));
  float* to = room(w.stream, static_cast<std::int64_t>(w.rows.size()) * c.hidden_size).data();
  for (const Chunk& chunk : batch)
    for (const std::int32_t token : chunk.tokens) {
      load_f32(weights_.embedding, token * c.hidden_size, c.hidden_size, to);
      for (std::int64_t i = 0; i < c.hidden_size; ++i)
        to[i] = round_to(options_.compute, round_to(options_.compute, to[i]) * scale);
      to += c.hidden_size;
    }
}

// RoPE (after the norms of heads, where there are any), Hadamard transforms where attention wants them, and the new
// keys and values into their pages.
void CpuRunner::rotate_and_store(const Layer& layer, std::int64_t index) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  const auto& kernels = elementwise_kernels();
  const std::int64_t d = c.head_dim, heads = c.num_attention_heads, kv_heads = c.num_key_value_heads, half = d / 2;
  const auto eps = static_cast<float>(c.rms_norm_eps);
  const Angles& angles = c.window[static_cast<std::size_t>(index)] > 0 && c.window_rope ? w.window_angles : w.angles;
  const auto turn = [&](float* head, const std::vector<float>& norm, std::int64_t row) {
    if (c.head_norms) kernels.rms_norm(head, norm.data(), d, eps, !c.norm_rounds_once, bf16(), head);
    kernels.rotate(head, angles.cos.data() + row * half, angles.sin.data() + row * half, half, bf16());
  };
  const auto transform = [&](float* head) {
    kernels::hadamard_head(head, d);
    for (std::int64_t i = 0; i < d; ++i) head[i] = round_to(options_.compute, head[i]);
  };
  const bool rotates_keys = ops::rotates_keys(options_.attention),
             rotates_values = ops::rotates_values(options_.attention);
  parallel_for(static_cast<std::int64_t>(w.rows.size()), row_grain((heads + 2 * kv_heads) * d),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const BatchRow& row = w.rows[static_cast<std::size_t>(r)];
                   for (std::int64_t h = 0; h < heads; ++h) {
                     float* query = &w.queries[(r * heads + h) * d];
                     turn(query, layer.q_norm, r);
                     if (rotates_keys) transform(query);
                   }
                   std::byte* page = row.cache->page(index, row.position);
                   for (std::int64_t h = 0; h < kv_heads; ++h) {
                     float *key = &w.keys[(r * kv_heads + h) * d], *value = &w.values[(r * kv_heads + h) * d];
                     turn(key, layer.k_norm, r);
                     if (rotates_keys) transform(key);
                     if (rotates_values) transform(value);
                     layout_.store(page, h, row.position % kernels::cpu::kPageTokens, key, value);
                   }
                 }
               });
}

// The sequences of the batch as attention sees them, reading w.queries and writing w.mixed.
void CpuRunner::plan_attention(std::span<const Chunk> batch, std::int64_t index) {
  Workspace& w = *workspace_;
  const std::int64_t width = config_.num_attention_heads * config_.head_dim;
  w.pages.clear();
  for (const Chunk& chunk : batch) chunk.cache->layer_pages(index, w.pages);
  w.sequences.clear();
  std::int64_t row = 0;
  std::size_t page = 0;
  for (const Chunk& chunk : batch) {
    const auto rows = static_cast<std::int64_t>(chunk.tokens.size());
    const std::size_t pages = chunk.cache->pages().size();
    w.sequences.push_back({.queries = w.queries.data() + row * width,
                           .out = w.mixed.data() + row * width,
                           .rows = rows,
                           .past = chunk.cache->length(),
                           .pages = std::span(w.pages).subspan(page, pages)});
    row += rows;
    page += pages;
  }
}

void CpuRunner::attention(const Layer& layer, std::int64_t index, std::span<const Chunk> batch, Rows in) {
  const Config& c = config_;
  Workspace& w = *workspace_;
  const Projection inputs[] = {{&*layer.q, "self_attn.q_proj", &w.queries},
                               {&*layer.k, "self_attn.k_proj", &w.keys},
                               {&*layer.v, "self_attn.v_proj", &w.values}};
  project(inputs, layer.prefix, in);
  rotate_and_store(layer, index);
  const std::span<float> mixed =
      room(w.mixed, static_cast<std::int64_t>(w.rows.size()) * c.num_attention_heads * c.head_dim);
  plan_attention(batch, index);
  const ops::AttendOptions options{
      .heads = c.num_attention_heads,
      .scale = c.query_scale > 0 ? static_cast<float>(c.query_scale) : 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
      .window = c.window[static_cast<std::size_t>(index)],
      .sinks = layer.sinks,
      .compute = options_.compute,
      .e4m3 = ops::is_fp8(options_.attention),
      .hadamard = ops::rotates_values(options_.attention)};
  ops::attend(layout_, options, w.sequences, w.attend);
  add_to_stream({&*layer.o, "self_attn.o_proj", &w.out}, layer.prefix, mixed, layer.attention_output_norm);
}

// The residual stream gains a product (normalised first, if `norm` is not empty).
void CpuRunner::add_to_stream(const Projection& projection, std::string_view block, std::span<const float> x,
                              const std::vector<float>& norm_weight) {
  Workspace& w = *workspace_;
  const std::int64_t width = config_.hidden_size;
  if (!tap_ && norm_weight.empty()) {
    prepare(*projection.linear, {x});
    const ops::Product product{{&projection.linear, 1}, &w.input};
    return ops::run_tiles({&product, 1}, [&](std::size_t, std::span<const OutputTile> tiles) {
      for (std::int64_t r = 0; r < tiles[0].rows; ++r)
        elementwise_kernels().add(w.stream.data() + tiles[0].place(r, width), tiles[0].row_at(r), tiles[0].columns,
                                  bf16());
    });
  }
  project({&projection, 1}, block, {x});
  add_block(norm_weight);
}

// The residual stream gains w.out, normalised first if `norm_weight` is not empty.
void CpuRunner::add_block(const std::vector<float>& norm_weight) {
  Workspace& w = *workspace_;
  const std::size_t count = w.rows.size() * static_cast<std::size_t>(config_.hidden_size);
  const std::span<float> out = std::span(w.out).first(count);
  if (!norm_weight.empty()) norm(out, norm_weight, out);
  parallel_for(static_cast<std::int64_t>(count), kGrain, [&](std::int64_t begin, std::int64_t end) {
    elementwise_kernels().add(w.stream.data() + begin, out.data() + begin, end - begin, bf16());
  });
}

CpuRunner::GateKernel CpuRunner::gate_kernel() const {
  switch (config_.gate_activation) {
    case kernels::GateActivation::silu:
      return elementwise_kernels().silu_mul;
    case kernels::GateActivation::gelu_tanh:
      return elementwise_kernels().gelu_mul;
    case kernels::GateActivation::clamped:
      return elementwise_kernels().clamped_mul;
  }
  LOWP_CHECK(false, "an activation without a kernel");
}

// w.gate = activation(gate(in)) * up(in); the result.
std::span<const float> CpuRunner::gate_up(const ops::Linear& gate, const ops::Linear& up,
                                          const checkpoint::ExpertNames& names, std::string_view block, Rows in) {
  Workspace& w = *workspace_;
  const auto multiply = gate_kernel();
  const std::int64_t rows = static_cast<std::int64_t>(in.x.size()) / gate.k(), width = gate.n();
  const std::span<float> out = room(w.gate, rows * width);
  if (!tap_ && gate.shares_input(up)) {
    const ops::Linear* const both[] = {&gate, &up};
    prepare(gate, in);
    const ops::Product product{both, &w.input};
    ops::run_tiles({&product, 1}, [&](std::size_t, std::span<const OutputTile> tiles) {
      for (std::int64_t r = 0; r < tiles[0].rows; ++r) {
        multiply(tiles[0].row_at(r), tiles[1].row_at(r), tiles[0].columns, bf16());
        std::copy_n(tiles[0].row_at(r), tiles[0].columns, out.data() + tiles[0].place(r, width));
      }
    });
    return out;
  }
  const Projection both[] = {{&gate, names.gate, &w.gate}, {&up, names.up, &w.up}};
  project(both, block, in);
  parallel_for(rows * width, kGrain, [&](std::int64_t begin, std::int64_t end) {
    multiply(out.data() + begin, w.up.data() + begin, end - begin, bf16());
  });
  return out;
}

void CpuRunner::mlp(const Layer& layer, Rows in) {
  const std::string block = tap_ ? layer.prefix + "mlp." : std::string();
  add_to_stream({&*layer.down, layer.names.down, &workspace_->out}, block,
                gate_up(*layer.gate, *layer.up, layer.names, block, in), layer.mlp_output_norm);
}

void CpuRunner::forward(std::span<const Chunk> batch) {
  Workspace& w = *workspace_;
  begin(batch);
  const std::int64_t count = static_cast<std::int64_t>(w.rows.size()) * config_.hidden_size;
  const std::span<const float> stream(w.stream.data(), static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const Layer& layer = weights_.layers[i];
    attention(layer, static_cast<std::int64_t>(i), batch, {stream, &layer.attention_norm});
    const Rows in{stream, &layer.mlp_norm};
    layer.experts.empty() ? mlp(layer, in) : experts(layer, values(in));
  }
}

void CpuRunner::logits(std::span<const std::int64_t> rows, std::span<float> out) {
  Workspace& w = *workspace_;
  const std::int64_t width = config_.hidden_size, count = static_cast<std::int64_t>(rows.size());
  const std::span<float> hidden = room(w.normed, count * width);
  for (std::int64_t i = 0; i < count; ++i)
    std::copy_n(w.stream.data() + rows[static_cast<std::size_t>(i)] * width, width, hidden.data() + i * width);
  norm(hidden, weights_.norm, hidden);
  weights_.head->run(hidden, count, out);
}

std::vector<std::int32_t> CpuRunner::likeliest(std::span<const std::int64_t> rows, std::int64_t limit) {
  std::vector<float> all(rows.size() * static_cast<std::size_t>(config_.vocab_size));
  logits(rows, all);
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto row =
        std::span(all).subspan(i * static_cast<std::size_t>(config_.vocab_size), static_cast<std::size_t>(limit));
    const bool finite = std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
    ids.push_back(finite ? static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin()) : -1);
  }
  return ids;
}

}  // namespace lowp::models
