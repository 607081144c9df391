// Products of a stream that follow each other, those that can as one kernel.
#pragma once

#include <optional>
#include <vector>

#include "lowp/kernels/cuda/gemm_packed_product.h"
#include "lowp/ops/linear_cuda.h"

namespace lowp::ops {

/// Enqueues Linears as CudaLinear::run() and run_gated() do, with the same numbers, but holds those of one row back
/// until it knows what comes behind: a kernel of several fetches the weights of the next while it waits for the
/// activations. Whatever else goes to the stream asks for it here, so that it comes behind.
class CudaProducts {
 public:
  /// On the thread's device. `widest`: values of the widest vector that products should hand each other.
  CudaProducts(kernels::cuda::StreamHandle stream, std::int64_t widest);

  /// The stream, on which all products so far are enqueued.
  kernels::cuda::StreamHandle stream();

  void run(const CudaLinear& linear, const CudaLinearTask& task);
  [[nodiscard]] std::optional<kernels::cuda::GateTask> run_gated(const CudaLinear& linear, const CudaLinearTask& task,
                                                                 kernels::GateActivation activation, void* ungated);

 private:
  bool hold(const CudaLinear& linear, const CudaLinearTask& task,
            std::optional<kernels::GateActivation> gate = std::nullopt);

  kernels::cuda::StreamHandle stream_;
  kernels::cuda::ProductMail mail_;
  kernels::cuda::Memory mail_memory_;
  std::vector<kernels::cuda::PackedProduct> held_;
  std::vector<kernels::cuda::AddNormTask> norms_;  // theirs; room for all, so that none moves
};

}  // namespace lowp::ops
