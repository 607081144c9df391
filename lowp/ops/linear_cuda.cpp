#include "lowp/ops/linear_cuda.h"

#include <numeric>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/gemm_rebase.h"
#include "lowp/kernels/cuda/row_rebase.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::Rule;
using formats::Scope;
using formats::ZeroPoint;

std::size_t aligned(std::size_t bytes) { return round_up<std::size_t>(bytes, 256); }

// What rows of a format become, and what that loses at most.
std::string_view rebased_as(const BlockFormat& f) {
  if (f.rule == Rule::nvfp4) return "rounded to e4m3 with one scale a row (a value loses up to 2^-4 of itself)";
  return f.element == Elem::e4m3
             ? "as e4m3 with one power of two a row (a value loses up to 2^-17.8 of the row's largest)"
             : "as e4m3 with one power of two a row (a value loses up to 2^-16.9 of the row's largest)";
}

}  // namespace

// Some of the outputs: a weight of values or a quantized one.
struct CudaLinear::Part {
  const TensorView* values = nullptr;
  const QuantizedMatrix* quantized = nullptr;
  const std::optional<TensorView>* bias = nullptr;
  std::int64_t n() const { return values ? values->shape[0] : quantized->m; }
  std::int64_t k() const { return values ? values->shape[1] : quantized->k; }
};

CudaLinear::CudaLinear(const TensorView& weight, const std::optional<TensorView>& bias, const Device& device)
    : device_(device.cuda), name_("bf16") {
  const Part part{.values = &weight, .bias = &bias};
  take({&part, 1}, Operands::exact);
}

CudaLinear::CudaLinear(const QuantizedMatrix& weight, const formats::Recipe& recipe,
                       const std::optional<TensorView>& bias, const Device& device,
                       std::optional<float> activation_scale, Operands operands)
    : device_(device.cuda), name_(recipe.name), activation_(recipe.activation), activation_scale_(activation_scale) {
  const Part part{.quantized = &weight, .bias = &bias};
  take({&part, 1}, operands);
}

std::optional<CudaLinear> CudaLinear::stacked(std::span<const LinearWeight> parts, const Device& device,
                                              Operands operands) {
  return together(parts, false, device, operands);
}

std::optional<CudaLinear> CudaLinear::gated(std::span<const LinearWeight> gate_up, const Device& device,
                                            Operands operands) {
  LOWP_CHECK(gate_up.size() == 2, "a gate of {} parts", gate_up.size());
  if (gate_up[0].n() != gate_up[1].n() || gate_up[0].bias) return std::nullopt;
  return together(gate_up, true, device, operands);
}

std::optional<CudaLinear> CudaLinear::together(std::span<const LinearWeight> parts, bool gated, const Device& device,
                                               Operands operands) {
  CudaLinear made;
  made.device_ = device.cuda;
  made.gated_ = gated;
  made.name_ = parts[0].recipe ? parts[0].recipe->name : "bf16";
  if (parts[0].recipe) made.activation_ = parts[0].recipe->activation;
  if (made.activation_ && made.activation_->scope == Scope::calibrated)
    made.activation_scale_ = parts[0].activation_scale;
  std::vector<Tensor> rounded(2 * parts.size());
  std::vector<TensorView> values(parts.size());
  std::vector<std::optional<TensorView>> biases(parts.size());
  std::vector<Part> all;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const LinearWeight& part = parts[i];
    if ((part.recipe ? part.recipe->name : "bf16") != made.name_ || part.bias.has_value() != parts[0].bias.has_value())
      return std::nullopt;
    if (made.calibrated() && part.activation_scale != made.activation_scale_) return std::nullopt;
    if (part.values()) values[i] = as_bf16(*part.values(), rounded[2 * i]);
    if (part.bias) biases[i] = as_bf16(*part.bias, rounded[2 * i + 1]);
    all.push_back({.values = part.values() ? &values[i] : nullptr, .quantized = part.quantized(), .bias = &biases[i]});
  }
  if (!made.take(all, operands)) return std::nullopt;
  return made;
}

