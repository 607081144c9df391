// Chooses and scores tokens on a GPU: only ids and scores leave it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lowp/kernels/cuda/transfer.h"
#include "lowp/models/token_choice.h"

namespace lowp::models {

class CudaChoice {
 public:
  static constexpr std::int64_t kMostRows = 256;  // of logits, and of questions at a time

  explicit CudaChoice(std::int64_t vocab);

  /// One id for each choice; -1 where nothing can be chosen (kernels/cuda/sample.h). Logits are bf16 [any, vocab],
  /// those of choice i in row rows[i]; up to kMostRows choices.
  std::vector<std::int32_t> choose(const void* logits, std::span<const std::int32_t> rows,
                                   std::span<const TokenChoice> choices, std::int64_t limit,
                                   const kernels::cuda::Stream& stream);
  /// The same for scores. `top` of a question is up to ScoreTask::kMostTop.
  std::vector<TokenScore> score(const void* logits, std::span<const std::int32_t> rows,
                                std::span<const TokenQuestion> questions, std::int64_t limit,
                                const kernels::cuda::Stream& stream);

 private:
  void likeliest(const void* logits, std::int64_t rows, std::int64_t limit, kernels::cuda::StreamHandle stream);
  void draw(const void* logits, std::span<const std::int32_t> rows, std::span<const TokenChoice> choices,
            std::span<const std::size_t> which, std::int64_t limit, kernels::cuda::StreamHandle stream);
  void reserve(std::size_t bytes);

  std::int64_t vocab_;
  kernels::cuda::Memory argmax_;
  kernels::cuda::Memory tokens_;  // i32 [kMostRows]
  kernels::cuda::HostMemory host_tokens_;
  kernels::cuda::Memory changed_;  // f32 [kChangedRows, vocab], once it is needed
  // What goes to the device and what comes back, each one block.
  kernels::cuda::Memory device_;
  kernels::cuda::HostMemory host_;
};

}  // namespace lowp::models
