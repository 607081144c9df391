// Reading device memory and nothing else: the limit of kernels that read much and write little.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// Reads `bytes`, a multiple of 16. *out is where the compiler believes that a result goes.
void read_all(const void* from, std::size_t bytes, std::uint32_t* out, StreamHandle stream);

}  // namespace lowp::kernels::cuda
