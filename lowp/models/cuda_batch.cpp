#include "lowp/models/cuda_batch.h"

#include <algorithm>
#include <array>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"

namespace lowp::models {

namespace cuda = kernels::cuda;

CudaBatch::CudaBatch(std::int64_t context)
    : max_pages_(ceil_div(context, kPageTokens)),
      pages_(static_cast<std::size_t>(kMostSequences * max_pages_) * sizeof(void*)),
      host_pages_(pages_.size()),
      shown_(kMostSequences) {}

void CudaBatch::reserve(std::int64_t rows) {
  const auto bytes = static_cast<std::size_t>(5 * (round_up<std::int64_t>(rows, 4) + 4)) * sizeof(std::int32_t);
  numbers_ = cuda::Memory(bytes);
  host_numbers_ = cuda::HostMemory(bytes);
}

CudaStep CudaBatch::place(std::span<const Chunk> batch, std::int64_t rows, cuda::StreamHandle stream) {
  std::vector<const Chunk*> order;
  for (const Chunk& chunk : batch)
    if (chunk.tokens.size() > 1) order.push_back(&chunk);
  CudaStep step{.rows = rows, .prompts = static_cast<std::int64_t>(order.size())};
  for (const Chunk* chunk : order) step.prompt_rows += static_cast<std::int64_t>(chunk->tokens.size());
  for (const Chunk& chunk : batch)
    if (chunk.tokens.size() == 1) order.push_back(&chunk);
  step.sequences = step.prompts + rows - step.prompt_rows;
  if (step.sequences > kMostSequences)
    fail(ErrorCode::unsupported, "a step of {} sequences: a GPU takes {}", step.sequences, kMostSequences);

  // One block of numbers, each array at a multiple of 16 bytes.
  const std::int64_t each = round_up<std::int64_t>(rows, 4), ends = round_up<std::int64_t>(step.sequences + 1, 4);
  const auto bytes = static_cast<std::size_t>(3 * each + 2 * ends) * sizeof(std::int32_t);
  LOWP_CHECK(bytes <= numbers_.size(), "a step of {} rows", rows);
  const auto arrays = [&](std::int32_t* base) {
    return std::array{base, base + each, base + 2 * each, base + 3 * each, base + 3 * each + ends};
  };
  const auto [tokens, positions, sequence, row_begin, past] = arrays(host_numbers_.as<std::int32_t>());
  const auto device = arrays(numbers_.as<std::int32_t>());
  step.tokens = device[0], step.positions = device[1], step.sequence = device[2];
  step.row_begin = device[3], step.past = device[4];

  std::vector<std::int64_t> first(batch.size());  // row of each chunk
  std::int32_t row = 0, index = 0;
  for (const Chunk* chunk : order) {
    first[static_cast<std::size_t>(chunk - batch.data())] = row;
    row_begin[index] = row;
    past[index] = static_cast<std::int32_t>(chunk->cache->length());
    for (std::size_t i = 0; i < chunk->tokens.size(); ++i, ++row) {
      tokens[row] = chunk->tokens[i];
      positions[row] = past[index] + static_cast<std::int32_t>(i);
      sequence[row] = index;
    }
    ++index;
  }
  for (std::int64_t s = index; s <= step.sequences; ++s) row_begin[s] = row;
  for (std::int64_t s = index; s < step.sequences; ++s) past[s] = 0;
  for (std::int64_t r = row; r < rows; ++r) {
    tokens[r] = positions[r] = -1;
    sequence[r] = 0;
  }
  cuda::copy(numbers_.as<>(), host_numbers_.as<void>(), bytes, stream);
  place_pages(order, stream);

  row_.clear();
  for (std::size_t c = 0; c < batch.size(); ++c)
    for (std::size_t i = 0; i < batch[c].tokens.size(); ++i) row_.push_back(first[c] + static_cast<std::int64_t>(i));
  return step;
}

void CudaBatch::place_pages(std::span<const Chunk* const> order, cuda::StreamHandle stream) {
  std::size_t begin = order.size(), end = 0, width = 0;
  std::vector<const std::byte*> pages;
  for (std::size_t s = 0; s < order.size(); ++s) {
    pages.clear();
    order[s]->cache->layer_pages(0, pages);
    width = std::max(width, pages.size());
    if (shown_[s] == pages) continue;
    shown_[s] = pages;
    begin = std::min(begin, s);
    end = s + 1;
  }
  if (begin >= end) return;
  auto* const host = host_pages_.as<const std::byte*>();
  for (std::size_t s = begin; s < end; ++s) std::copy(shown_[s].begin(), shown_[s].end(), host + (s - begin) * width);
  const std::size_t pitch = static_cast<std::size_t>(max_pages_) * sizeof(void*), row = width * sizeof(void*);
  cuda::copy_rows(pages_.as<std::byte>() + begin * pitch, pitch, host, row, row, end - begin, stream);
}

}  // namespace lowp::models
