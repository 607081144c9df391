#include "lowp/ops/cast_cuda.h"

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/hadamard.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Rule;

// Device copies that live until the stream has been waited for.
class Transfers {
 public:
  template <typename T>
  const T* upload(std::span<const T> host) {
    const cuda::Memory& to = memory_.emplace_back(std::max<std::size_t>(host.size_bytes(), 1));
    cuda::copy(to.as<>(), host.data(), host.size_bytes(), stream_.handle());
    return to.as<T>();
  }
  void* allocate(std::size_t bytes) { return memory_.emplace_back(std::max<std::size_t>(bytes, 1)).as<>(); }
  void download(Tensor& to, const void* from) {
    if (!to.empty()) cuda::copy(to.bytes().data(), from, to.bytes().size(), stream_.handle());
  }
  const cuda::Stream& stream() const { return stream_; }

 private:
  cuda::Stream stream_;
  std::vector<cuda::Memory> memory_;
};

struct Dims {
  std::int64_t experts, m, k;
};
Dims dims_of(const Shape& shape) {
  return shape.size() == 3 ? Dims{shape[0], shape[1], shape[2]} : Dims{1, shape[0], shape[1]};
}

// Allocates one orientation on host and device; [rows, columns] as groups see the matrix.
cuda::CastResult prepare(Transfers& transfers, const CudaCastRequest& request, const Dims& dims, bool along_m,
                         PlacedCast& out) {
  const BlockFormat& format = request.format;
  const std::int64_t rows = along_m ? dims.k : dims.m, columns = along_m ? dims.m : dims.k;
  const QuantizedMatrix one = allocate(format, element_of(request.x.dtype), rows, columns, request.options.name);
  const auto all = [&](const Tensor& t, const Shape& shape) {
    Shape whole = shape;
    whole.insert(whole.begin(), dims.experts);
    return t.empty() ? Tensor() : Tensor(t.dtype(), whole);
  };
  Shape scale_shape = one.scale.shape();
  if (along_m && scale_shape.size() == 2) std::swap(scale_shape[0], scale_shape[1]);
  out.codes = all(one.codes, one.codes.shape());
  out.scale = all(one.scale, scale_shape);
  out.zero_point = all(one.zero_point, scale_shape);
  cuda::CastResult to;
  if (const formats::ScaleMap* map = along_m ? request.map_m : request.map_k) {
    out.scale = Tensor(DType::u8, map->shape());
    const formats::ScaleGrid grid = map->grid();
    to.layout = grid.layout;
    to.groups = transfers.upload(std::span<const formats::ScaleGroup>(map->groups()));
    to.group_count = grid.count;
  }
  to.codes = transfers.allocate(out.codes.bytes().size());
  to.scale = transfers.allocate(out.scale.bytes().size());
  to.zero_point = transfers.allocate(out.zero_point.bytes().size());
  return to;
}

void check_hadamard(const CudaCastRequest& request, const Dims& dims) {
  for (const bool along_m : {false, true})
    if (const std::int64_t size = along_m ? dims.m : dims.k;
        (along_m ? request.along_m : request.along_k) && size % kernels::kHadamardRun != 0)
      fail(ErrorCode::unsupported, "{}: K = {} is not divisible by the {} values of a Hadamard transform",
           request.options.name, size, kernels::kHadamardRun);
  if (request.options.shared)
    fail(ErrorCode::unsupported, "{}: a shared tensor scale does not go with a Hadamard transform",
         request.options.name);
}

}  // namespace

