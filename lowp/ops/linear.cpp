#include "lowp/ops/linear.h"

#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

using formats::Elem;

constexpr std::int64_t kPanel =
    48;  // weight rows unpacked at a time: with k = 4096 they stay in the second-level cache
constexpr std::int64_t kRowBlock = 64;  // activation rows swept over a panel

std::vector<float> load_bias(const std::optional<TensorView>& bias, std::int64_t n) {
  if (!bias) return {};
  LOWP_CHECK(element_count(bias->shape) == n, "bias of {} for {} outputs", element_count(bias->shape), n);
  std::vector<float> values(static_cast<std::size_t>(n));
  load_f32(*bias, 0, n, values.data());
  return values;
}

}  // namespace

Linear::Linear(const TensorView& weight, std::optional<TensorView> bias, Elem compute)
    : n_(weight.shape[0]), k_(weight.shape[1]), compute_(compute), bias_(load_bias(bias, weight.shape[0])) {
  std::vector<float> values(static_cast<std::size_t>(n_ * k_));
  load_f32(weight, 0, n_ * k_, values.data());
  keep(std::move(values));
}

Linear::Linear(const QuantizedMatrix& weight, const formats::Recipe& recipe, std::optional<float> activation_scale,
               std::optional<TensorView> bias, Elem compute)
    : n_(weight.m),
      k_(weight.k),
      compute_(compute),
      activation_(recipe.activation),
      activation_scale_(activation_scale),
      bias_(load_bias(bias, weight.m)) {
  LOWP_CHECK(!activation_ || activation_->scope != formats::Scope::calibrated || activation_scale_,
             "calibrated recipe {} without a scale", recipe.name);
  const bool exact = activation_.has_value() && !activation_->format.scale_in_input_dtype;
  const DType type = exact || compute == Elem::f32 ? DType::f32 : DType::bf16;
  const Tensor decoded = dequantize(weight, type);
  std::vector<float> values(static_cast<std::size_t>(n_ * k_));
  load_f32(decoded.view(), 0, n_ * k_, values.data());
  keep(std::move(values));
}

void Linear::keep(std::vector<float> values) {
  const bool narrow = std::all_of(values.begin(), values.end(), [](float v) { return (float_bits(v) & 0xFFFFu) == 0; });
  if (!narrow) {
    weight_f32_ = std::move(values);
    return;
  }
  weight_bf16_.resize(values.size());
  std::transform(values.begin(), values.end(), weight_bf16_.begin(),
                 [](float v) { return static_cast<std::uint16_t>(float_bits(v) >> 16); });
}

void Linear::run(std::span<const float> x, std::int64_t rows, std::span<float> y) const {
  std::vector<float> quantized;
  if (activation_) {
    quantized.resize(x.size());
    fake_quantize(*activation_, compute_, activation_scale_, x, rows, k_, quantized);
    x = quantized;
  }
  const kernels::cpu::Matmul matmul = kernels::cpu::matmul_kernels().matmul;
  const std::int64_t panels = ceil_div(n_, kPanel);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 19) / std::max<std::int64_t>(1, rows * k_ * kPanel));
  parallel_for(panels, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> panel;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t first = p * kPanel, cols = std::min(kPanel, n_ - first);
      const float* w = weight_f32_.data() + first * k_;
      if (weight_f32_.empty()) {
        panel.resize(static_cast<std::size_t>(kPanel * k_));
        for (std::int64_t i = 0; i < cols * k_; ++i)
          panel[i] = bits_float(static_cast<std::uint32_t>(weight_bf16_[first * k_ + i]) << 16);
        w = panel.data();
      }
      for (std::int64_t r = 0; r < rows; r += kRowBlock) {
        const std::int64_t count = std::min(kRowBlock, rows - r);
        float* out = y.data() + r * n_ + first;
        matmul(x.data() + r * k_, count, w, cols, k_, out, n_);
        for (std::int64_t i = 0; i < count; ++i)
          for (std::int64_t c = 0; c < cols; ++c) {
            float& value = out[i * n_ + c];
            if (!bias_.empty()) value += bias_[first + c];
            value = formats::round_to(compute_, value);
          }
      }
    }
  });
}

}  // namespace lowp::ops
