// The blocks of ggml's types, taken apart into matrices and put together again (checkpoint-formats 8.3 to 8.5).
#pragma once

#include <string>

#include "lowp/checkpoint/gguf.h"
#include "lowp/formats/recipe.h"
#include "lowp/tensor/quantized.h"

namespace lowp::checkpoint {

/// The block format with the values of a ggml type, and the dtype in which its parameters are exact; nullptr if the
/// type is plain.
struct BlockType {
  std::string_view ggml;    // "Q4_0"
  std::string_view format;  // "int4_g32"
  formats::Elem input = formats::Elem::f16;
  bool writable = false;
};
const BlockType* find_block_type(std::string_view ggml);

/// The ggml type with the values of a weight format, writable if there is one, or nullptr.
const BlockType* block_type_of(const formats::BlockFormat& format);

/// The matrix [m, k] whose rows are the blocks in `rows`, U8 [m, bytes of a row]. The values are what ggml's dequantize
/// gives, bit for bit but for the sign of zero. `where` names the tensor in Error(bad_input), for codes that no
/// quantizer writes.
QuantizedMatrix unpack_blocks(const BlockType& type, const TensorView& rows, std::int64_t k, const std::string& where);

/// The inverse for writable types: U8 [m, bytes of a row]. Throws Error(unsupported), naming `where`, if a scale is not
/// exact in f16 or not on the grid of its super-block.
Tensor pack_blocks(const BlockType& type, const QuantizedMatrix& matrix, const std::string& where);

}  // namespace lowp::checkpoint
