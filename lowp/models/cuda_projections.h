// Linears that share an input, on a GPU.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lowp/models/config.h"
#include "lowp/ops/products_cuda.h"

namespace lowp::models {

/// One product where the weights can lie together (ops::CudaLinear::stacked or gated), else one for each.
class CudaProjections {
 public:
  /// `gated`: of a gate and an up projection that only run_gated() is asked for. Throws Error as ops::CudaLinear does.
  CudaProjections(std::span<const ops::LinearWeight> weights, const ops::Device& device, bool gated,
                  ops::Operands operands);

  std::int64_t k() const { return linears_[0].k(); }
  /// Outputs of all.
  std::int64_t n() const { return n_.back(); }
  bool rows_depend() const;
  void keep_order();

  /// Bytes of workspace that run() needs for up to `rows` rows.
  std::size_t workspace(std::int64_t rows) const;

  /// The products of a task's x into y, bf16 with room for [m, n()]. See ops::CudaLinear::run().
  void run(const ops::CudaLinearTask& task, ops::CudaProducts& products) const;

  /// The outputs of Linear i in y: its row r at r * stride.
  struct Part {
    std::uint16_t* values;  // bf16
    std::int64_t stride;    // in values
  };
  Part part(std::size_t i, std::int64_t rows, void* y) const;

  /// Of a gate and an up projection: ops::CudaLinear::run_gated().
  [[nodiscard]] std::optional<kernels::cuda::GateTask> run_gated(const ops::CudaLinearTask& task,
                                                                 kernels::GateActivation activation, void* ungated,
                                                                 ops::CudaProducts& products) const;

  /// The same weights in memory of their own.
  CudaProjections copy() const;

 private:
  CudaProjections() = default;
  bool gated_ = false;  // the one Linear is
  std::vector<ops::CudaLinear> linears_;
  std::vector<std::int64_t> n_;  // n_[i]: outputs before Linear i; the last: of all
};

}  // namespace lowp::models
