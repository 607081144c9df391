#include "bench/cuda_front_cases.h"

#include <vector>

#include "bench/cuda_cast_job.h"
#include "bench/cuda_device.h"
#include "lowp/base/error.h"
#include "lowp/kernels/cuda/rope.h"
#include "lowp/tensor/tensor.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using cuda::Front;
using formats::BlockFormat;
using formats::Elem;
using formats::ScaleLayout;
using formats::Scaling;

bool has_front(const BlockFormat& f) {
  return f.use != formats::Use::weight && f.group_rows == 1 && f.rule != formats::Rule::nvfp4_training &&
         (f.rule != formats::Rule::mx || f.element == Elem::e4m3 || f.element == Elem::e2m1) &&
         (f.rule != formats::Rule::symmetric || f.group_cols == 0) && f.rule != formats::Rule::asymmetric;
}

Case rope_case(const Selection& selection, bool hadamard) {
  const std::int64_t tokens = selection.m.value_or(32768), heads = selection.n.value_or(32),
                     dim = selection.k.value_or(128), count = tokens * heads * dim;
  const Elem type = element_of(selection.dtype);
  const std::uint64_t bytes =
      byte_count(selection.dtype, {count}) + static_cast<std::uint64_t>(count + tokens * dim * 4);  // and the angles
  return {fmt::format("rope{}+cast:{}", hadamard ? "+hadamard" : "", formats::name(type)),
          "fp8",
          tokens,
          heads,
          dim,
          bytes,
          0,
          "copy",
          [=] {
            struct Heads {
              cuda::HeadsTask task;
              cuda::Memory x, angles, codes, scales;
            };
            const auto job = std::make_shared<Heads>();
            job->x = normal_input(type, count);
            job->angles = normal_input(Elem::f32, tokens * dim);
            job->codes = cuda::Memory(static_cast<std::size_t>(count));
            job->scales = cuda::Memory(static_cast<std::size_t>(heads) * 8);
            cuda::HeadsTask& task = job->task;
            task.x = job->x.as<>();
            task.input = type;
            task.seq = tokens;
            task.heads = heads;
            task.dim = dim;
            task.cos = job->angles.as<float>();
            task.sin = job->angles.as<float>() + tokens * dim / 2;
            task.hadamard = hadamard;
            task.codes = job->codes.as<>();
            task.descale = job->scales.as<float>();
            task.amax = job->scales.as<std::uint32_t>() + heads;
            return [job] { cuda::rope_cast(job->task, cuda_stream().handle()); };
          }};
}

}  // namespace

std::vector<Case> cuda_front_cases(const Selection& selection) {
  const std::int64_t m = selection.m.value_or(kCastRows), k = selection.k.value_or(kCastColumns);
  const Elem type = element_of(selection.dtype);
  const std::uint64_t in = byte_count(selection.dtype, {m, k});
  const Shape3 shape{1, m, k};
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? formats_to_cast(has_front) : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    if (!has_front(format)) fail(ErrorCode::usage, "{}: no kernel has a front end for it", name);
    const std::uint64_t out = code_bytes(format, shape) + scale_bytes(format, 1, m, k);
    const auto add = [&](const char* op, Front kind, std::uint64_t other) {
      cases.push_back({spelled(op, selection.dtype, format, Scaling::rceil), format.name, m, 0, k, in + other + out, 0,
                       "copy", [=] {
                         const auto job = cast_job(format, type, Scaling::rceil, shape, true, false, ScaleLayout::rows);
                         if (other) job->other = normal_input(type, kind == Front::rms_norm ? k : m * k);
                         job->task.front = {kind, true, 1e-5f, job->other.as<>()};
                         return [job] { cuda::cast(job->task, cuda_stream().handle()); };
                       }});
    };
    add("rms_norm+cast", Front::rms_norm, byte_count(selection.dtype, {k}));
    add("silu+cast", Front::silu_mul, in);
    add("relu+cast", Front::relu, 0);
  }
  if (selection.recipes.empty()) {
    cases.push_back(rope_case(selection, false));
    cases.push_back(rope_case(selection, true));
  }
  return cases;
}

