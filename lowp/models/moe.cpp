// Mixture of experts: which rows go where, and the experts' products. Rounding as in forward.cpp.
#include <algorithm>
#include <array>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/elementwise.h"
#include "lowp/models/workspace.h"

namespace lowp::models {

using formats::round_to;
using ops::OutputTile;

// Where the rows go: for each expert its rows.
void CpuRunner::route(std::span<const float> scores) {
  Workspace& w = *workspace_;
  const auto rows = static_cast<std::int64_t>(w.rows.size()), top = config_.experts_per_token;
  models::route(config_, options_.compute, scores.first(static_cast<std::size_t>(rows * config_.num_experts)),
                w.choices);
  w.visits.resize(static_cast<std::size_t>(config_.num_experts));
  for (std::vector<Visit>& visits : w.visits) visits.clear();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t i = 0; i < top; ++i) {
      const Choice& choice = w.choices[static_cast<std::size_t>(r * top + i)];
      w.visits[static_cast<std::size_t>(choice.expert)].push_back({r, choice.weight});
    }
}

// `to` gains weight times an expert's output.
void CpuRunner::add_weighted(const float* from, float weight, float* to) const {
  for (std::int64_t j = 0; j < config_.hidden_size; ++j)
    to[j] = round_to(options_.compute, to[j] + round_to(options_.compute, from[j] * weight));
}

// Each expert multiplies its rows together; a row gains its experts' outputs in the order of their numbers.
void CpuRunner::experts(const Layer& layer, std::span<const float> x) {
  Workspace& w = *workspace_;
  const Projection router{&*layer.router, layer.names.router, &w.scores};
  project({&router, 1}, tap_ ? layer.prefix + layer.moe : "", {x});
  route(w.scores);
  const std::span<float> out = room(w.out, static_cast<std::int64_t>(x.size()));
  std::fill(out.begin(), out.end(), 0.0f);
  const bool fused = !tap_ && std::all_of(layer.experts.begin(), layer.experts.end(), [](const Layer::Expert& expert) {
    return expert.gate.shares_input(expert.up);
  });
  fused ? experts_together(layer, x, out) : experts_one_by_one(layer, x, out);
  add_block(layer.mlp_output_norm);
}

// All experts in one loop over the threads for each of their products: few rows of an expert are little work.
void CpuRunner::experts_together(const Layer& layer, std::span<const float> x, std::span<float> out) {
  Workspace& w = *workspace_;
  const std::int64_t hidden = config_.hidden_size, width = layer.experts[0].gate.n();
  const auto multiply = gate_kernel();
  const auto rows = static_cast<std::int64_t>(w.rows.size());
  struct Busy {
    const Layer::Expert* expert;
    const std::vector<Visit>* visits;
    std::int64_t first;  // visit among all
    std::array<const ops::Linear*, 2> gate_up;
    std::array<const ops::Linear*, 1> down;
  };
  std::vector<Busy> busy;
  if (w.gains.size() < w.rows.size()) w.gains.resize(w.rows.size());
  for (std::int64_t r = 0; r < rows; ++r) w.gains[static_cast<std::size_t>(r)].clear();
  std::int64_t all = 0;
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    if (w.visits[e].empty()) continue;
    const Layer::Expert& expert = layer.experts[e];
    busy.push_back({&expert, &w.visits[e], all, {&expert.gate, &expert.up}, {&expert.down}});
    for (const Visit& visit : w.visits[e])
      w.gains[static_cast<std::size_t>(visit.row)].push_back({all++, visit.weight});
  }
  if (w.expert_inputs.size() < busy.size()) w.expert_inputs.resize(busy.size());
  const std::span<float> gated = room(w.gate, all * width), outputs = room(w.expert_out, all * hidden);
  const auto each = [&](auto&& body) {
    parallel_for(static_cast<std::int64_t>(busy.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
        body(busy[i], static_cast<std::int64_t>(busy[i].visits->size()), w.expert_inputs[i]);
    });
  };
  const auto run = [&](auto&& linears, const auto& done) {
    std::vector<ops::Product> products;
    for (std::size_t i = 0; i < busy.size(); ++i) products.push_back({linears(busy[i]), &w.expert_inputs[i]});
    ops::run_tiles(products, done);
  };

  each([&](const Busy& b, std::int64_t count, ops::Input& input) {
    const auto visitor = [&](std::int64_t i, float* values) {
      std::copy_n(x.data() + (*b.visits)[static_cast<std::size_t>(i)].row * hidden, hidden, values);
    };
    b.expert->gate.prepare(visitor, count, input);
  });
  run([](const Busy& b) { return std::span<const ops::Linear* const>(b.gate_up); },
      [&](std::size_t i, std::span<const OutputTile> tiles) {
        for (std::int64_t r = 0; r < tiles[0].rows; ++r) {
          multiply(tiles[0].row_at(r), tiles[1].row_at(r), tiles[0].columns, bf16());
          std::copy_n(tiles[0].row_at(r), tiles[0].columns,
                      gated.data() + busy[i].first * width + tiles[0].place(r, width));
        }
      });
  each([&](const Busy& b, std::int64_t count, ops::Input& input) {
    b.expert->down.prepare(
        gated.subspan(static_cast<std::size_t>(b.first * width), static_cast<std::size_t>(count * width)), count,
        input);
  });
  run([](const Busy& b) { return std::span<const ops::Linear* const>(b.down); },
      [&](std::size_t i, std::span<const OutputTile> tiles) {
        for (std::int64_t r = 0; r < tiles[0].rows; ++r)
          std::copy_n(tiles[0].row_at(r), tiles[0].columns,
                      outputs.data() + busy[i].first * hidden + tiles[0].place(r, hidden));
      });
  parallel_for(rows, row_grain(hidden * config_.experts_per_token), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (const Gain& gain : w.gains[static_cast<std::size_t>(r)])
        add_weighted(outputs.data() + gain.visit * hidden, gain.weight, out.data() + r * hidden);
  });
}

// The same, expert by expert, as a tap wants to see them.
void CpuRunner::experts_one_by_one(const Layer& layer, std::span<const float> x, std::span<float> out) {
  Workspace& w = *workspace_;
  const std::int64_t hidden = config_.hidden_size;
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const std::vector<Visit>& visits = w.visits[e];
    if (visits.empty()) continue;
    const Layer::Expert& expert = layer.experts[e];
    const auto rows = static_cast<std::int64_t>(visits.size());
    const std::span<float> in = room(w.visitors, rows * hidden);
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(x.data() + visits[static_cast<std::size_t>(i)].row * hidden, hidden, in.data() + i * hidden);
    const std::string block = tap_ ? fmt::format("{}{}experts.{}.", layer.prefix, layer.moe, e) : std::string();
    const Projection down{&expert.down, layer.names.down, &w.expert_out};
    project({&down, 1}, block, {gate_up(expert.gate, expert.up, layer.names, block, {in})});
    for (std::int64_t i = 0; i < rows; ++i) {
      const Visit& visit = visits[static_cast<std::size_t>(i)];
      add_weighted(w.expert_out.data() + i * hidden, visit.weight, out.data() + visit.row * hidden);
    }
  }
}

}  // namespace lowp::models
