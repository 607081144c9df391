#include "lowp/ops/cast.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/cast.h"
#include "lowp/kernels/hadamard.h"
#include "lowp/kernels/ref/cast.h"
#include "lowp/ops/cast_cuda.h"

namespace lowp::ops {
namespace {

using formats::BlockFormat;
using formats::Elem;
using formats::GroupStats;

const kernels::CastKernels& kernels_for_cpu() {
  static const kernels::CastKernels* const fast =
      kernels::reference_backend() ? nullptr : kernels::cpu::cast_kernels(kernels::cpu::isa());
  return fast ? *fast : kernels::ref::kCast;
}

// Storage type of the codes in memory.
DType code_type(const BlockFormat& format) {
  const auto& element = formats::info(format.element);
  if (!element.is_float()) return element.is_signed ? DType::i8 : DType::u8;
  switch (format.element) {
    case Elem::f32:
      return DType::f32;
    case Elem::f16:
      return DType::f16;
    case Elem::bf16:
      return DType::bf16;
    case Elem::e4m3:
      return DType::f8_e4m3;
    case Elem::e5m2:
      return DType::f8_e5m2;
    case Elem::e8m0:
      return DType::f8_e8m0;
    default:
      return DType::u8;
  }
}

// All rows at once, on all threads; with rows_read in bands of about 16 MB of bf16, so that pages can be let go while
// streaming. Parts are multiples of the group height.
template <typename Body>
void for_bands(const BlockFormat* format, std::int64_t m, std::int64_t k, const CastOptions& options,
               const Body& body) {
  const std::int64_t height = format && format->group_rows > 1 ? format->group_rows : 1,
                     row = std::max<std::int64_t>(k, 1);
  const std::int64_t band =
      options.rows_read ? round_up(ceil_div<std::int64_t>(std::int64_t{1} << 23, row), height) : m;
  const std::int64_t grain = ceil_div<std::int64_t>(std::int64_t{1} << 15, height * row);
  for (std::int64_t top = 0; top < m; top += band) {
    const std::int64_t rows = std::min(band, m - top);
    parallel_for(ceil_div(rows, height), grain, [&](std::int64_t begin, std::int64_t end) {
      body(top + begin * height, std::min(top + end * height, top + rows));
    });
    if (options.rows_read) options.rows_read(top + rows);
  }
}

// Columns in activation order back to where the weight has them.
void restore_columns(Tensor& values, const QuantizedMatrix& matrix) {
  if (matrix.column_order.empty()) return;
  const auto* order = matrix.column_order.as<std::int32_t>();
  const std::size_t width = static_cast<std::size_t>(info(values.dtype()).bits) / 8;
  const std::size_t row = static_cast<std::size_t>(matrix.k) * width;
  for_bands(nullptr, matrix.m, matrix.k, {}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::byte* to = values.bytes().data() + static_cast<std::size_t>(r) * row;
      const std::vector<std::byte> stored(to, to + row);
      for (std::int64_t c = 0; c < matrix.k; ++c)
        std::memcpy(to + static_cast<std::size_t>(order[c]) * width,
                    stored.data() + static_cast<std::size_t>(c) * width, width);
    }
  });
}

}  // namespace

QuantizedMatrix allocate(const BlockFormat& format, Elem input, std::int64_t m, std::int64_t k,
                         const std::string& name) {
  if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
    fail(ErrorCode::unsupported, "{} [{}, {}]: {}", name, m, k, wrong);
  QuantizedMatrix out;
  out.format = format;
  out.m = m;
  out.k = k;
  out.input = input;
  out.codes = Tensor(code_type(format), {m, format.two_codes_a_byte() ? k / 2 : k});
  if (format.has_scale()) {
    const DType type = format.scale == Elem::e8m0   ? DType::f8_e8m0
                       : format.scale == Elem::e4m3 ? DType::f8_e4m3
                                                    : DType::f32;
    const Shape shape = {format.scale_rows(m), format.scale_cols(k)};
    out.scale = Tensor(type, shape);
    if (format.zero_point != formats::ZeroPoint::none)
      out.zero_point = Tensor(format.zero_point == formats::ZeroPoint::integer ? DType::i8 : DType::f32, shape);
  }
  if (format.rule == formats::Rule::codebook) out.codebook = Tensor(DType::f32, {16});
  return out;
}

GroupStats stats(const TensorView& x, const CastOptions& options, bool allow_nonfinite) {
  const std::int64_t m = x.shape[0], k = x.shape[1];
  GroupStats all;
  std::int64_t first = -1;
  std::mutex mutex;
  for_bands(nullptr, m, k, options, [&](std::int64_t begin, std::int64_t end) {
    const kernels::MatrixStats part = kernels_for_cpu().stats(x, begin, end);
    const std::lock_guard lock(mutex);
    all.merge(part.values);
    if (part.first_nonfinite >= 0 && (first < 0 || part.first_nonfinite < first)) first = part.first_nonfinite;
  });
  if (first >= 0 && !allow_nonfinite) {
    fail(ErrorCode::bad_input, "{}: value {} at [{}, {}] is not finite", options.name, load_one(x, first), first / k,
         first % k);
  }
  return all;
}

