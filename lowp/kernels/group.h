// One group of a cast by the definition of formats/quantize.h: what the oracle loops over, and what a fast kernel does
// with a group whose numbers its shortcuts do not cover.
#pragma once

#include "lowp/kernels/kernel.h"

namespace lowp::kernels {

/// Parameters and codes of the elements [row, row + rows) x [col, col + cols): a whole group, a whole super-block, or a
/// part of the matrix where the parameters are the matrix's. False if a value is not finite.
bool quantize_group(const QuantizeTask& task, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols);

/// All groups of the rows [row_begin, row_end), one after another. False if a value is not finite.
bool quantize_groups(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end);

/// formats::fit_super_block(), for kernels of an instruction set: they may compile no function that others share.
void fit_super_block(const formats::BlockSpec& format, formats::GroupParams* groups, int count);

/// Puts the parameters of group `at` (row-major) in place.
void store_params(QuantizedMatrix& out, std::int64_t at, const formats::GroupParams& params);

/// Puts the code of element i (row-major) in place. Integers are kept as signed bytes, everything else as it is; codes
/// wider than a byte are plain f16, bf16 and f32. Neighbours may share a byte: one thread a row.
void store_code(QuantizedMatrix& out, std::int64_t i, std::uint32_t code);

/// The code of element i (row-major).
std::uint32_t load_code(const QuantizedMatrix& matrix, std::int64_t i);

}  // namespace lowp::kernels
