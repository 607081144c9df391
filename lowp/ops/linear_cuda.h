// y = x W^T + b under a recipe on a CUDA device: weights packed and copied once, then plan (printable) and run.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/formats/recipe.h"
#include "lowp/kernels/cuda/gemm_packed_product.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/ops/activation_cuda.h"
#include "lowp/ops/device.h"
#include "lowp/ops/device_weight_cuda.h"
#include "lowp/ops/linear_weight.h"
#include "lowp/ops/operands.h"

namespace lowp::ops {

/// A product and what stands in front of it in a decoder. Device memory.
struct CudaLinearTask {
  std::int64_t m = 0;
  const void* x = nullptr;  // bf16 [m, k]
  // x is what one of these, if not null, makes in its `out`. Where product or cast do that as they read, x is not
  // written.
  const kernels::cuda::AddNormTask* norm = nullptr;
  const kernels::cuda::GateTask* gate = nullptr;
  void* y = nullptr;          // bf16 [m, n]
  void* workspace = nullptr;  // CudaLinear::workspace(m) bytes
};

/// A Linear's weight on a device. Activations and results are bf16 in device memory.
///
/// Recipes whose operands are both e4m3, or both int8, multiply codes: rows of up to kFew by the kernels for few rows,
/// which read a second copy of the weight, more by dense tiles. mxfp4 weights meet fp8 activations as e4m3, in which
/// they are exact, unless a row spans too many octaves. All others multiply in bf16, in which the operands of nearly
/// every recipe are exact: weights are decoded in registers, and activations are put on their format's grid first; but
/// more than kFew rows of MX operands (Operands) multiply as e4m3 with one power of two a row, of a second copy of the
/// weight. What is not exact is said by plan().
class CudaLinear {
 public:
  static constexpr std::int64_t kFew = 64;

  /// A weight of bf16 values [n, k], and bias bf16 [n]. Errors: Error(unsupported) naming n or k where n is no multiple
  /// of 8 or k of 16; Error(io) where the device has no room.
  CudaLinear(const TensorView& weight, const std::optional<TensorView>& bias, const Device& device);
  /// A quantized weight; `activation_scale` is the multiplier of Scope::calibrated. Throws Error(unsupported) too for
  /// columns in activation order, smoothing, and calibrated activations of more than kMostRow inputs.
  CudaLinear(const QuantizedMatrix& weight, const formats::Recipe& recipe, const std::optional<TensorView>& bias,
             const Device& device, std::optional<float> activation_scale = {}, Operands operands = Operands::rebased);

  /// Linears that share an input as one, their outputs side by side: the same numbers as each by itself. nullopt where
  /// they cannot lie together: of other recipes, layouts or calibrated scales, or outputs that are no multiples of 16
  /// (128, where weights have a scale for 128 x 128). Values of other types than bf16 are rounded to it. Throws as the
  /// constructors.
  static std::optional<CudaLinear> stacked(std::span<const LinearWeight> parts, const Device& device,
                                           Operands operands = Operands::rebased);

  /// A gate and an up projection as one, for run_gated(). nullopt as stacked(), and with biases.
  static std::optional<CudaLinear> gated(std::span<const LinearWeight> gate_up, const Device& device,
                                         Operands operands = Operands::rebased);

  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }
  /// Bytes of device memory that a product of few rows reads.
  std::size_t streamed() const;

  /// fp8 sums of dense tiles: promoted every 128 of K, or all along K in the tensor cores.
  void use_sums(kernels::cuda::Sums sums) { dense_.sums = sums; }

  /// From now on a row has the same bits whatever the number of rows: sums in one order, codes as bf16 (the second copy
  /// of a weight goes). Not where rows_depend().
  void keep_order();

  /// What run() does with m rows, a line.
  std::string plan(std::int64_t m) const;

  /// Bytes of workspace that run() needs for m rows, 256-byte aligned parts.
  std::size_t workspace(std::int64_t m) const;

