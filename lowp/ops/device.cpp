#include "lowp/ops/device.h"

#include <charconv>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::ops {

std::string Device::name() const { return is_cuda() ? "cuda:" + std::to_string(cuda) : "cpu"; }

Device choose_device(std::string_view text) {
  const auto& gpus = kernels::cuda::devices();
  if (text == "cpu" || (text == "auto" && gpus.empty())) return {};
  if (text == "auto" || text == "cuda") text = "cuda:0";
  constexpr std::string_view kPrefix = "cuda:";
  int index = -1;
  if (text.starts_with(kPrefix)) {
    const std::string_view digits = text.substr(kPrefix.size());
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error != std::errc() || end != digits.data() + digits.size()) index = -1;
  }
  if (index < 0) fail(ErrorCode::usage, "--device {}: expected auto, cpu, cuda or cuda:N", text);
  if (gpus.empty()) fail(ErrorCode::usage, "--device {}: {}; there is cpu", text, kernels::cuda::why_none());
  if (index >= static_cast<int>(gpus.size()))
    fail(ErrorCode::usage, "--device {}: there are cpu and cuda:0 to cuda:{}", text, gpus.size() - 1);
  return {index};
}

}  // namespace lowp::ops
