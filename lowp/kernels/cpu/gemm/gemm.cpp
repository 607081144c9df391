#include "lowp/kernels/cpu/gemm/packed.h"
namespace lowp::kernels::cpu {

void PackedRows::fit(const PackedMatrix& weight, const formats::Activation* activation, std::int64_t count,
                     bool with_tiles) {
  arithmetic = weight.arithmetic;
  rows = count;
  k = weight.k;
  block = weight.block;
  bias = weight.bias;
  const std::int64_t element = arithmetic == Arithmetic::int8 ? 1 : arithmetic == Arithmetic::bf16 ? 2 : 4;
  stride = (ceil_div<std::int64_t>(weight.padded_k() * element, 64) | 1) * 64;
  const auto each = static_cast<std::size_t>(rows), all = static_cast<std::size_t>(rows * blocks() + kBeyond);
  data.resize(static_cast<std::size_t>(rows * stride));
  const bool tiled = with_tiles && arithmetic != Arithmetic::f32 && rows >= kTileRows;
  tiles.resize(tiled ? static_cast<std::size_t>(round_up(rows, kTileRows) * stride) : 0);
  row_scale.resize(each);
  zero_point.resize(activation && activation->format.zero_point != formats::ZeroPoint::none ? each : 0);
  block_scale.resize(activation && activation->format.group_cols != 0 ? all : 0);
  starts.resize(arithmetic == Arithmetic::int8 ? all : 0);
  float_starts.resize(arithmetic != Arithmetic::int8 && bias != 0 ? all : 0);
  scaled_sums.resize(weight.offset != OffsetType::none ? all : 0);
}

RowsTask::RowsTask(const formats::Activation* activation_, formats::Elem compute_, std::optional<float> calibrated_,
                   const formats::GroupStats& call_, PackedRows* out_)
    : activation(activation_), compute(compute_), calibrated(calibrated_), call(call_), out(out_) {
  if (!activation) return;
  const formats::Elem element = activation->format.element;
  const formats::ElementFormat& f = formats::info(element);
  integers = !f.is_float();
  low = formats::min_value(element);
  high = formats::max_value(element);
  if (integers) return;
  const int drop = 23 - f.mantissa_bits, lowest = 1 - f.bias;
  grid = {.half = (1u << (drop - 1)) - 1u,
          .lsb = 1u << drop,
          .largest = float_bits(high),
          .smallest_normal = float_bits(exp2i(lowest)),
          .magic = exp2i(23 + lowest - f.mantissa_bits),
          .has_nan = f.specials != formats::Specials::none};
}

formats::GroupParams RowsTask::params(const formats::GroupStats& stats, float tensor_scale) const {
  const formats::BlockFormat& format = activation->format;
  if (activation->scope == formats::Scope::calibrated && !format.tensor_scale) {
    formats::GroupParams p;
    p.scale = *calibrated;
    p.multiplier = 1.0f / *calibrated;
    return p;
  }
  const bool from_call = activation->scope == formats::Scope::tensor && format.group_rows == 0;
  return formats::choose_params(format, compute, formats::Scaling::rceil, from_call ? call : stats, tensor_scale);
}

float RowsTask::tensor_scale(const formats::GroupStats& stats) const {
  if (!activation->format.tensor_scale) return 1;
  if (calibrated) return *calibrated;
  return formats::nvfp4_tensor_scale((activation->scope == formats::Scope::tensor ? call : stats).amax());
}

const GemmKernels& gemm_kernels(Isa isa) {
#ifdef LOWP_X86
  switch (isa) {
    case Isa::portable:
      break;
    case Isa::avx2:
      return kGemmAvx2;
    case Isa::avx2_vnni:
      return kGemmAvx2Vnni;
    case Isa::avx512:
      return kGemmAvx512;
    case Isa::avx512_bf16:
      return kGemmAvx512Bf16;
    case Isa::amx:
      return kGemmAmx;
  }
#endif
  return kGemmPortable;
}

}  // namespace lowp::kernels::cpu
