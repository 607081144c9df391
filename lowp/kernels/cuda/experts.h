// What stands around the products over experts on the GPU. Rows stand at places (routing.h); every kernel takes part in
// programmatic dependent launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lowp/kernels/cuda/cast_args.h"
#include "lowp/kernels/cuda/routing.h"

namespace lowp::kernels::cuda {

/// to[p] = from[place_row[p]] for all places that are somebody's; the others are left alone.
struct GatherPlaces {
  struct Array {
    const void* from = nullptr;  // null: nothing
    void* to = nullptr;
    std::int64_t bytes = 0;  // of a row
  };
  const std::int32_t* place_row = nullptr;  // [places]
  std::int64_t places = 0;
  Array values = {};     // rows of a multiple of 16 bytes
  Array scales[2] = {};  // rows of any size, best small
};
void gather_places(const GatherPlaces& task, StreamHandle stream);

/// Gives all places of an expert the largest magnitude of them, and what follows from it.
void share_amax(const RoutedRows& rows, MatrixAmax* amax, StreamHandle stream);

/// out[r] = the sum of weights[r][i] * outputs[visits[r][i]] over the row's visits, from 0, in their order; products
/// and sums are rounded to bf16.
struct CombineTask {
  const void* outputs = nullptr;              // bf16 [any, width]
  const std::int32_t* visits = nullptr;       // [rows, top]; -1: nothing
  const float* weights = nullptr;             // [rows, top]
  void* out = nullptr;                        // bf16 [rows, width]
  std::int64_t rows = 0, top = 0, width = 0;  // width: a multiple of 8
};
void combine(const CombineTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
