// Casts of rows to formats whose groups have scales of their own, as e4m3 with one scale a row.
#pragma once

#include "lowp/kernels/cuda/layers.h"

namespace lowp::kernels::cuda {

/// Longest row, in values; with a norm or a gate kMostRow.
inline constexpr std::int64_t kMostRebasedRow = 2 * kMostRow;

/// As cast_rows(), for formats that gemm_rebase.h's rebases(), and nvfp4, whose tensor scale, if it has one, is the
/// row's own: what cast() gives with Scaling::rceil, times the group's scale, divided by the row's and rounded to e4m3.
/// task.values is not for these.
///
/// Of an MX format a value is off by at most 2^-10 times the row's scale, which is 2^-17.8 of the row's largest for
/// e4m3 and at most 2^-16.9 for the others; values of groups that are not more octaves below the row's largest than
/// e4m3 has to spare (14 for e2m1, 11 for e2m3, 9 for e3m2), and e4m3's own above 2^-14 of the row's largest, are
/// exact. nvfp4's are off by up to 2^-4 of themselves.
void rebase_rows(const CastRowsTask& task, StreamHandle stream);

}  // namespace lowp::kernels::cuda