// False where the parts cannot lie together.
bool CudaLinear::take(std::span<const Part> parts, Operands operands) {
  k_ = parts[0].k();
  for (const Part& part : parts) {
    n_ += part.n();
    const auto refuse = [&](const char* what) {
      fail(ErrorCode::unsupported, "{} on {}: {} are not supported", name_, Device{device_}.name(), what);
    };
    if (part.n() % 8) fail(ErrorCode::unsupported, "{} on a GPU: {} outputs are no multiple of 8", name_, part.n());
    if (part.quantized && !part.quantized->column_order.empty()) refuse("columns in activation order");
    if (part.quantized && !part.quantized->pre_scale.empty()) refuse("smoothed inputs");
  }
  if (k_ % 16 || k_ == 0) fail(ErrorCode::unsupported, "{} on a GPU: {} inputs are no multiple of 16", name_, k_);
  const bool fixed = activation_ && activation_->scope == Scope::calibrated;
  LOWP_CHECK(fixed == calibrated(), "{} {} a calibrated scale", name_, fixed ? "without" : "with");
  if (fixed && !(*activation_scale_ > 0))
    fail(ErrorCode::bad_input, "{}: a calibrated scale of {}", name_, *activation_scale_);
  if (fixed && !activation_->format.tensor_scale && k_ > cuda::kMostRow)
    fail(ErrorCode::unsupported, "{} on {}: {} inputs with a calibrated scale are more than {}", name_,
         Device{device_}.name(), k_, cuda::kMostRow);
  cuda::use_device(device_);
  const bool squares = parts[0].quantized && parts[0].quantized->format.group_rows > 1;
  const int height = squares ? parts[0].quantized->format.group_rows : gated_ ? 8 : cuda::kUnitRows;
  for (const Part& part : parts.first(parts.size() - 1))
    if (part.k() != k_ || part.n() % height) return false;
  if (!upload(parts)) return false;
  upload_bias(parts);
  if (fixed && activation_->format.tensor_scale) {
    cuda::MatrixAmax amax{};
    amax.bits = float_bits(*activation_scale_);  // anything but zero
    amax.tensor_scale = *activation_scale_;
    amax.reciprocal = formats::divide(1.0f, *activation_scale_);
    static_amax_ = cuda::uploaded(std::as_bytes(std::span(&amax, 1)));
  }
  if (activation_) upload_for_many(parts, operands);
  return true;
}

void CudaLinear::upload_bias(std::span<const Part> parts) {
  std::vector<std::span<const std::byte>> bytes;
  for (const Part& part : parts) {
    const std::optional<TensorView>& bias = *part.bias;
    if (!bias) return;
    LOWP_CHECK(bias->dtype == DType::bf16 && element_count(bias->shape) == part.n(), "a bias that is not bf16 [{}]",
               part.n());
    bytes.push_back(bias->bytes);
  }
  packed_.bias = cuda::uploaded(bytes);
}

bool CudaLinear::upload(std::span<const Part> parts) {
  std::vector<cuda::PackedWeight> packed;
  for (const Part& part : parts) {
    if (part.values) {
      packed.push_back(cuda::pack_bf16_weight(*part.values));
      continue;
    }
    std::string why;
    const bool folds = activation_ && rows_of_e4m3(activation_->format);
    if (auto folded = folds ? cuda::pack_folded_weight(*part.quantized, &why) : std::nullopt) {
      packed.push_back(std::move(*folded));
    } else if (auto own = cuda::pack_weight(*part.quantized, &why)) {
      packed.push_back(std::move(*own));
    } else {
      note_ = fmt::format(" (dequantized to bf16 at load: {})", why);
      packed.push_back(cuda::pack_bf16_weight(dequantize(*part.quantized, DType::bf16).view()));
    }
  }
  for (const cuda::PackedWeight& part : packed)
    if (part.codes != packed[0].codes || part.scales != packed[0].scales) return false;
  upload_packed(packed_, std::move(packed));
  return true;
}

