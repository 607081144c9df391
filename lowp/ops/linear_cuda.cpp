#include "lowp/ops/linear_cuda.h"

#include <numeric>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::Scope;
using formats::ZeroPoint;

cuda::Memory uploaded(std::span<const std::byte> bytes) {
  cuda::Memory memory(bytes.size());
  const cuda::Stream stream;
  cuda::copy(memory.as<>(), bytes.data(), bytes.size(), stream.handle());
  stream.synchronize();
  return memory;
}

// Whether codes are multiplied with codes by dense tiles.
bool both_are_codes(const BlockFormat& w, const formats::Activation& activation) {
  const BlockFormat& a = activation.format;
  if (activation.scope == Scope::calibrated) return false;
  if (w.element == Elem::e4m3 && a.element == Elem::e4m3 && w.rule == Rule::float8 && a.rule == Rule::float8)
    return (w.group_cols == 0) == (a.group_cols == 0);
  return w.element == Elem::int8 && a.element == Elem::int8 && w.group_cols == 0 && a.group_cols == 0 &&
         w.zero_point == ZeroPoint::none && a.zero_point != ZeroPoint::floating && w.rule == Rule::symmetric;
}

// Activations whose codes are multiplied, and their scale with the sum.
bool scales_of_rows(const formats::BlockSpec& a) { return a.group_cols == 0 && a.zero_point == ZeroPoint::none; }

std::size_t aligned(std::size_t bytes) { return round_up<std::size_t>(bytes, 256); }

}  // namespace

// Parts of the workspace: codes and scales, and the same as bf16 values.
struct CudaLinear::Codes {
  std::byte *codes, *scale, *zero_point, *amax, *values;
  std::size_t bytes;
};

CudaLinear::CudaLinear(const TensorView& weight, const std::optional<TensorView>& bias, const Device& device)
    : n_(weight.shape[0]), k_(weight.shape[1]), device_(device.cuda), name_("bf16") {
  check_shape();
  cuda::use_device(device_);
  upload(cuda::pack_bf16_weight(weight));
  set_bias(bias);
}

CudaLinear::CudaLinear(const QuantizedMatrix& weight, const formats::Recipe& recipe,
                       const std::optional<TensorView>& bias, const Device& device)
    : n_(weight.m), k_(weight.k), device_(device.cuda), name_(recipe.name), activation_(recipe.activation) {
  check_shape();
  const auto refuse = [&](const char* what) {
    fail(ErrorCode::unsupported, "{} on {}: {} are not supported", name_, device.name(), what);
  };
  if (!weight.column_order.empty()) refuse("columns in activation order");
  if (!weight.pre_scale.empty()) refuse("smoothed inputs");
  if (activation_ && activation_->scope == Scope::calibrated) refuse("calibrated activations");
  cuda::use_device(device_);
  std::string why;
  const bool folds = activation_ && activation_->format.element == Elem::e4m3 &&
                     activation_->format.rule == Rule::float8 && activation_->format.group_cols == 0;
  if (const auto folded = folds ? cuda::pack_folded_weight(weight, &why) : std::nullopt) {
    upload(*folded);
  } else if (const auto packed = cuda::pack_weight(weight, &why)) {
    upload(*packed);
  } else {
    note_ = fmt::format(" (dequantized to bf16 at load: {})", why);
    upload(cuda::pack_bf16_weight(dequantize(weight, DType::bf16).view()));
  }
  if (activation_ && both_are_codes(weight.format, *activation_)) upload_dense(weight);
  set_bias(bias);
}

void CudaLinear::check_shape() const {
  if (n_ % 8) fail(ErrorCode::unsupported, "{} on a GPU: {} outputs are no multiple of 8", name_, n_);
  if (k_ % 16 || k_ == 0) fail(ErrorCode::unsupported, "{} on a GPU: {} inputs are no multiple of 16", name_, k_);
}

void CudaLinear::set_bias(const std::optional<TensorView>& bias) {
  if (!bias) return;
  LOWP_CHECK(bias->dtype == DType::bf16 && element_count(bias->shape) == n_, "a bias that is not bf16 [{}]", n_);
  bias_ = uploaded(bias->bytes);
}

