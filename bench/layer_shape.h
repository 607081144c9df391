// Llama-3.1-8B's layer, on which attention and what stands between products are measured.
#pragma once

#include <cstdint>

namespace lowp::bench {

inline constexpr int kHeads = 32, kKvHeads = 8, kDim = 128;
inline constexpr std::int64_t kWidth = kHeads * kDim, kGate = 14336, kVocab = 128256;

}  // namespace lowp::bench