CudaCast cast_on_cuda(const CudaCastRequest& request) {
  const BlockFormat& format = request.format;
  const Dims dims = dims_of(request.x.shape);
  const std::int64_t size = dims.m * dims.k;
  if (format.super_cols > 0)
    fail(ErrorCode::unsupported, "{}: {} has no cast on CUDA devices; use the CPU", request.options.name, format.name);
  if (request.options.stochastic) check_stochastic(format, request.options.name);
  if (request.hadamard) check_hadamard(request, dims);
  cuda::use_device(request.options.device.cuda);
  Transfers transfers;
  CudaCast result;
  const auto stream = transfers.stream().handle();

  // Brings a result back; the second-level scales follow from the magnitudes that the cast used.
  const auto fetch = [&](PlacedCast& to, const cuda::CastResult& from, const cuda::CastTask& used) {
    if (!from.codes) return;
    transfers.download(to.codes, from.codes);
    transfers.download(to.scale, from.scale);
    transfers.download(to.zero_point, from.zero_point);
    if (!format.tensor_scale) return;
    std::vector<cuda::MatrixAmax> found(static_cast<std::size_t>(dims.experts));
    for (cuda::MatrixAmax& f : found) f.bits = float_bits(used.static_amax);
    if (used.amax) cuda::copy(found.data(), used.amax, found.size() * sizeof found[0], stream);
    transfers.stream().synchronize();
    for (const cuda::MatrixAmax& f : found)
      to.tensor_scale.push_back(formats::stored_tensor_scale(format, bits_float(f.bits)));
  };

  cuda::CastTask task;
  if (request.along_k) task.along_k = prepare(transfers, request, dims, false, result.along_k);
  if (request.along_m) task.along_m = prepare(transfers, request, dims, true, result.along_m);
  task.x = transfers.upload(request.x.bytes);
  task.input = element_of(request.x.dtype);
  task.experts = dims.experts;
  task.m = dims.m;
  task.k = dims.k;
  task.format = format;
  task.scaling = request.options.scaling;
  task.stochastic = request.options.stochastic;
  if (!request.codebook.empty()) task.codebook = transfers.upload(request.codebook);

  if ((format.rule != Rule::mx && format.rule != Rule::plain) || request.options.refuse_nonfinite) {
    std::vector<cuda::MatrixAmax> found(static_cast<std::size_t>(dims.experts));
    auto* amax = static_cast<cuda::MatrixAmax*>(transfers.allocate(found.size() * sizeof found[0]));
    cuda::amax(task.x, task.input, dims.experts, size, amax, stream);
    cuda::copy(found.data(), amax, found.size() * sizeof found[0], stream);
    transfers.stream().synchronize();
    for (std::int64_t e = 0; e < dims.experts; ++e) {
      if (is_finite(bits_float(found[static_cast<std::size_t>(e)].bits))) continue;
      auto* index = static_cast<std::int64_t*>(transfers.allocate(8));
      cuda::first_nonfinite(task.x, task.input, dims.experts * size, index, stream);
      std::int64_t first = 0;
      cuda::copy(&first, index, 8, stream);
      transfers.stream().synchronize();
      const std::string expert = dims.experts > 1 ? fmt::format(" (expert {})", first / size) : "";
      fail(ErrorCode::bad_input, "{}{}: value {} at [{}, {}] is not finite", request.options.name, expert,
           load_one(request.x, first), first % size / dims.k, first % dims.k);
    }
    task.amax = amax;
    if (request.options.shared) {
      task.amax = nullptr;
      task.static_amax = request.options.shared->amax();
    }
  }

  if (request.hadamard) {
    // Each orientation is another matrix then, with magnitudes of its own.
    task.front.kind = cuda::Front::hadamard;
    for (const bool along_m : {false, true}) {
      cuda::CastTask one = task;
      (along_m ? one.along_k : one.along_m) = {};
      if (!(along_m ? one.along_m : one.along_k).codes) continue;
      if (task.amax) {
        auto* amax = static_cast<cuda::MatrixAmax*>(transfers.allocate(dims.experts * sizeof(cuda::MatrixAmax)));
        cuda::rotated_amax(task.x, task.input, dims.experts, dims.m, dims.k, along_m, amax, stream);
        std::vector<cuda::MatrixAmax> found(static_cast<std::size_t>(dims.experts));
        cuda::copy(found.data(), amax, found.size() * sizeof found[0], stream);
        transfers.stream().synchronize();
        for (const cuda::MatrixAmax& f : found)
          if (!is_finite(bits_float(f.bits)))
            fail(ErrorCode::bad_input, "{}: the Hadamard transform of its values is beyond {}", request.options.name,
                 name(request.x.dtype));
        one.amax = amax;
      }
      cuda::cast(one, stream);
      fetch(along_m ? result.along_m : result.along_k, along_m ? one.along_m : one.along_k, one);
    }
  } else {
    cuda::cast(task, stream);
    fetch(result.along_k, task.along_k, task);
    fetch(result.along_m, task.along_m, task);
  }
  transfers.stream().synchronize();
  return result;
}

QuantizedMatrix quantize_on_cuda(const TensorView& x, const BlockFormat& format, const CastOptions& options,
                                 std::span<const float> codebook) {
  CudaCastRequest request{x, format, options, true, false, false, nullptr, nullptr, codebook};
  CudaCast cast = cast_on_cuda(request);
  QuantizedMatrix out = allocate(format, element_of(x.dtype), x.shape[0], x.shape[1], options.name);
  const auto take = [](Tensor& to, Tensor& from) {
    if (!to.empty()) to = std::move(from).reinterpret(to.dtype(), to.shape());
  };
  take(out.codes, cast.along_k.codes);
  take(out.scale, cast.along_k.scale);
  take(out.zero_point, cast.along_k.zero_point);
  if (format.tensor_scale) out.tensor_scale = cast.along_k.tensor_scale[0];
  std::copy(codebook.begin(), codebook.end(), out.codebook.empty() ? nullptr : out.codebook.as<float>());
  if (options.rows_read) options.rows_read(out.m);
  return out;
}

Tensor dequantize_on_cuda(const QuantizedMatrix& matrix, DType output, const Device& device) {
  cuda::use_device(device.cuda);
  Transfers transfers;
  Tensor out(output, {matrix.m, matrix.k});
  cuda::DequantizeTask task;
  task.format = matrix.format;
  task.m = matrix.m;
  task.k = matrix.k;
  task.codes = transfers.upload(matrix.codes.bytes());
  task.scale = transfers.upload(matrix.scale.bytes());
  task.zero_point = transfers.upload(matrix.zero_point.bytes());
  task.tensor_scale = transfers.upload(std::span(&matrix.tensor_scale, 1));
  task.codebook = reinterpret_cast<const float*>(transfers.upload(matrix.codebook.bytes()));
  task.output = element_of(output);
  task.out = transfers.allocate(out.bytes().size());
  if (out.bytes().empty()) return out;
  cuda::dequantize(task, transfers.stream().handle());
  transfers.download(out, task.out);
  transfers.stream().synchronize();
  return out;
}

}  // namespace lowp::ops
