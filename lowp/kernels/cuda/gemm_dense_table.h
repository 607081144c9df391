// The kernels of gemm_dense.h that were compiled, as a table to choose from.
#pragma once

#include <span>

#include "lowp/kernels/cuda/gemm_dense.h"

namespace lowp::kernels::cuda {

struct DenseVariant {
  const char* name;
  int cluster_rows, cluster_columns;                    // what one cluster works on
  int clusters;                                         // at once, on 132 multiprocessors
  int rate;                                             // per cent of the fastest, all multiprocessors being busy
  void (*launch)(const GroupedProduct&, StreamHandle);  // a dense product has one expert and no blocks
};

std::span<const DenseVariant> dense_fast();
std::span<const DenseVariant> dense_promoted();
std::span<const DenseVariant> dense_scaled();
std::span<const DenseVariant> dense_integer();

/// Of grouped products, whose tiles have 128 rows.
const DenseVariant& grouped_fast();
const DenseVariant& grouped_promoted();
const DenseVariant& grouped_scaled();
const DenseVariant& grouped_integer();

}  // namespace lowp::kernels::cuda
