// Memory of a forward pass, kept from call to call so that steps allocate nothing once the largest has been seen.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "lowp/base/threads.h"
#include "lowp/models/cpu_runner.h"
#include "lowp/models/rope.h"
#include "lowp/models/routing.h"

namespace lowp::models {

/// The first `count` of a buffer that grows to hold them.
inline std::span<float> room(std::vector<float>& buffer, std::int64_t count) {
  if (buffer.size() < static_cast<std::size_t>(count)) buffer.resize(static_cast<std::size_t>(count));
  return {buffer.data(), static_cast<std::size_t>(count)};
}

constexpr std::int64_t kGrain = 1 << 14;  // elements worth a chunk of a loop

/// Rows of `width` elements that make a chunk.
inline std::int64_t row_grain(std::int64_t width) { return std::max<std::int64_t>(1, kGrain / width); }

/// Where a row of the batch stands.
struct BatchRow {
  Cache* cache;
  std::int64_t position;
};

/// A row that goes to an expert, with the weight of its output.
struct Visit {
  std::int64_t row;
  float weight;
};

/// An output of an expert that a row gains, among all visits, and its weight.
struct Gain {
  std::int64_t visit;
  float weight;
};

/// cos and sin [rows, head_dim / 2] of the rows' positions.
struct Angles {
  std::vector<float> cos, sin;
  void fill(const Rope& rope, std::span<const BatchRow> rows, std::int64_t head_dim, formats::Elem compute) {
    const std::int64_t count = static_cast<std::int64_t>(rows.size()), half = head_dim / 2;
    const RopeTable table(rope, head_dim, compute);
    room(cos, count * half);
    room(sin, count * half);
    parallel_for(count, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r)
        table.angles(rows[static_cast<std::size_t>(r)].position, cos.data() + r * half, sin.data() + r * half);
    });
  }
};

struct CpuRunner::Workspace {
  std::vector<BatchRow> rows;
  std::vector<float> stream;  // residual stream [rows, hidden]
  std::vector<float> normed;  // input of a block [rows, hidden]
  std::vector<float> out;     // output of a block [rows, hidden]
  Angles angles, window_angles;
  ops::Input input;
  std::vector<float> queries, keys, values, mixed;
  std::vector<float> gate, up;
  ops::AttendScratch attend;
  std::vector<const std::byte*> pages;
  std::vector<ops::AttendSequence> sequences;
  std::vector<float> scores;                // of the router [rows, experts]
  std::vector<float> visitors, expert_out;  // experts' input and output [visits, hidden]
  std::vector<ops::Input> expert_inputs;    // of those that are visited
  std::vector<std::vector<Gain>> gains;     // [rows], in the order of the experts' numbers
  std::vector<std::vector<Visit>> visits;   // [experts]
  std::vector<Choice> choices;              // [rows, experts_per_token]
};

}  // namespace lowp::models
