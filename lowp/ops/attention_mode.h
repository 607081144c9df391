// What attention computes in: the command line's words, on every device.
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace lowp::ops {

/// bf16: in the dtype of the computation. fp8: queries, keys, values and the softmax's weights are rounded to e4m3,
/// over a scale for each token's head; keys and values are stored so. With a Hadamard transform
/// (kernels/head_hadamard.h) values, or queries, keys and values, are rotated before they are rounded, and what comes
/// out of values is rotated back: outliers are spread over the head.
enum class AttentionMode { bf16, fp8, fp8_hadamard_v, fp8_hadamard_qkv };

inline constexpr std::array<std::string_view, 4> kAttentionModes = {"bf16", "fp8", "fp8_hadamard_v",
                                                                    "fp8_hadamard_qkv"};

constexpr std::string_view name(AttentionMode mode) { return kAttentionModes[static_cast<std::size_t>(mode)]; }
constexpr std::optional<AttentionMode> find_attention_mode(std::string_view word) {
  for (std::size_t i = 0; i < kAttentionModes.size(); ++i)
    if (kAttentionModes[i] == word) return static_cast<AttentionMode>(i);
  return std::nullopt;
}

constexpr bool is_fp8(AttentionMode mode) { return mode != AttentionMode::bf16; }
constexpr bool rotates_values(AttentionMode mode) { return mode >= AttentionMode::fp8_hadamard_v; }
/// And queries.
constexpr bool rotates_keys(AttentionMode mode) { return mode == AttentionMode::fp8_hadamard_qkv; }

}  // namespace lowp::ops
