#include "bench/cuda_cast_cases.h"

#include "bench/cuda_cast_job.h"
#include "bench/cuda_device.h"
#include "lowp/base/error.h"
#include "lowp/tensor/tensor.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::ScaleLayout;
using formats::Scaling;

bool is_cast(const BlockFormat& f) {
  return f.has_scale() && f.rule != formats::Rule::codebook &&
         (formats::info(f.element).is_float() || formats::info(f.element).bits % 4 == 0);
}

}  // namespace

std::vector<Case> cuda_cast_cases(const Selection& selection) {
  const std::int64_t m = selection.m.value_or(kCastRows), k = selection.k.value_or(kCastColumns);
  const Elem type = element_of(selection.dtype);
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? formats_to_cast(is_cast) : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
      fail(ErrorCode::usage, "{}: {}", name, wrong);
    const Shape3 shape{1, m, k};
    const bool columns = format.group_rows == 1 && format.group_cols > 0 && formats::info(format.scale).bits == 8;
    for (const Scaling scaling : measured_modes(format)) {
      const auto add = [&](const char* op, bool along_k, bool along_m, ScaleLayout layout) {
        const std::uint64_t one = code_bytes(format, shape);
        const std::uint64_t bytes = byte_count(selection.dtype, {m, k}) +
                                    (along_k ? one + scale_bytes(format, 1, m, k) : 0) +
                                    (along_m ? one + scale_bytes(format, 1, k, m) : 0);
        cases.push_back({spelled(op, selection.dtype, format, scaling), format.name, m, 0, k, bytes, 0, "copy", [=] {
                           const auto job = cast_job(format, type, scaling, shape, along_k, along_m, layout);
                           return [job] { cuda::cast(job->task, cuda_stream().handle()); };
                         }});
      };
      add("cast", true, false, ScaleLayout::rows);
      if (format.tensor_scale) {
        // With the pass that finds the largest magnitude, in two launches and in one; the second read is not counted.
        const std::uint64_t bytes =
            byte_count(selection.dtype, {m, k}) + code_bytes(format, shape) + scale_bytes(format, 1, m, k);
        const auto add_found = [&](const char* op, void (*run)(const CudaCastJob&)) {
          cases.push_back({spelled(op, selection.dtype, format, scaling), format.name, m, 0, k, bytes, 0, "copy", [=] {
                             const auto job = cast_job(format, type, scaling, shape, true, false, ScaleLayout::rows);
                             return [job, run] { run(*job); };
                           }});
        };
        add_found("amax+cast", [](const CudaCastJob& job) {
          cuda::amax(job.task.x, job.task.input, 1, job.task.m * job.task.k, job.amax.as<cuda::MatrixAmax>(),
                     cuda_stream().handle());
          cuda::cast(job.task, cuda_stream().handle());
        });
        if (format.group_rows == 1)
          add_found("amax_and_cast", [](const CudaCastJob& job) {
            const bool done = cuda::amax_and_cast(job.task, job.amax.as<cuda::MatrixAmax>(), cuda_stream().handle());
            LOWP_CHECK(done, "no kernel for the magnitude and the cast at once");
          });
      }
      if (formats::rounds_stochastically(format) && format.group_rows == 1)
        cases.push_back({spelled("cast_stochastic", selection.dtype, format, scaling), format.name, m, 0, k,
                         byte_count(selection.dtype, {m, k}) + code_bytes(format, shape) + scale_bytes(format, 1, m, k),
                         0, "copy", [=] {
                           const auto job = cast_job(format, type, scaling, shape, true, false, ScaleLayout::rows);
                           job->task.stochastic = formats::Stochastic{1, 0};
                           return [job] { cuda::cast(job->task, cuda_stream().handle()); };
                         }});
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
    for (const Scaling scaling : measured_modes(format)) {
      const auto add = [&](const char* op, std::function<std::function<void()>()> prepared) {
        cases.push_back({spelled(op, selection.dtype, format, scaling), format.name, experts, n, k, bytes, 0, "copy",
                         std::move(prepared)});
      };
      add("experts", [=] {
        const auto job = cast_job(format, type, scaling, shape, false, true, ScaleLayout::rows);
        return [job] { cuda::cast(job->task, cuda_stream().handle()); };
      });
      add("experts_2d", [=] {
        const auto job = cast_job(format, type, scaling, {1, experts * n, k}, false, true, ScaleLayout::rows);
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
