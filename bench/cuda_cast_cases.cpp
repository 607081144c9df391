#include "bench/cuda_cast_cases.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <span>

#include "bench/cuda_device.h"
#include "lowp/base/error.h"
#include "lowp/formats/block.h"
#include "lowp/kernels/cuda/cast.h"
#include "lowp/tensor/tensor.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::ScaleLayout;
using formats::Scaling;

constexpr std::int64_t kRows = 16384, kColumns = 8192;

// Inputs, outputs and the task of one case.
struct Job {
  cuda::CastTask task;
  cuda::Memory x, amax, codes[2], scale[2], zero_point;
};

// Normal values, 2^22 of them again and again.
cuda::Memory input(Elem type, std::int64_t count) {
  const std::size_t width = static_cast<std::size_t>(formats::info(type).bits / 8),
                    bytes = static_cast<std::size_t>(count) * width;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<std::byte> values((std::size_t{1} << 22) * width);
  for (std::size_t i = 0; i < values.size(); i += width) {
    const std::uint32_t code = formats::encode(type, normal(rng), formats::Overflow::to_special);
    std::memcpy(values.data() + i, &code, width);
  }
  cuda::Memory x(bytes);
  for (std::size_t at = 0; at < bytes; at += values.size())
    cuda::copy(x.as<std::byte>() + at, values.data(), std::min(values.size(), bytes - at), cuda_stream().handle());
  cuda_stream().synchronize();
  return x;
}

struct Shape3 {
  std::int64_t experts, m, k;
  std::int64_t count() const { return experts * m * k; }
};

std::uint64_t code_bytes(const BlockFormat& format, const Shape3& s) {
  return static_cast<std::uint64_t>(s.count() * (format.two_codes_a_byte() ? 4 : 8) / 8);
}
std::uint64_t scale_bytes(const BlockFormat& format, std::int64_t experts, std::int64_t rows, std::int64_t columns) {
  const bool byte = formats::info(format.scale).bits == 8;  // wider ones are kept as f32
  return static_cast<std::uint64_t>(experts * format.scale_rows(rows) * format.scale_cols(columns) * (byte ? 1 : 4));
}