std::vector<Case> cuda_dequantize_cases(const Selection& selection) {
  const std::int64_t m = selection.m.value_or(kCastRows), k = selection.k.value_or(kCastColumns);
  const Elem type = element_of(selection.dtype);
  const Shape3 shape{1, m, k};
  std::vector<Case> cases;
  const auto has_scale = [](const BlockFormat& f) {
    return f.has_scale() && (formats::info(f.element).is_float() || formats::info(f.element).bits % 4 == 0);
  };
  for (const std::string& name : selection.recipes.empty() ? formats_to_cast(has_scale) : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
      fail(ErrorCode::usage, "{}: {}", name, wrong);
    const std::uint64_t zero_points = format.zero_point == formats::ZeroPoint::none ? 0
                                      : format.zero_point == formats::ZeroPoint::integer
                                          ? scale_bytes(format, 1, m, k) / 4
                                          : scale_bytes(format, 1, m, k);
    const std::uint64_t bytes =
        byte_count(selection.dtype, {m, k}) + code_bytes(format, shape) + scale_bytes(format, 1, m, k) + zero_points;
    cases.push_back({fmt::format("dequantize:{}", formats::name(type)), format.name, m, 0, k, bytes, 0, "copy", [=] {
                       struct Back {
                         std::shared_ptr<CudaCastJob> cast;
                         cuda::Memory codebook;
                         cuda::DequantizeTask task;
                       };
                       const auto job = std::make_shared<Back>();
                       job->cast = cast_job(format, type, Scaling::rceil, shape, true, false, ScaleLayout::rows);
                       cuda::CastTask& cast = job->cast->task;
                       if (format.rule == formats::Rule::codebook) {
                         job->codebook = normal_input(Elem::f32, 16);
                         cast.codebook = job->codebook.as<float>();
                       }
                       cuda::cast(cast, cuda_stream().handle());
                       job->task.format = format;
                       job->task.m = m;
                       job->task.k = k;
                       job->task.codes = cast.along_k.codes;
                       job->task.scale = cast.along_k.scale;
                       job->task.zero_point = cast.along_k.zero_point;
                       if (cast.amax) job->task.tensor_scale = &cast.amax->tensor_scale;
                       job->task.codebook = cast.codebook;
                       job->task.output = type;
                       job->task.out = job->cast->x.as<>();  // its input is not needed again
                       return [job] { cuda::dequantize(job->task, cuda_stream().handle()); };
                     }});
  }
  return cases;
}

std::vector<Case> cuda_small_cases(const Selection& selection) {
  const std::int64_t k = selection.k.value_or(4096);
  const Elem type = element_of(selection.dtype);
  const auto width = static_cast<std::int64_t>(byte_count(selection.dtype, {1}));
  const auto common = [](const BlockFormat& f) { return has_front(f) && f.group_cols != 128 && !f.tensor_scale; };
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? formats_to_cast(common) : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    std::vector<std::int64_t> rows;
    for (const std::int64_t megabytes : {1, 2, 4}) rows.push_back((megabytes << 20) / width / k);
    for (const std::int64_t m : selection.m ? std::vector{*selection.m} : rows) {
      const Shape3 shape{1, m, k};
      const std::uint64_t bytes =
          byte_count(selection.dtype, {m, k}) + code_bytes(format, shape) + scale_bytes(format, 1, m, k);
      const bool columns = format.group_cols > 0;
      for (const bool along_m : {false, true}) {
        if (along_m && !columns) continue;
        cases.push_back({spelled(along_m ? "graph_cast_n" : "graph_cast", selection.dtype, format, Scaling::rceil),
                         format.name, m, 0, k, bytes * kGraphCalls, 0, "graph_copy", [=] {
                           struct Many {
                             std::vector<std::shared_ptr<CudaCastJob>> jobs;
                             cuda::Graph graph;
                           };
                           const auto many = std::make_shared<Many>();
                           for (int i = 0; i < kGraphCalls; ++i)
                             many->jobs.push_back(
                                 cast_job(format, type, Scaling::rceil, shape, !along_m, along_m, ScaleLayout::rows));
                           many->graph.record(cuda_stream(), [&] {
                             for (const auto& job : many->jobs) cuda::cast(job->task, cuda_stream().handle());
                           });
                           return [many] { many->graph.launch(cuda_stream()); };
                         }});
      }
    }
  }
  return cases;
}

}  // namespace lowp::bench