  /// Enqueues y [m, n] = x [m, k] W^T + b and what stands in front of it, in as few kernels as there are for m rows,
  /// with the numbers of norm, gate, cast and product one after the other. Allocates nothing and waits for nothing, so
  /// it can be recorded in a graph.
  void run(const CudaLinearTask& task, kernels::cuda::StreamHandle stream) const;
  void run(const void* x, std::int64_t m, void* y, void* workspace, kernels::cuda::StreamHandle stream) const;
  /// Of gated(): y [m, n / 2] = activation(gate) * up, with the numbers of stacked() and gate_mul(). Where the product
  /// does not apply the gate, returns what is left to do to `ungated`, room for bf16 [m, n].
  [[nodiscard]] std::optional<kernels::cuda::GateTask> run_gated(const CudaLinearTask& task,
                                                                 kernels::GateActivation activation, void* ungated,
                                                                 kernels::cuda::StreamHandle stream) const;

  /// What run() launches, or with an activation run_gated(), where it is one kernel that reads x, or the norm's
  /// operands, and leaves nothing to do: so it can be one of several (kernels::cuda::packed_products). The task's norm
  /// must live until then.
  std::optional<kernels::cuda::PackedProduct> one_kernel(
      const CudaLinearTask& task, std::optional<kernels::GateActivation> gate = std::nullopt) const;

  /// The parts of run() of x. Puts x on the activation's grid, into the workspace; nothing for
  /// weight-only recipes, and where the product does it.
  void prepare(const void* x, std::int64_t m, void* workspace, kernels::cuda::StreamHandle stream) const;
  /// The product with what prepare() left.
  void multiply(const void* x, std::int64_t m, void* y, void* workspace, kernels::cuda::StreamHandle stream) const;

  /// Whether the rows of a call share a scale, so that each depends on the others.
  bool rows_depend() const { return activation_ && activation_->scope == formats::Scope::tensor; }

  /// The same weight in memory of its own.
  CudaLinear copy() const;

 private:
  struct Part;  // of the outputs
  CudaLinear() = default;
  static std::optional<CudaLinear> together(std::span<const LinearWeight> parts, bool gated, const Device& device,
                                            Operands operands);
  bool take(std::span<const Part> parts, Operands operands);
  bool upload(std::span<const Part> parts);
  void upload_packed(CudaPackedWeight& to, std::vector<kernels::cuda::PackedWeight> parts) const;
  void upload_dense(std::span<const Part> parts);
  void upload_for_many(std::span<const Part> parts, Operands operands);
  bool upload_folded(std::span<const Part> parts);
  void upload_rebased(std::span<const Part> parts, double most_lost);
  void upload_bias(std::span<const Part> parts);
  bool dense(std::int64_t m) const { return dense_.codes.size() && m > kFew; }
  bool folded(std::int64_t m) const { return folded_.units.size() && m > kFew; }
  bool calibrated() const { return activation_scale_.has_value(); }
  bool multiplies_codes(std::int64_t m) const {
    return dense(m) || folded(m) || (activation_ && packed_.of_bytes() && !casts_in_product(m));
  }
  kernels::cuda::PackedProduct packed(std::int64_t m) const;
  kernels::cuda::PackedProduct packed(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate) const;
  bool casts_in_product(std::int64_t m) const;
  bool rebases_rows(std::int64_t m) const;
  bool fuses_input(std::int64_t m) const;
  bool casts_rows(std::int64_t m) const;
  void cast_rows(kernels::cuda::CastRowsTask task, std::int64_t m, void* workspace,
                 kernels::cuda::StreamHandle stream) const;
  void run(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate,
           kernels::cuda::StreamHandle stream) const;
  void multiply(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate,
                kernels::cuda::StreamHandle stream) const;
  CudaActivation::Parts place(std::int64_t m, void* workspace) const;
  void cast(const void* x, std::int64_t m, const CudaActivation::Parts& to, kernels::cuda::StreamHandle stream) const;

  std::int64_t n_ = 0, k_ = 0;
  int device_ = 0;
  bool gated_ = false;                   // packed outputs are gate and up by eights; dense ones lie one below the other
  std::string name_, note_, many_note_;  // of the weight; of that for many rows
  bool same_order_ = false;
  std::optional<formats::Activation> activation_;
  std::optional<float> activation_scale_;  // calibrated
  kernels::cuda::Memory static_amax_;      // of calibrated scales of two levels: a MatrixAmax
  CudaPackedWeight packed_;
  CudaPackedWeight folded_;  // or dense_: for more than kFew rows
  CudaDenseWeight dense_;
};

}  // namespace lowp::ops
