// Tables of compiled kernels that have a row for each pair of codes and scales.
#pragma once

#include <initializer_list>
#include <span>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/gemm_packed_layout.h"

namespace lowp::kernels::cuda {

/// The row for codes and scales; that there is one is checked.
template <typename Row>
const Row& row_of(std::initializer_list<std::span<const Row>> tables, Codes codes, Scales scales) {
  for (const auto table : tables)
    for (const Row& row : table)
      if (row.codes == codes && row.scales == scales) return row;
  LOWP_CHECK(false, "no kernel for codes {} with scales {}", static_cast<int>(codes), static_cast<int>(scales));
}

}  // namespace lowp::kernels::cuda