void CudaLinear::upload(const cuda::PackedWeight& packed) {
  codes_ = packed.codes;
  scales_ = packed.scales;
  units_ = uploaded(std::as_bytes(std::span(packed.units)));
  row_scale_ = uploaded(std::as_bytes(std::span(packed.row_scale)));
}

void CudaLinear::upload_dense(const QuantizedMatrix& weight) {
  dense_codes_ = uploaded(weight.codes.bytes());
  dense_scale_ = uploaded(weight.scale.bytes());
  dense_scale_each_ = weight.format.group_rows != 0;
  if (weight.format.element == Elem::int8)
    sums_ = cuda::Sums::integer;
  else if (weight.format.group_cols != 0)
    sums_ = cuda::Sums::scaled;
  if (activation_->format.zero_point == ZeroPoint::none) return;
  std::vector<std::int32_t> sums(static_cast<std::size_t>(n_));
  const auto* codes = reinterpret_cast<const std::int8_t*>(weight.codes.bytes().data());
  for (std::int64_t row = 0; row < n_; ++row)
    sums[static_cast<std::size_t>(row)] = std::accumulate(codes + row * k_, codes + (row + 1) * k_, std::int32_t{0});
  dense_sum_ = uploaded(std::as_bytes(std::span(sums)));
}

std::size_t CudaLinear::streamed() const { return units_.size() + row_scale_.size() + bias_.size(); }

CudaLinear::Codes CudaLinear::place(std::int64_t m, void* workspace) const {
  Codes c{};
  if (!activation_) return c;
  const BlockFormat& f = activation_->format;
  const auto rows = static_cast<std::size_t>(m), k = static_cast<std::size_t>(k_);
  auto* base = static_cast<std::byte*>(workspace);
  const auto take = [&](std::byte*& part, std::size_t bytes) {
    part = base + c.bytes;
    c.bytes += aligned(bytes);
  };
  const auto scales = static_cast<std::size_t>(f.scale_rows(m) * f.scale_cols(k_));
  take(c.codes, rows * k);
  take(c.scale, scales * 4);
  if (f.zero_point != ZeroPoint::none) take(c.zero_point, scales * 4);
  take(c.amax, rows * sizeof(cuda::MatrixAmax));
  if (!multiplies_codes(m)) take(c.values, rows * k * 2);
  return c;
}

std::size_t CudaLinear::workspace(std::int64_t m) const { return place(m, nullptr).bytes; }

std::string CudaLinear::plan(std::int64_t m) const {
  std::string text = fmt::format("{} [{}, {}] x [{}, {}]:", name_, m, k_, n_, k_);
  if (activation_) text += fmt::format(" cast to {};", activation_->format.name);
  if (dense(m)) {
    constexpr const char* kSums[] = {"f32 all along K", "f32, promoted every 128 of K", "f32, scaled every 128 of K",
                                     "int32"};
    const cuda::DenseProduct p{.m = m, .n = n_, .k = k_, .sums = sums_};
    return text + fmt::format(" codes x codes, tiles {}, sums in {}", cuda::dense_variant_name(p),
                              kSums[static_cast<int>(sums_)]);
  }
  const cuda::PackedProduct p{.codes = codes_, .scales = scales_, .m = m, .n = n_, .k = k_};
  if (multiplies_codes(m))
    return text + fmt::format(" codes x weights folded into e4m3 in registers, {}", cuda::packed_kernel_name(p));
  if (activation_) {
    const BlockFormat& a = activation_->format;
    const bool exact = scales_of_rows(a) || a.rule == Rule::mx || a.rule == Rule::nvfp4;
    text += exact ? " its values exactly in bf16;" : " its values rounded to bf16;";
  }
  return text + fmt::format(" bf16 x weights decoded in registers{}, {}", note_, cuda::packed_kernel_name(p));
}

void CudaLinear::cast(const void* x, std::int64_t m, const Codes& to, cuda::StreamHandle stream) const {
  const BlockFormat& f = activation_->format;
  // Two-level scales of a token are those of a matrix of one row.
  const bool each_row = f.tensor_scale && activation_->scope == Scope::token;
  cuda::CastTask task;
  task.x = x;
  task.experts = each_row ? m : 1;
  task.m = each_row ? 1 : m;
  task.k = k_;
  task.format = f;
  task.along_k.codes = to.codes;
  task.along_k.scale = to.scale;
  task.along_k.zero_point = to.zero_point;
  if (f.tensor_scale || f.group_rows == 0) {
    auto* amax = reinterpret_cast<cuda::MatrixAmax*>(to.amax);
    cuda::amax(x, Elem::bf16, task.experts, task.m * k_, amax, stream);
    task.amax = amax;
  }
  cuda::cast(task, stream);
}