void CudaLinear::upload_packed(CudaPackedWeight& to, std::vector<cuda::PackedWeight> parts) const {
  to.codes = parts[0].codes;
  to.scales = parts[0].scales;
  if (gated_) {
    parts[0] = cuda::by_eights(parts[0], parts[1]);
    parts.pop_back();
  }
  std::vector<std::span<const std::byte>> units, scales;
  for (const cuda::PackedWeight& part : parts) {
    units.push_back(std::as_bytes(std::span(part.units)));
    scales.push_back(std::as_bytes(std::span(part.row_scale)));
  }
  to.units = cuda::uploaded(units);
  to.row_scale = cuda::uploaded(scales);
}

void CudaLinear::upload_dense(std::span<const Part> parts) {
  const BlockFormat& format = parts[0].quantized->format;
  std::vector<std::span<const std::byte>> codes, scales;
  std::vector<std::vector<float>> repeated(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const QuantizedMatrix& weight = *parts[i].quantized;
    codes.push_back(weight.codes.bytes());
    if (parts.size() > 1 && format.group_rows == 0) {  // one scale for the part: one for each of its rows
      repeated[i].assign(static_cast<std::size_t>(weight.m), weight.scale.as<float>()[0]);
      scales.push_back(std::as_bytes(std::span(repeated[i])));
    } else {
      scales.push_back(weight.scale.bytes());
    }
  }
  dense_.codes = cuda::uploaded(codes);
  dense_.scale = cuda::uploaded(scales);
  dense_.scale_each = format.group_rows != 0 || parts.size() > 1;
  dense_.use_sums_of(format);
  if (activation_->format.zero_point == ZeroPoint::none) return;
  std::vector<std::int32_t> sums;
  for (const std::span<const std::byte> part : codes) {
    const auto* code = reinterpret_cast<const std::int8_t*>(part.data());
    for (const auto* end = code + part.size(); code < end; code += k_)
      sums.push_back(std::accumulate(code, code + k_, std::int32_t{0}));
  }
  dense_.sum = cuda::uploaded(std::as_bytes(std::span(sums)));
}

// What more than kFew rows read, where that is not what few do.
void CudaLinear::upload_for_many(std::span<const Part> parts, Operands operands) {
  const BlockFormat &w = parts[0].quantized->format, &a = activation_->format;
  if (multiply_codes(w, a)) return upload_dense(parts);
  if (packed_.of_bytes() || operands == Operands::exact || !holds_as_e4m3(*activation_, k_, operands)) return;
  if (rows_of_e4m3(w)) return upload_dense(parts);
  if (upload_folded(parts)) return;
  if (cuda::rebases(w)) return upload_rebased(parts, cuda::kMostLost);
  if (w.rule == Rule::nvfp4 && operands == Operands::rounded) upload_rebased(parts, 1);
}

// False where a part does not fold.
bool CudaLinear::upload_folded(std::span<const Part> parts) {
  std::vector<cuda::PackedWeight> packed;
  std::string why;
  for (const Part& part : parts) {
    auto folded = cuda::pack_folded_weight(*part.quantized, &why);
    if (!folded) return false;
    packed.push_back(std::move(*folded));
  }
  upload_packed(folded_, std::move(packed));
  return true;
}

void CudaLinear::upload_rebased(std::span<const Part> parts, double most_lost) {
  std::vector<cuda::RebasedWeight> rebased;
  std::string why;
  double lost = 0;
  for (const Part& part : parts) {
    auto made = cuda::rebase_weight(*part.quantized, &why);
    if (made && made->lost > most_lost)
      why = fmt::format("128 values of a row would lose {:.1e} of their norm", made->lost);
    if (!made || made->lost > most_lost) {
      many_note_ = fmt::format(" (not as e4m3 with one power of two a row: {})", why);
      return;
    }
    lost = std::max(lost, made->lost);
    rebased.push_back(std::move(*made));
  }
  many_note_ = fmt::format(" (of 128 values at most {:.1e} of their norm is lost)", lost);
  std::vector<std::span<const std::byte>> codes, scales;
  for (const cuda::RebasedWeight& part : rebased) {
    codes.push_back(std::as_bytes(std::span(part.codes)));
    scales.push_back(std::as_bytes(std::span(part.scale)));
  }
  dense_.codes = cuda::uploaded(codes);
  dense_.scale = cuda::uploaded(scales);
  dense_.scale_each = true;
}

