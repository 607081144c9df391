// How near to a recipe's operands those of a GPU's product of many rows are.
#pragma once

#include <cstdint>

namespace lowp::ops {

/// With e4m3 operands the tensor cores are twice as fast as with bf16, which holds the recipe's operands exactly.
enum class Operands : std::uint8_t {
  exact,    // e4m3 only where it holds them exactly
  rebased,  // MX formats as e4m3 with one power of two a row, unless that loses more of a weight than sums do
  rounded,  // and nvfp4, of whose five significant bits e4m3 keeps four
};

}  // namespace lowp::ops
