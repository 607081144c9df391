// What the benchmarks of CUDA casts have in common: a cast with its memory, and how many bytes it moves.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "lowp/formats/block.h"
#include "lowp/kernels/cuda/cast.h"

namespace lowp::bench {

struct Shape3 {
  std::int64_t experts, m, k;
  std::int64_t count() const { return experts * m * k; }
};

/// Inputs, outputs and the task of one case.
struct CudaCastJob {
  kernels::cuda::CastTask task;
  kernels::cuda::Memory x, other, amax, codes[2], scale[2], zero_point;
};

/// Names of the formats of weights or activations that are wanted, in groups of up to 128: none that is calibrated, or
/// has an algorithm or super-blocks.
std::vector<std::string> formats_to_cast(bool (*wanted)(const formats::BlockFormat&));

/// Normal values on the device, 2^22 of them again and again.
kernels::cuda::Memory normal_input(formats::Elem type, std::int64_t count);

/// Bytes of the codes and scales of one orientation; [rows, columns] as groups see each matrix.
std::uint64_t code_bytes(const formats::BlockFormat& format, const Shape3& shape);
std::uint64_t scale_bytes(const formats::BlockFormat& format, std::int64_t experts, std::int64_t rows,
                          std::int64_t columns);

/// A cast of normal values, its magnitudes found beforehand where the format needs them.
std::shared_ptr<CudaCastJob> cast_job(const formats::BlockFormat& format, formats::Elem type, formats::Scaling scaling,
                                      const Shape3& shape, bool along_k, bool along_m, formats::ScaleLayout layout);

/// "cast:bf16:floor"; the mode where the format has some.
std::string spelled(const std::string& op, DType type, const formats::BlockFormat& format, formats::Scaling scaling);

/// The scale modes that are measured.
std::span<const formats::Scaling> measured_modes(const formats::BlockFormat& format);

}  // namespace lowp::bench
