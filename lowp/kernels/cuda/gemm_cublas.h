// Dense products by NVIDIA's cuBLASLt: oracle, baseline, and bf16 x bf16. The library is loaded when first asked for; a
// binary runs without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "lowp/formats/element.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// "" if cuBLASLt can be used, else why not.
const std::string& why_no_cublas();

/// y [m, n] = sum over k of a [m, k] b [n, k], planned once for a shape.
class CublasProduct {
 public:
  struct What {
    std::int64_t m = 0, n = 0, k = 0;
    formats::Elem type = formats::Elem::bf16;  // of both operands: bf16, e4m3 or int8
    bool row_scales = false;                   // e4m3: times a_scale [m] and b_scale [n], else times [1] and [1]
    bool fast_sums = true;                     // e4m3: sums stay in the tensor cores
  };
  /// Throws Error(unsupported) naming the shape where the library has no such product, or where there is no library.
  explicit CublasProduct(const What& what);
  ~CublasProduct();
  CublasProduct(CublasProduct&&) noexcept;

  /// Enqueues. y is bf16, or int32 for int8. `workspace`: of workspace_bytes(), or null if that is 0.
  void run(const void* a, const void* b, const float* a_scale, const float* b_scale, void* y, void* workspace,
           StreamHandle stream) const;
  static constexpr std::size_t workspace_bytes() { return std::size_t{32} << 20; }

 private:
  struct Plan;
  std::unique_ptr<Plan> plan_;
};

}  // namespace lowp::kernels::cuda
