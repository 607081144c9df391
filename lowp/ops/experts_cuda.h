// A layer's router and experts on a CUDA device: rows are routed, multiplied by the experts they go to, and added up,
// without a word from the host.
#pragma once

#include <string>

#include "lowp/ops/expert_stack_cuda.h"
#include "lowp/ops/linear_cuda.h"

namespace lowp::ops {

class CudaExperts {
 public:
  /// How rows choose, and what the gate goes through.
  struct Choosing {
    std::int64_t top = 1;       // experts of a row
    bool normalize = true;      // their weights are divided by their sum
    bool round_weights = true;  // to bf16
    kernels::GateActivation gate = kernels::GateActivation::silu;
  };
  /// Throws Error(unsupported) for more than kMostExperts experts or kMostChosen of them for a row.
  CudaExperts(const LinearWeight& router, CudaExpertStack gate_up, CudaExpertStack down, const Choosing& choosing,
              const Device& device);

  /// Device memory.
  struct Task {
    std::int64_t rows = 0;
    const std::int32_t* positions = nullptr;  // [rows], or null; rows with a negative one are nobody's: their sum is 0
    const void* x = nullptr;                  // bf16 [rows, hidden]
    /// If not null, of so many rows of hidden and with out = x: x is what this norm makes of its stream, and is
    /// written.
    const kernels::cuda::AddNormTask* norm = nullptr;
    void* out = nullptr;        // bf16 [rows, hidden]
    void* workspace = nullptr;  // workspace(rows) bytes
  };
  /// Enqueues the norm and out = the weighted sums of what the experts make of x, each row's in the order of the
  /// experts' numbers, rounded to bf16 as models/moe.cpp rounds. Allocates nothing and waits for nothing.
  ///
  /// Up to kFewest rows, where there is room for their activations: a kernel for norm and scores, and two for products.
  /// More: visits are gathered and multiplied by tiles, of packed weights, or from kFew rows on of codes by codes where
  /// there are two. Activations are put on their grid once for each row, before they are gathered; where the rows of a
  /// call share a scale, those of an expert do.
  void run(const Task& task, kernels::cuda::StreamHandle stream) const;

  /// For run() of up to so many rows.
  std::size_t workspace(std::int64_t rows) const;
  /// What run() does with so many rows, a line.
  std::string plan(std::int64_t rows) const;

  /// Whether rows of a call share a scale, so that each depends on the others.
  bool rows_depend() const;
  /// From now on a row has the same bits whatever the number of rows: always tiles, sums in one order. Not where
  /// rows_depend().
  void keep_order();

  CudaExperts copy() const;

  static constexpr std::int64_t kFewest = 8, kFew = 64;  // the latter as CudaLinear's

 private:
  CudaExperts(CudaLinear router, CudaExpertStack gate_up, CudaExpertStack down, const Choosing& choosing);
  enum class Way { few, many, dense };
  struct Places;
  Way way(std::int64_t rows) const;
  kernels::cuda::RoutedRows routed(std::int64_t rows) const;
  Places place(std::int64_t rows, void* workspace) const;
  void score(const Task& task, const Places& p, kernels::cuda::StreamHandle stream) const;
  void run_few(const Task& task, const kernels::cuda::ExpertChoice& choice, const Places& p,
               kernels::cuda::StreamHandle stream) const;
  void run_many(const Task& task, const Places& p, kernels::cuda::StreamHandle stream) const;
  void gather(const Task& task, const Places& p, kernels::cuda::StreamHandle stream) const;
  void multiply(const CudaExpertStack& stack, const Places& p, const CudaActivation::Parts& parts, const void* x,
                void* y, kernels::cuda::StreamHandle stream) const;
  void multiply_codes(const CudaExpertStack& stack, const Places& p, const CudaActivation::Parts& parts, void* y,
                      kernels::cuda::StreamHandle stream) const;

  CudaLinear router_;
  kernels::cuda::Memory router_values_, router_bias_;  // as they are, for few rows; empty if it is quantized
  CudaExpertStack gate_up_, down_;
  Choosing choosing_;
  bool same_order_ = false;
};

}  // namespace lowp::ops
