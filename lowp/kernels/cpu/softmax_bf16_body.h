// What the kernels with bf16 operands share beside softmax_body.h.
#pragma once

#include "lowp/kernels/cpu/softmax_body.h"

namespace lowp::kernels::cpu::LOWP_ISA {

// Integers up to 256 are bf16 values.
inline void from_int8(const std::int8_t* in, std::int64_t count, void* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(in[i]);
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    static_cast<std::uint16_t*>(out)[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
