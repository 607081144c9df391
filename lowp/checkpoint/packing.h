// Codes in 32-bit words and bytes, as several dialects store them.
#pragma once

#include "lowp/tensor/tensor.h"

namespace lowp::checkpoint {

/// [rows, columns] -> [columns, rows] of 1, 2 or 4 bytes each, from memory of any alignment: a file may put a tensor
/// anywhere.
Tensor transpose(const TensorView& in);

/// 32-bit words of `count` codes in a dense stream, and in the layout of before June 2026, where codes of 3, 5, 6 and 7
/// bits do not cross words.
std::int64_t dense_words(std::int64_t count, int bits);
std::int64_t aligned_words(std::int64_t count, int bits);

/// Signed integers i8 [rows, columns] as I32 [rows, dense_words]: offset binary, a stream for each row.
Tensor pack_words(const Tensor& codes, int bits);
/// The inverse, for either layout: the number of words tells which.
Tensor unpack_words(const TensorView& packed, int bits, std::int64_t columns);

/// Codes u8 [rows, columns] as U8 [rows, columns * bits / 8] and back.
Tensor pack_bytes(const Tensor& codes, int bits);
Tensor unpack_bytes(const TensorView& packed, int bits, std::int64_t columns);

/// Zero points of compressed-tensors, i8 [rows, groups], as I32 [words, groups]: packed along the rows of the weight,
/// so that a word has those of one group for 32 / bits rows.
Tensor pack_zero_points(const Tensor& zero_points, int bits);
Tensor unpack_zero_points(const TensorView& packed, int bits, std::int64_t rows);

}  // namespace lowp::checkpoint
