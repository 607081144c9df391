#include "lowp/ops/expert_stack_cuda.h"

#include <cstring>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;

std::string name_of(const LinearWeight& weight) { return weight.recipe ? weight.recipe->name : "bf16"; }

// Whether an expert's weights are said to be those of the first.
bool repeats(std::span<const std::vector<const LinearWeight*>> experts, std::size_t e) {
  if (e == 0) return false;
  for (std::size_t i = 0; i < experts[e].size(); ++i)
    if (experts[e][i]->equal_to.empty() || experts[e][i]->equal_to != experts[0][i]->equal_to) return false;
  return true;
}

// Fills a block of equal parts, one for each expert, in their order.
class Filler {
 public:
  Filler(std::int64_t experts, std::size_t bytes) : bytes_(bytes), memory_(bytes * static_cast<std::size_t>(experts)) {}

  /// The host's bytes may go when this returns.
  void add(std::span<const std::byte> bytes) {
    LOWP_CHECK(bytes.size() == bytes_, "experts of {} and {} bytes", bytes.size(), bytes_);
    cuda::copy(next(), bytes.data(), bytes_, stream_.handle());
    stream_.synchronize();
  }
  void repeat_first() { cuda::copy(next(), memory_.as<>(), bytes_, stream_.handle()); }
  cuda::Memory take() {
    stream_.synchronize();
    return std::move(memory_);
  }

 private:
  std::byte* next() { return memory_.as<std::byte>() + bytes_ * static_cast<std::size_t>(done_++); }
  std::size_t bytes_;
  cuda::Memory memory_;
  const cuda::Stream stream_;
  std::int64_t done_ = 0;
};

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// Appends the bytes of all experts, made one by one by `of`.
template <typename Of>
cuda::Memory filled(std::span<const std::vector<const LinearWeight*>> experts, const Of& of) {
  std::optional<Filler> filler;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    if (repeats(experts, e)) {
      filler->repeat_first();
      continue;
    }
    const auto made = of(experts[e]);
    if (!filler) filler.emplace(static_cast<std::int64_t>(experts.size()), bytes_of(made).size());
    filler->add(bytes_of(made));
  }
  return filler->take();
}

}  // namespace

CudaExpertStack::CudaExpertStack(std::span<const Expert> experts, const Device& device)
    : device_(device.cuda), experts_(static_cast<std::int64_t>(experts.size())), name_(name_of(*experts[0][0])) {
  const LinearWeight& first = *experts[0][0];
  gated_ = experts[0].size() == 2;
  k_ = first.k();
  n_ = first.n() * static_cast<std::int64_t>(experts[0].size());
  if (first.recipe && first.recipe->activation) activation_.emplace(*first.recipe->activation, k_);
  check(experts, device);
  cuda::use_device(device_);
  for (const Form form : forms(experts[0]))
    if (upload(experts, form)) break;
  if (first.bias)
    packed_.bias = filled(experts, [&](const Expert& expert) {
      std::vector<std::uint16_t> all(static_cast<std::size_t>(n_));
      const std::size_t run = gated_ ? 8 : all.size();
      for (std::size_t i = 0; i < expert.size(); ++i) {
        Tensor holder;
        const TensorView bias = as_bf16(*expert[i]->bias, holder);
        for (std::size_t at = 0; at < all.size() / expert.size(); at += run)
          std::memcpy(all.data() + expert.size() * at + i * run, bias.bytes.data() + at * 2, run * 2);
      }
      return all;
    });
  if (activation_ && first.quantized() && multiply_codes(first.quantized()->format, activation_->format()) &&
      !first.bias)
    upload_dense(experts);
}

void CudaExpertStack::check(std::span<const Expert> experts, const Device& device) const {
  const auto refuse = [&](const std::string& what) {
    fail(ErrorCode::unsupported, "experts in {} on {}: {}", name_, device.name(), what);
  };
  if (k_ % 16 || k_ == 0) refuse(fmt::format("{} inputs are no multiple of 16", k_));
  if (activation_ && experts[0][0]->recipe->activation->scope == formats::Scope::calibrated)
    refuse("calibrated activations are not supported");
  for (std::size_t e = 0; e < experts.size(); ++e)
    for (const LinearWeight* weight : experts[e]) {
      const std::string name = repeats(experts, e) ? name_ : name_of(*weight);
      if (name != name_) refuse(fmt::format("an expert in {} beside them", name));
      if (weight->n() % 8) refuse(fmt::format("{} outputs are no multiple of 8", weight->n()));
      if (weight->k() != k_ || weight->n() * static_cast<std::int64_t>(experts[e].size()) != n_)
        refuse("experts of several shapes");
      if (weight->bias.has_value() != experts[0][0]->bias.has_value()) refuse("biases of some");
      if (!weight->quantized()) continue;
      if (!weight->quantized()->column_order.empty()) refuse("columns in activation order are not supported");
      if (!weight->quantized()->pre_scale.empty()) refuse("smoothed inputs are not supported");
    }
}

// To be tried in their order: all experts have the same.
std::vector<CudaExpertStack::Form> CudaExpertStack::forms(const Expert& expert) const {
  if (!expert[0]->quantized()) return {Form::values};
  if (activation_ && rows_of_e4m3(activation_->format())) return {Form::folded, Form::own, Form::values};
  return {Form::own, Form::values};
}

