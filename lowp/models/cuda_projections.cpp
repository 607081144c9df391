#include "lowp/models/cuda_projections.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/layers.h"

namespace lowp::models {

namespace cuda = kernels::cuda;

CudaProjections::CudaProjections(std::span<const ops::LinearWeight> weights, const ops::Device& device, bool gated,
                                 ops::Operands operands)
    : n_{0} {
  for (const ops::LinearWeight& weight : weights) n_.push_back(n_.back() + weight.n());
  if (auto together = gated ? ops::CudaLinear::gated(weights, device, operands)
                            : ops::CudaLinear::stacked(weights, device, operands)) {
    gated_ = gated;
    linears_.push_back(std::move(*together));
    return;
  }
  for (std::size_t i = 0; i < weights.size(); ++i)
    linears_.push_back(std::move(*ops::CudaLinear::stacked(weights.subspan(i, 1), device, operands)));
}

bool CudaProjections::rows_depend() const {
  return std::any_of(linears_.begin(), linears_.end(), [](const auto& linear) { return linear.rows_depend(); });
}

void CudaProjections::keep_order() {
  for (ops::CudaLinear& linear : linears_) linear.keep_order();
}

std::size_t CudaProjections::workspace(std::int64_t rows) const {
  std::size_t most = 0;
  for (const ops::CudaLinear& linear : linears_)  // few rows may need more than some more
    for (const std::int64_t m : {rows, std::min(rows, ops::CudaLinear::kFew)})
      most = std::max(most, linear.workspace(m));
  return most;
}

void CudaProjections::run(const ops::CudaLinearTask& task, ops::CudaProducts& products) const {
  if (linears_.size() == 1) return products.run(linears_[0], task);
  if (task.norm) cuda::add_norm(*task.norm, products.stream());
  if (task.gate) cuda::gate_mul(*task.gate, products.stream());
  for (std::size_t i = 0; i < linears_.size(); ++i)
    products.run(linears_[i],
                 {.m = task.m, .x = task.x, .y = part(i, task.m, task.y).values, .workspace = task.workspace});
}

std::optional<cuda::GateTask> CudaProjections::run_gated(const ops::CudaLinearTask& task,
                                                         kernels::GateActivation activation, void* ungated,
                                                         ops::CudaProducts& products) const {
  if (gated_) return products.run_gated(linears_[0], task, activation, ungated);
  ops::CudaLinearTask both = task;
  both.y = ungated;
  run(both, products);
  const Part gate = part(0, task.m, ungated), up = part(1, task.m, ungated);
  return cuda::GateTask{.gate = gate.values,
                        .up = up.values,
                        .gate_stride = gate.stride,
                        .up_stride = up.stride,
                        .activation = activation,
                        .out = task.y,
                        .rows = task.m,
                        .width = n_[1]};
}

CudaProjections::Part CudaProjections::part(std::size_t i, std::int64_t rows, void* y) const {
  auto* const values = static_cast<std::uint16_t*>(y);
  if (linears_.size() == 1) return {values + n_[i], n()};
  return {values + rows * n_[i], n_[i + 1] - n_[i]};
}

CudaProjections CudaProjections::copy() const {
  CudaProjections made;
  made.gated_ = gated_;
  made.n_ = n_;
  for (const ops::CudaLinear& linear : linears_) made.linears_.push_back(linear.copy());
  return made;
}

}  // namespace lowp::models