QuantizedMatrix quantize(const TensorView& x, const BlockFormat& format, const CastOptions& options,
                         std::span<const float> codebook) {
  QuantizedMatrix out = allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  quantize_into(out, x, options, codebook);
  return out;
}

void check_stochastic(const BlockFormat& format, const std::string& name) {
  if (!formats::rounds_stochastically(format))
    fail(ErrorCode::unsupported, "{}: {} has no stochastic rounding; floats under a scale (mx, nvfp4, float8) have",
         name, format.name);
}

Tensor hadamard16(const TensorView& x, const std::string& name) {
  constexpr std::int64_t kRun = kernels::kHadamardRun;
  const std::int64_t k = x.shape.back(), runs = element_count(x.shape) / kRun;
  if (k % kRun != 0)
    fail(ErrorCode::unsupported, "{}: K = {} is not divisible by the {} values of a Hadamard transform", name, k, kRun);
  Tensor out(x.dtype, x.shape);
  parallel_for(runs, 1 << 11, [&](std::int64_t begin, std::int64_t end) {
    std::array<float, kRun> v;
    for (std::int64_t r = begin; r < end; ++r) {
      load_f32(x, r * kRun, kRun, v.data());
      kernels::hadamard16(v.data());
      store_rounded(out, r * kRun, v);
    }
  });
  return out;
}

void quantize_into(QuantizedMatrix& out, const TensorView& x, const CastOptions& options,
                   std::span<const float> codebook) {
  if (options.stochastic) check_stochastic(out.format, options.name);
  if (options.device.is_cuda()) {
    out = quantize_on_cuda(x, out.format, options, codebook);
    return;
  }
  const BlockFormat& format = out.format;
  const bool tolerant =
      format.rule == formats::Rule::plain || (format.rule == formats::Rule::mx && !options.refuse_nonfinite);
  GroupStats matrix;
  if (format.group_rows == 0 || (format.tensor_scale && !options.shared)) matrix = stats(x, options);
  if (options.shared) matrix = *options.shared;
  if (format.tensor_scale) out.tensor_scale = formats::stored_tensor_scale(format, matrix.amax());
  std::copy(codebook.begin(), codebook.end(), out.codebook.empty() ? nullptr : out.codebook.as<float>());
  const kernels::QuantizeTask task{x, options.scaling, matrix, &out, options.stochastic};
  const kernels::CastKernels& kernels = options.stochastic ? kernels::ref::kCast : kernels_for_cpu();
  std::atomic<bool> finite = true;
  for_bands(&format, out.m, out.k, options, [&](std::int64_t begin, std::int64_t end) {
    if (!kernels.quantize(task, begin, end)) finite = false;
  });
  if (!finite && !tolerant) stats(x, options);  // throws, naming the place
  // Of an all-zero matrix the block scales are 1 too; a zero block of another one keeps the smallest.
  if (format.tensor_scale && format.rule == formats::Rule::nvfp4 && matrix.amax() == 0)
    std::fill_n(out.scale.as<std::uint8_t>(), out.scale.bytes().size(),
                static_cast<std::uint8_t>(formats::encode(format.scale, 1.0f)));
}

Tensor dequantize(const QuantizedMatrix& matrix, DType output, const Device& device) {
  if (device.is_cuda()) {
    Tensor result = dequantize_on_cuda(matrix, output, device);
    restore_columns(result, matrix);
    return result;
  }
  Tensor result(output, {matrix.m, matrix.k});
  if (output == DType::f16) {  // the kernels have f32 and bf16
    const Tensor exact = dequantize(matrix, DType::f32);
    store_rounded(result, 0, {exact.as<float>(), static_cast<std::size_t>(matrix.m * matrix.k)});
  } else {
    dequantize_into(result, matrix);
  }
  return result;
}

void dequantize_into(Tensor& out, const QuantizedMatrix& matrix) {
  LOWP_CHECK(out.dtype() == DType::f32 || out.dtype() == DType::bf16, "decoding to {}", name(out.dtype()));
  const std::size_t row = out.bytes().size() / static_cast<std::size_t>(std::max<std::int64_t>(matrix.m, 1));
  for_bands(nullptr, matrix.m, matrix.k, {}, [&](std::int64_t begin, std::int64_t end) {
    kernels_for_cpu().dequantize(matrix, out.dtype(), begin, end,
                                 out.bytes().data() + static_cast<std::size_t>(begin) * row);
  });
  restore_columns(out, matrix);
}

double sqnr(const TensorView& x, const QuantizedMatrix& matrix, const CastOptions& options) {
  LOWP_CHECK(matrix.column_order.empty(), "{}: columns in activation order", options.name);
  // Summed by row, then over rows in order: the same figure with any number of threads.
  std::vector<double> signal(static_cast<std::size_t>(matrix.m)), noise(static_cast<std::size_t>(matrix.m));
  for_bands(nullptr, matrix.m, matrix.k, options, [&](std::int64_t begin, std::int64_t end) {
    kernels_for_cpu().errors(x, matrix, begin, end, signal.data() + begin, noise.data() + begin);
  });
  const double total = std::accumulate(noise.begin(), noise.end(), 0.0);
  if (total == 0) return std::numeric_limits<double>::infinity();
  return 10 * std::log10(std::accumulate(signal.begin(), signal.end(), 0.0) / total);
}

}  // namespace lowp::ops