std::size_t CudaLinear::streamed() const {
  return packed_.units.size() + packed_.row_scale.size() + packed_.bias.size();
}

// What is known of the product before its operands: with the cast that the kernel for so few rows may do.
cuda::PackedProduct CudaLinear::packed(std::int64_t m) const {
  const bool casts = activation_ && !calibrated() && cuda::casts_rows(activation_->format);
  const CudaPackedWeight& weight = folded(m) ? folded_ : packed_;
  cuda::PackedProduct p{.codes = weight.codes,
                        .scales = weight.scales,
                        .m = m,
                        .n = n_,
                        .k = k_,
                        .same_order = same_order_,
                        .cast = casts ? &activation_->format : nullptr};
  if (!cuda::fuses_input(p)) p.cast = nullptr;
  return p;
}

void CudaLinear::keep_order() {
  same_order_ = true;
  folded_ = CudaPackedWeight();
  dense_.codes = cuda::Memory();
  dense_.scale = cuda::Memory();
  dense_.sum = cuda::Memory();
}

bool CudaLinear::casts_in_product(std::int64_t m) const { return !dense(m) && packed(m).cast; }

// Whether the product's kernel normalises what it reads.
bool CudaLinear::fuses_input(std::int64_t m) const {
  return activation_ ? casts_in_product(m) : cuda::fuses_input(packed(m));
}

// Whether codes are e4m3 with the row's scale, of a format that has scales of groups.
bool CudaLinear::rebases_rows(std::int64_t m) const {
  return (dense(m) || folded(m)) && (activation_->format.rule == Rule::mx || activation_->format.rule == Rule::nvfp4);
}

bool CudaLinear::casts_rows(std::int64_t m) const {
  if (rebases_rows(m)) return k_ <= cuda::kMostRow;
  return activation_ && !casts_in_product(m) && cuda::casts_rows(activation_->format) &&
         (activation_->format.group_rows == 1 || calibrated()) && k_ <= cuda::kMostRow;
}

CudaActivation::Parts CudaLinear::place(std::int64_t m, void* workspace) const {
  CudaActivation::Parts c{};
  auto* base = static_cast<std::byte*>(workspace);
  const auto take = [&](std::byte*& part, std::size_t bytes) {
    part = base + c.bytes;
    c.bytes += aligned(bytes);
  };
  if (!activation_ || casts_in_product(m)) return c;
  const BlockFormat& f = activation_->format;
  const auto rows = static_cast<std::size_t>(m), k = static_cast<std::size_t>(k_);
  const auto scales = static_cast<std::size_t>((calibrated() ? m : f.scale_rows(m)) * f.scale_cols(k_));
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
  if (activation_) text += fmt::format(" cast to {}", activation_->format.name);
  if (rebases_rows(m)) text += fmt::format(", {}", rebased_as(activation_->format));
  if (activation_) text += ";";
  if (dense(m)) {
    constexpr const char* kSums[] = {"f32 all along K", "f32, promoted every 128 of K", "f32, scaled every 128 of K",
                                     "int32"};
    const cuda::DenseProduct p{.m = m, .n = n_, .k = k_, .sums = dense_.sums};
    return text + fmt::format(" codes x codes{}, tiles {}, sums in {}", many_note_, cuda::dense_variant_name(p),
                              kSums[static_cast<int>(dense_.sums)]);
  }
  const cuda::PackedProduct p = packed(m);
  if (multiplies_codes(m))
    return text + fmt::format(" codes x weights folded into e4m3 in registers, {}", cuda::packed_kernel_name(p));
  const char* const operands = packed_.of_bytes() ? "f16" : "bf16";
  if (activation_) {
    const BlockFormat& a = activation_->format;
    const bool exact = scales_of_rows(a) || a.rule == Rule::mx || a.rule == Rule::nvfp4;
    text += exact ? fmt::format(" its values exactly in {};", operands) : " its values rounded to bf16;";
  }
  return text + fmt::format(" {} x weights decoded in registers{}{}, {}", operands, note_, m > kFew ? many_note_ : "",
                            cuda::packed_kernel_name(p));
}