std::optional<cuda::PackedWeight> CudaExpertStack::pack(const LinearWeight& weight, Form form) {
  std::string why;
  if (form == Form::values) {
    Tensor holder;
    if (const TensorView* values = weight.values()) return cuda::pack_bf16_weight(as_bf16(*values, holder));
    return cuda::pack_bf16_weight(dequantize(*weight.quantized(), DType::bf16).view());
  }
  auto packed = form == Form::folded ? cuda::pack_folded_weight(*weight.quantized(), &why)
                                     : cuda::pack_weight(*weight.quantized(), &why);
  if (!packed && form == Form::own) note_ = fmt::format(" (dequantized to bf16 at load: {})", why);
  return packed;
}

std::optional<cuda::PackedWeight> CudaExpertStack::pack(const Expert& expert, Form form) {
  auto first = pack(*expert[0], form);
  if (!first || expert.size() == 1) return first;
  const auto second = pack(*expert[1], form);
  if (!second) return std::nullopt;
  return cuda::by_eights(*first, *second);
}

// False where an expert has no such form.
bool CudaExpertStack::upload(std::span<const Expert> experts, Form form) {
  std::optional<Filler> units, scales;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    if (repeats(experts, e)) {
      units->repeat_first();
      scales->repeat_first();
      continue;
    }
    const auto packed = pack(experts[e], form);
    if (!packed) return false;
    if (!units) {
      packed_.codes = packed->codes;
      packed_.scales = packed->scales;
      units.emplace(experts_, packed->units.size());
      scales.emplace(experts_, bytes_of(packed->row_scale).size());
    }
    units->add(bytes_of(packed->units));
    scales->add(bytes_of(packed->row_scale));
  }
  packed_.units = units->take();
  packed_.row_scale = scales->take();
  return true;
}

void CudaExpertStack::upload_dense(std::span<const Expert> experts) {
  const BlockFormat& format = experts[0][0]->quantized()->format;
  const auto joined = [](const Expert& expert, const auto& part) {
    std::vector<std::byte> all;
    for (const LinearWeight* weight : expert) {
      const auto bytes = part(*weight->quantized());
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  };
  // A scale for a whole matrix becomes one for each of its rows where two matrices lie together.
  const bool repeated = format.group_rows == 0 && gated_;
  if (format.group_rows > 1 && (n_ / (gated_ ? 2 : 1)) % format.group_rows) return;  // their blocks do not meet
  dense_.codes = filled(experts, [&](const Expert& expert) {
    return joined(expert, [](const QuantizedMatrix& w) { return w.codes.bytes(); });
  });
  dense_.scale = filled(experts, [&](const Expert& expert) {
    if (!repeated) return joined(expert, [](const QuantizedMatrix& w) { return w.scale.bytes(); });
    return joined(expert, [](const QuantizedMatrix& w) {
      const std::vector<float> scales(static_cast<std::size_t>(w.m), w.scale.as<float>()[0]);
      const std::span<const std::byte> bytes = std::as_bytes(std::span(scales));
      return std::vector<std::byte>(bytes.begin(), bytes.end());
    });
  });
  dense_.scale_each = format.group_rows != 0 || repeated;
  dense_.use_sums_of(format);
  if (activation_->format().zero_point == formats::ZeroPoint::none) return;
  dense_.sum = filled(experts, [&](const Expert& expert) {
    std::vector<std::int32_t> sums;
    for (const LinearWeight* weight : expert) {
      const auto* code = reinterpret_cast<const std::int8_t*>(weight->quantized()->codes.bytes().data());
      for (std::int64_t row = 0; row < weight->n(); ++row, code += k_)
        sums.push_back(std::accumulate(code, code + k_, std::int32_t{0}));
    }
    return sums;
  });
}

cuda::ExpertsProduct CudaExpertStack::packed() const {
  return {.codes = packed_.codes,
          .scales = packed_.scales,
          .n = n_,
          .k = k_,
          .units = packed_.units.as<std::uint8_t>(),
          .row_scale = packed_.row_scale.as<float>(),
          .bias = packed_.bias.as<>(),
          .gated = gated_};
}

cuda::GroupedProduct CudaExpertStack::grouped() const {
  cuda::GroupedProduct p;
  p.n = n_, p.k = k_, p.sums = dense_.sums, p.experts = experts_;
  p.b = dense_.codes.as<>();
  p.b_scale = dense_.scale.as<float>();
  p.b_scale_each = dense_.scale_each;
  p.b_sum = dense_.sum.as<std::int32_t>();
  return p;
}

CudaExpertStack CudaExpertStack::copy() const {
  cuda::use_device(device_);
  CudaExpertStack made;
  made.device_ = device_;
  made.n_ = n_;
  made.k_ = k_;
  made.experts_ = experts_;
  made.name_ = name_;
  made.note_ = note_;
  made.activation_ = activation_;
  made.gated_ = gated_;
  made.packed_ = packed_.copy();
  made.dense_ = dense_.copy();
  return made;
}

}  // namespace lowp::ops