std::shared_ptr<Job> prepare(const BlockFormat& format, Elem type, Scaling scaling, const Shape3& s, bool along_k,
                             bool along_m, ScaleLayout layout) {
  auto job = std::make_shared<Job>();
  job->x = input(type, s.count());
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

std::vector<std::string> default_formats() {
  std::vector<std::string> names;
  for (const formats::BlockRow& row : formats::block_rows())
    for (const std::string& name : formats::expand_pattern(row.pattern))
      if (const BlockFormat f = formats::block_format(name);
          f.has_scale() && f.super_cols == 0 && !f.calibrated && !f.hqq && f.rule != formats::Rule::codebook &&
          f.group_cols <= 128 && (formats::info(f.element).is_float() || formats::info(f.element).bits % 4 == 0))
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

std::string spelled(const char* op, DType type, const BlockFormat& format, Scaling scaling) {
  std::string text = fmt::format("{}:{}", op, formats::name(element_of(type)));
  if (format.rule == formats::Rule::mx) text += fmt::format(":{}", formats::name(scaling));
  return text;
}

constexpr Scaling kModes[] = {Scaling::floor, Scaling::rceil};

std::span<const Scaling> modes(const BlockFormat& format) {
  return std::span(kModes).first(format.rule == formats::Rule::mx ? 2 : 1);
}

}  // namespace

std::vector<Case> cuda_cast_cases(const Selection& selection) {
  const std::int64_t m = selection.m.value_or(kRows), k = selection.k.value_or(kColumns);
  const Elem type = element_of(selection.dtype);
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? default_formats() : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
      fail(ErrorCode::usage, "{}: {}", name, wrong);
    const Shape3 shape{1, m, k};
    const bool columns = format.group_rows == 1 && format.group_cols > 0 && formats::info(format.scale).bits == 8;
    for (const Scaling scaling : modes(format)) {
      const auto add = [&](const char* op, bool along_k, bool along_m, ScaleLayout layout) {
        const std::uint64_t one = code_bytes(format, shape);
        const std::uint64_t bytes = byte_count(selection.dtype, {m, k}) +
                                    (along_k ? one + scale_bytes(format, 1, m, k) : 0) +
                                    (along_m ? one + scale_bytes(format, 1, k, m) : 0);
        cases.push_back({spelled(op, selection.dtype, format, scaling), format.name, m, 0, k, bytes, 0, "copy", [=] {
                           const auto job = prepare(format, type, scaling, shape, along_k, along_m, layout);
                           return [job] { cuda::cast(job->task, cuda_stream().handle()); };
                         }});
      };
      add("cast", true, false, ScaleLayout::rows);
      if (format.tensor_scale) {
        // With the pass that finds the largest magnitude; its second read is not counted.
        const std::uint64_t bytes =
            byte_count(selection.dtype, {m, k}) + code_bytes(format, shape) + scale_bytes(format, 1, m, k);
        cases.push_back(
            {spelled("amax+cast", selection.dtype, format, scaling), format.name, m, 0, k, bytes, 0, "copy", [=] {
               const auto job = prepare(format, type, scaling, shape, true, false, ScaleLayout::rows);
               return [job, type, count = m * k] {
                 cuda::amax(job->task.x, type, 1, count, job->amax.as<cuda::MatrixAmax>(), cuda_stream().handle());
                 cuda::cast(job->task, cuda_stream().handle());
               };
             }});
      }
      if (!columns) continue;
      add("cast_tiled", true, false, ScaleLayout::tiled);
      add("cast_n", false, true, ScaleLayout::rows);
      add("cast_n_tiled", false, true, ScaleLayout::tiled);
      add("cast_both", true, true, ScaleLayout::rows);
    }
  }
  return cases;
}

std::vector<Case> cuda_expert_cases(const Selection& selection) {
  const std::int64_t n = selection.n.value_or(8192), k = selection.k.value_or(5120);
  const Elem type = element_of(selection.dtype);
  const BlockFormat format = formats::block_format(selection.recipes.empty() ? "mxfp8" : selection.recipes[0]);
  std::vector<Case> cases;
  for (const std::int64_t experts :
       selection.m ? std::vector<std::int64_t>{*selection.m} : std::vector<std::int64_t>{1, 2, 4, 8, 16, 64}) {
    const Shape3 shape{experts, n, k};
    const std::uint64_t bytes =
        byte_count(selection.dtype, {experts, n, k}) + code_bytes(format, shape) + scale_bytes(format, experts, k, n);
    for (const Scaling scaling : modes(format)) {
      const auto add = [&](const char* op, std::function<std::function<void()>()> prepared) {
        cases.push_back({spelled(op, selection.dtype, format, scaling), format.name, experts, n, k, bytes, 0, "copy",
                         std::move(prepared)});
      };
      add("experts", [=] {
        const auto job = prepare(format, type, scaling, shape, false, true, ScaleLayout::rows);
        return [job] { cuda::cast(job->task, cuda_stream().handle()); };
      });
      add("experts_2d", [=] {
        const auto job = prepare(format, type, scaling, {1, experts * n, k}, false, true, ScaleLayout::rows);
        const auto placed = std::make_shared<cuda::Memory>(job->codes[1].size());
        return [=] {
          cuda::cast(job->task, cuda_stream().handle());
          const std::size_t row = job->codes[1].size() / static_cast<std::size_t>(k * experts);
          for (std::int64_t e = 0; e < experts; ++e)
            cuda::copy_rows(placed->as<std::byte>() + static_cast<std::size_t>(e * k) * row, row,
                            job->codes[1].as<std::byte>() + static_cast<std::size_t>(e) * row,
                            row * static_cast<std::size_t>(experts), row, static_cast<std::size_t>(k),
                            cuda_stream().handle());
        };
      });
    }
  }
  return cases;
}

}  // namespace lowp::bench
