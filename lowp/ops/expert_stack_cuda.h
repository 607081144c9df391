// The weights of one Linear, or of gate and up together, of all experts of a layer, on a CUDA device.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/ops/activation_cuda.h"
#include "lowp/ops/device.h"
#include "lowp/ops/device_weight_cuda.h"
#include "lowp/ops/linear_weight.h"

namespace lowp::ops {

/// One Linear of each expert, packed as CudaLinear packs it, one expert after the other; of two, gate and up, the
/// outputs lie by turns, eight and eight. Where codes meet codes there is a second copy for many rows, in which they
/// lie one below the other.
class CudaExpertStack {
 public:
  /// experts[e]: the Linear of expert e, or its gate and its up, all in one recipe and of one shape. Weights that say
  /// that they are equal to the first expert's are copied on the device. Errors: Error(unsupported) as CudaLinear, and
  /// for experts that differ in their recipes, or gates of other than a multiple of 8 outputs.
  CudaExpertStack(std::span<const std::vector<const LinearWeight*>> experts, const Device& device);

  std::int64_t n() const { return n_; }  // outputs of an expert, of gate and up together
  std::int64_t k() const { return k_; }
  std::int64_t experts() const { return experts_; }
  const std::string& name() const { return name_; }
  const std::string& note() const { return note_; }
  const std::optional<CudaActivation>& activation() const { return activation_; }

  /// Whether the packed weights multiply codes of 8 bits, and whether there is a copy for dense tiles.
  bool folded() const { return packed_.of_bytes(); }
  bool dense() const { return dense_.codes.size() > 0; }

  /// What is known of a product before its rows.
  kernels::cuda::ExpertsProduct packed() const;
  kernels::cuda::GroupedProduct grouped() const;

  CudaExpertStack copy() const;

 private:
  using Expert = std::vector<const LinearWeight*>;
  enum class Form { folded, own, values };
  CudaExpertStack() = default;
  void check(std::span<const Expert> experts, const Device& device) const;
  std::vector<Form> forms(const Expert& expert) const;
  std::optional<kernels::cuda::PackedWeight> pack(const LinearWeight& weight, Form form);
  std::optional<kernels::cuda::PackedWeight> pack(const Expert& expert, Form form);
  bool upload(std::span<const Expert> experts, Form form);
  void upload_dense(std::span<const Expert> experts);

  int device_ = 0;
  std::int64_t n_ = 0, k_ = 0, experts_ = 0;
  std::string name_, note_;
  std::optional<CudaActivation> activation_;
  bool gated_ = false;
  CudaPackedWeight packed_;
  CudaDenseWeight dense_;
};

}  // namespace lowp::ops
