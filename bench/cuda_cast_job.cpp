#include "bench/cuda_cast_job.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "bench/cuda_device.h"
#include "lowp/base/error.h"
#include "lowp/tensor/tensor.h"

namespace lowp::bench {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::ScaleLayout;
using formats::Scaling;

cuda::Memory normal_input(Elem type, std::int64_t count) {
  const std::size_t width = static_cast<std::size_t>(formats::info(type).bits / 8),
                    bytes = static_cast<std::size_t>(count) * width;
  static std::map<Elem, std::vector<std::byte>> made;
  std::vector<std::byte>& values = made[type];
  if (values.empty()) {
    values.resize((std::size_t{1} << 22) * width);
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < values.size(); i += width) {
      const std::uint32_t code = formats::encode(type, normal(rng), formats::Overflow::to_special);
      std::memcpy(values.data() + i, &code, width);
    }
  }
  cuda::Memory x(bytes);
  for (std::size_t at = 0; at < bytes; at += values.size())
    cuda::copy(x.as<std::byte>() + at, values.data(), std::min(values.size(), bytes - at), cuda_stream().handle());
  cuda_stream().synchronize();
  return x;
}

std::uint64_t code_bytes(const BlockFormat& format, const Shape3& s) {
  return static_cast<std::uint64_t>(s.count() * (format.two_codes_a_byte() ? 4 : 8) / 8);
}
std::uint64_t scale_bytes(const BlockFormat& format, std::int64_t experts, std::int64_t rows, std::int64_t columns) {
  const bool byte = formats::info(format.scale).bits == 8;  // wider ones are kept as f32
  return static_cast<std::uint64_t>(experts * format.scale_rows(rows) * format.scale_cols(columns) * (byte ? 1 : 4));
}

std::vector<std::string> formats_to_cast(bool (*wanted)(const BlockFormat&)) {
  std::vector<std::string> names;
  for (const std::string& name : formats::block_format_names())
    if (const BlockFormat f = formats::block_format(name);
        !f.calibrated && !f.hqq && f.super_cols == 0 && (f.group_cols == 0 || f.group_cols <= 128) && wanted(f))
      names.push_back(name);
  return names;
}

std::shared_ptr<CudaCastJob> cast_job(const BlockFormat& format, Elem type, Scaling scaling, const Shape3& s,
                                      bool along_k, bool along_m, ScaleLayout layout) {
  auto job = std::make_shared<CudaCastJob>();
  job->x = normal_input(type, s.count());
  cuda::CastTask& task = job->task;
  task.x = job->x.as<>();
  task.input = type;
  task.experts = s.experts;
  task.m = s.m;
  task.k = s.k;
  task.format = format;
  task.scaling = scaling;
  if (format.tensor_scale || format.group_rows == 0) {
    job->amax = cuda::Memory(static_cast<std::size_t>(s.experts) * sizeof(cuda::MatrixAmax));
    task.amax = job->amax.as<cuda::MatrixAmax>();
    cuda::amax(task.x, type, s.experts, s.m * s.k, job->amax.as<cuda::MatrixAmax>(), cuda_stream().handle());
  }
  for (const bool axis_m : {false, true}) {
    if (!(axis_m ? along_m : along_k)) continue;
    const std::int64_t rows = axis_m ? s.k : s.m, columns = axis_m ? s.m : s.k;
    cuda::CastResult& to = axis_m ? task.along_m : task.along_k;
    job->codes[axis_m] = cuda::Memory(code_bytes(format, s));
    // Tiles may be padded to 128 rows and 4 columns.
    job->scale[axis_m] = cuda::Memory(
        scale_bytes(format, s.experts, round_up<std::int64_t>(rows, 128), round_up<std::int64_t>(columns, 128)));
    to.codes = job->codes[axis_m].as<>();
    to.scale = job->scale[axis_m].as<>();
    to.layout = layout;
    if (format.zero_point != formats::ZeroPoint::none) {
      job->zero_point = cuda::Memory(scale_bytes(format, s.experts, rows, columns) * 4);
      to.zero_point = job->zero_point.as<>();
    }
  }
  cuda_stream().synchronize();
  return job;
}

std::string spelled(const std::string& op, DType type, const BlockFormat& format, Scaling scaling) {
  std::string text = fmt::format("{}:{}", op, formats::name(element_of(type)));
  if (format.rule == formats::Rule::mx) text += fmt::format(":{}", formats::name(scaling));
  return text;
}

std::span<const Scaling> measured_modes(const BlockFormat& format) {
  static constexpr Scaling kModes[] = {Scaling::floor, Scaling::rceil};
  return std::span(kModes).first(format.rule == formats::Rule::mx ? 2 : 1);
}

}  // namespace lowp::bench