void CudaLinear::prepare(const void* x, std::int64_t m, void* workspace, cuda::StreamHandle stream) const {
  if (m == 0 || !activation_) return;
  const Codes c = place(m, workspace);
  cast(x, m, c, stream);
  if (multiplies_codes(m)) return;
  cuda::DequantizeTask values;
  values.format = activation_->format;
  values.m = m;
  values.k = k_;
  values.codes = c.codes;
  values.scale = c.scale;
  values.zero_point = c.zero_point;
  values.output = Elem::bf16;
  values.out = c.values;
  if (scales_of_rows(values.format)) values.format.rule = Rule::plain;  // their scale multiplies the sum
  values.format.tensor_scale = false;                                   // and so does this
  cuda::dequantize(values, stream);
}

void CudaLinear::multiply(const void* x, std::int64_t m, void* y, void* workspace, cuda::StreamHandle stream) const {
  if (m == 0) return;
  const Codes c = place(m, workspace);
  if (dense(m)) {
    cuda::dense_product({.m = m,
                         .n = n_,
                         .k = k_,
                         .sums = sums_,
                         .a = c.codes,
                         .b = dense_codes_.as<>(),
                         .a_scale = reinterpret_cast<const float*>(c.scale),
                         .b_scale = dense_scale_.as<float>(),
                         .a_scale_each = activation_->format.group_rows != 0,
                         .b_scale_each = dense_scale_each_,
                         .bias = bias_.as<>(),
                         .a_zero = reinterpret_cast<const std::int8_t*>(c.zero_point),
                         .b_sum = dense_sum_.as<std::int32_t>(),
                         .y = y},
                        stream);
    return;
  }
  cuda::PackedProduct p{.codes = codes_,
                        .scales = scales_,
                        .m = m,
                        .n = n_,
                        .k = k_,
                        .x = !activation_          ? x
                             : multiplies_codes(m) ? c.codes
                                                   : c.values,
                        .units = units_.as<std::uint8_t>(),
                        .row_scale = row_scale_.as<float>(),
                        .bias = bias_.as<>(),
                        .y = y};
  if (activation_ && scales_of_rows(activation_->format)) {
    p.x_scale = reinterpret_cast<const float*>(c.scale);
    p.x_scale_step = activation_->format.group_rows != 0;
  } else if (activation_ && activation_->format.tensor_scale) {
    p.x_scale = &reinterpret_cast<const cuda::MatrixAmax*>(c.amax)->tensor_scale;
    p.x_scale_step = activation_->scope == Scope::token ? sizeof(cuda::MatrixAmax) / sizeof(float) : 0;
  }
  cuda::packed_product(p, stream);
}

void CudaLinear::run(const void* x, std::int64_t m, void* y, void* workspace, cuda::StreamHandle stream) const {
  prepare(x, m, workspace, stream);
  multiply(x, m, y, workspace, stream);
}

CudaLinear CudaLinear::copy() const {
  cuda::use_device(device_);
  const cuda::Stream stream;
  const auto same = [&](const cuda::Memory& from) {
    cuda::Memory to(from.size());
    if (from.size()) cuda::copy(to.as<>(), from.as<>(), from.size(), stream.handle());
    return to;
  };
  CudaLinear made;
  made.n_ = n_;
  made.k_ = k_;
  made.device_ = device_;
  made.name_ = name_;
  made.note_ = note_;
  made.activation_ = activation_;
  made.codes_ = codes_;
  made.scales_ = scales_;
  made.dense_scale_each_ = dense_scale_each_;
  made.sums_ = sums_;
  made.bias_ = same(bias_);
  made.units_ = same(units_);
  made.row_scale_ = same(row_scale_);
  made.dense_codes_ = same(dense_codes_);
  made.dense_scale_ = same(dense_scale_);
  made.dense_sum_ = same(dense_sum_);
  stream.synchronize();
  return made;
}

}  // namespace lowp::ops
