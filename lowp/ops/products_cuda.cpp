#include "lowp/ops/products_cuda.h"

#include <utility>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/transfer.h"

namespace lowp::ops {

namespace cuda = kernels::cuda;

CudaProducts::CudaProducts(cuda::StreamHandle stream, std::int64_t widest)
    : stream_(stream), mail_{.values = static_cast<int>(round_up<std::int64_t>(3 * widest, 8))} {
  mail_memory_ = cuda::Memory(mail_.bytes());
  mail_.memory = mail_memory_.as<>();
  cuda::fill(mail_.memory, 0xFF, mail_.bytes(), stream);
  cuda::fill(mail_.memory, 0, cuda::ProductMail::kHeader, stream);
  norms_.reserve(cuda::kMostChained);
}

cuda::StreamHandle CudaProducts::stream() {
  if (held_.empty()) return stream_;
  const std::vector<cuda::PackedProduct> products = std::exchange(held_, {});
  cuda::packed_products(products, mail_, stream_);
  norms_.clear();
  return stream_;
}

// False where the Linear takes a kernel of its own.
bool CudaProducts::hold(const CudaLinear& linear, const CudaLinearTask& task,
                        std::optional<kernels::GateActivation> gate) {
  std::optional<cuda::PackedProduct> product = linear.one_kernel(task, gate);
  if (!product || !cuda::chains(*product, *product)) return false;
  int mailed = cuda::mailed_values(*product);
  if (mailed > mail_.values) return false;
  for (const cuda::PackedProduct& held : held_) mailed += cuda::mailed_values(held);
  if (!held_.empty() &&
      (held_.size() == cuda::kMostChained || mailed > mail_.values || !cuda::chains(held_[0], *product)))
    stream();
  if (product->norm) product->norm = &norms_.emplace_back(*product->norm);
  held_.push_back(*product);
  return true;
}

void CudaProducts::run(const CudaLinear& linear, const CudaLinearTask& task) {
  if (!hold(linear, task)) linear.run(task, stream());
}

std::optional<cuda::GateTask> CudaProducts::run_gated(const CudaLinear& linear, const CudaLinearTask& task,
                                                      kernels::GateActivation activation, void* ungated) {
  if (hold(linear, task, activation)) return std::nullopt;
  return linear.run_gated(task, activation, ungated, stream());
}

}  // namespace lowp::ops
