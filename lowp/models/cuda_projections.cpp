#include "lowp/models/cuda_projections.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/layers.h"

namespace lowp::models {

CudaProjections::CudaProjections(std::span<const ops::LinearWeight> weights, const ops::Device& device) : n_{0} {
  for (const ops::LinearWeight& weight : weights) n_.push_back(n_.back() + weight.n());
  if (auto together = ops::CudaLinear::stacked(weights, device)) {
    linears_.push_back(std::move(*together));
    return;
  }
  for (std::size_t i = 0; i < weights.size(); ++i)
    linears_.push_back(std::move(*ops::CudaLinear::stacked(weights.subspan(i, 1), device)));
}

bool CudaProjections::rows_depend() const {
  return std::any_of(linears_.begin(), linears_.end(), [](const auto& linear) { return linear.rows_depend(); });
}

std::size_t CudaProjections::workspace(std::int64_t rows) const {
  std::size_t most = 0;
  for (const ops::CudaLinear& linear : linears_)  // few rows may need more than some more
    for (const std::int64_t m : {rows, std::min(rows, ops::CudaLinear::kFew)})
      most = std::max(most, linear.workspace(m));
  return most;
}

void CudaProjections::run(const void* x, std::int64_t rows, void* y, void* workspace,
                          kernels::cuda::StreamHandle stream) const {
  if (linears_.size() == 1) return linears_[0].run(x, rows, y, workspace, stream);
  for (std::size_t i = 0; i < linears_.size(); ++i)
    linears_[i].run(x, rows, part(i, rows, y).values, workspace, stream);
}

CudaProjections::Part CudaProjections::part(std::size_t i, std::int64_t rows, void* y) const {
  auto* const values = static_cast<std::uint16_t*>(y);
  if (linears_.size() == 1) return {values + n_[i], n()};
  return {values + rows * n_[i], n_[i + 1] - n_[i]};
}

void CudaProjections::gate(GateActivation activation, std::int64_t rows, void* y, void* out,
                           kernels::cuda::StreamHandle stream) const {
  namespace cuda = kernels::cuda;
  const Part gate = part(0, rows, y), up = part(1, rows, y);
  const auto kind = activation == GateActivation::silu        ? cuda::GateActivation::silu
                    : activation == GateActivation::gelu_tanh ? cuda::GateActivation::gelu_tanh
                                                              : cuda::GateActivation::clamped;
  cuda::gate_mul({.gate = gate.values,
                  .up = up.values,
                  .gate_stride = gate.stride,
                  .up_stride = up.stride,
                  .activation = kind,
                  .out = out,
                  .rows = rows,
                  .width = n_[1]},
                 stream);
}

CudaProjections CudaProjections::copy() const {
  CudaProjections made;
  made.n_ = n_;
  for (const ops::CudaLinear& linear : linears_) made.linears_.push_back(linear.copy());
  return made;
}

}  // namespace lowp::models