void CudaLinear::cast(const void* x, std::int64_t m, const CudaActivation::Parts& to, cuda::StreamHandle stream) const {
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
  if (static_amax_.size()) {
    task.amax = static_amax_.as<cuda::MatrixAmax>();
  } else if (f.tensor_scale || f.group_rows == 0) {
    auto* amax = reinterpret_cast<cuda::MatrixAmax*>(to.amax);
    cuda::amax(x, Elem::bf16, task.experts, task.m * k_, amax, stream);
    task.amax = amax;
  }
  cuda::cast(task, stream);
}

// What a task casts, into the workspace.
void CudaLinear::cast_rows(cuda::CastRowsTask task, std::int64_t m, void* workspace, cuda::StreamHandle stream) const {
  const CudaActivation::Parts c = place(m, workspace);
  task.format = &activation_->format;
  (multiplies_codes(m) ? task.codes : task.values) = multiplies_codes(m) ? c.codes : c.values;
  task.scale = reinterpret_cast<float*>(c.scale);
  task.fixed_scale = activation_scale_.value_or(0);
  task.rows = m;
  task.width = k_;
  if (rebases_rows(m)) return cuda::rebase_rows(task, stream);
  cuda::cast_rows(task, stream);
}

void CudaLinear::prepare(const void* x, std::int64_t m, void* workspace, cuda::StreamHandle stream) const {
  if (m == 0 || !activation_ || casts_in_product(m)) return;
  if (casts_rows(m) || rebases_rows(m)) return cast_rows({.x = x}, m, workspace, stream);
  const CudaActivation::Parts c = place(m, workspace);
  cast(x, m, c, stream);
  if (multiplies_codes(m)) return;
  make_values(activation_->format, m, k_, c, stream);
}

void CudaLinear::multiply(const void* x, std::int64_t m, void* y, void* workspace, cuda::StreamHandle stream) const {
  multiply({.m = m, .x = x, .y = y, .workspace = workspace}, std::nullopt, stream);
}

// The product of a task whose x has been prepared, and with it a norm before it and a gate behind.
void CudaLinear::multiply(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate,
                          cuda::StreamHandle stream) const {
  const std::int64_t m = task.m;
  if (m == 0) return;
  if (dense(m)) {
    const CudaActivation::Parts c = place(m, task.workspace);
    cuda::dense_product({.m = m,
                         .n = n_,
                         .k = k_,
                         .sums = dense_.sums,
                         .a = c.codes,
                         .b = dense_.codes.as<>(),
                         .a_scale = reinterpret_cast<const float*>(c.scale),
                         .b_scale = dense_.scale.as<float>(),
                         .a_scale_each = activation_->format.group_rows != 0 || calibrated(),
                         .b_scale_each = dense_.scale_each,
                         .bias = packed_.bias.as<>(),
                         .a_zero = reinterpret_cast<const std::int8_t*>(c.zero_point),
                         .b_sum = dense_.sum.as<std::int32_t>(),
                         .y = task.y},
                        stream);
    return;
  }
  cuda::packed_product(packed(task, gate), stream);
}

// With what prepare() left.
cuda::PackedProduct CudaLinear::packed(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate) const {
  const std::int64_t m = task.m;
  cuda::PackedProduct p = packed(m);
  const CudaPackedWeight& weight = folded(m) ? folded_ : packed_;
  p.units = weight.units.as<std::uint8_t>();
  p.row_scale = weight.row_scale.as<float>();
  p.bias = packed_.bias.as<>();
  p.y = task.y;
  p.norm = task.norm;
  p.gate = gate;
  if (!activation_ || p.cast) {
    p.x = task.x;
  } else {
    const CudaActivation::Parts c = place(m, task.workspace);
    p.x = multiplies_codes(m) ? c.codes : c.values;
    if (scales_of_rows(activation_->format) || rebases_rows(m)) {
      p.x_scale = reinterpret_cast<const float*>(c.scale);
      p.x_scale_step = activation_->format.group_rows != 0 || calibrated();
    } else if (activation_->format.tensor_scale) {
      const void* amax = static_amax_.size() ? static_amax_.as<>() : c.amax;
      p.x_scale = &static_cast<const cuda::MatrixAmax*>(amax)->tensor_scale;
      p.x_scale_step = activation_->scope == Scope::token ? sizeof(cuda::MatrixAmax) / sizeof(float) : 0;
    }
  }
  return p;
}

void CudaLinear::run(const CudaLinearTask& task, cuda::StreamHandle stream) const { run(task, std::nullopt, stream); }

void CudaLinear::run(const CudaLinearTask& task, std::optional<kernels::GateActivation> gate,
                     cuda::StreamHandle stream) const {
  const std::int64_t m = task.m;
  if (m == 0) return;
  CudaLinearTask product = task;
  product.norm = nullptr;
  if (casts_rows(m)) {
    cast_rows({.x = task.x, .norm = task.norm, .gate = task.gate}, m, task.workspace, stream);
  } else {
    if (fuses_input(m))
      product.norm = task.norm;
    else if (task.norm)
      cuda::add_norm(*task.norm, stream);
    if (task.gate) cuda::gate_mul(*task.gate, stream);
    prepare(task.x, m, task.workspace, stream);
  }
  multiply(product, gate, stream);
}

std::optional<cuda::GateTask> CudaLinear::run_gated(const CudaLinearTask& task, kernels::GateActivation activation,
                                                    void* ungated, cuda::StreamHandle stream) const {
  LOWP_CHECK(gated_, "{} has no gate", name_);
  const std::int64_t m = task.m;
  if (!dense(m) && cuda::fuses_gate(packed(m))) {
    run(task, activation, stream);
    return std::nullopt;
  }
  CudaLinearTask product = task;
  product.y = ungated;
  run(product, std::nullopt, stream);
  const std::int64_t width = n_ / 2;
  return cuda::GateTask{.gate = ungated,
                        .up = static_cast<std::uint16_t*>(ungated) + (dense(m) ? width : 8),
                        .gate_stride = n_,
                        .up_stride = n_,
                        .by_eights = !dense(m),
                        .activation = activation,
                        .out = task.y,
                        .rows = m,
                        .width = width};
}

std::optional<cuda::PackedProduct> CudaLinear::one_kernel(const CudaLinearTask& task,
                                                          std::optional<kernels::GateActivation> gate) const {
  LOWP_CHECK(!gate || gated_, "{} has no gate", name_);
  if (task.m == 0 || dense(task.m) || task.gate || !fuses_input(task.m)) return std::nullopt;
  if (gate && !cuda::fuses_gate(packed(task.m))) return std::nullopt;
  return packed(task, gate);
}

void CudaLinear::run(const void* x, std::int64_t m, void* y, void* workspace, cuda::StreamHandle stream) const {
  run({.m = m, .x = x, .y = y, .workspace = workspace}, stream);
}

CudaLinear CudaLinear::copy() const {
  cuda::use_device(device_);
  CudaLinear made;
  made.n_ = n_;
  made.k_ = k_;
  made.device_ = device_;
  made.gated_ = gated_;
  made.name_ = name_;
  made.note_ = note_;
  made.many_note_ = many_note_;
  made.same_order_ = same_order_;
  made.activation_ = activation_;
  made.activation_scale_ = activation_scale_;
  made.static_amax_ = cuda::copied(static_amax_);
  made.packed_ = packed_.copy();
  made.folded_ = folded_.copy();
  made.dense_ = dense_.copy();
  return made;
}

}  // namespace lowp::ops
