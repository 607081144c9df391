// How keys and values lie in the pages of the GPU's cache. For host and device.
//
// A page holds kPageTokens tokens of one layer. It is what the kernels want in shared memory, so that a page comes in
// by plain bulk copies: for each KV head its keys, its values and, for 8-bit types, the f32 scales of its keys and of
// its values. Keys and values alike are planes [kPageTokens][row_bytes()] of up to 128 bytes of the head each, whose
// 16-byte chunks are permuted within eight rows as the tensor cores' operands in shared memory are (the 128-byte
// swizzle, for rows of 64 bytes the 64-byte one).
//
// 8-bit types hold codes of x / scale, one scale for a token's key (or value) of a head: amax / 127 for int8, amax /
// 448 for e4m3; zero where amax is zero, NaN where a value is not finite.
#pragma once

#include <cstdint>

#include "lowp/base/bits.h"
#include "lowp/formats/element.h"

namespace lowp::kernels::cuda {

inline constexpr int kPageTokens = 64;

struct KvPageLayout {
  formats::Elem type = formats::Elem::bf16;  // bf16, e4m3 or int8
  int kv_heads = 1;
  int head_dim = 128;  // 64, 128 or 256

  LOWP_HD constexpr bool scaled() const { return type != formats::Elem::bf16; }
  LOWP_HD constexpr int value_bytes() const { return scaled() ? 1 : 2; }
  LOWP_HD constexpr int row_bytes() const { return head_dim * value_bytes() < 128 ? head_dim * value_bytes() : 128; }
  LOWP_HD constexpr int planes() const { return head_dim * value_bytes() / row_bytes(); }
  LOWP_HD constexpr int plane_bytes() const { return kPageTokens * row_bytes(); }

  /// Bytes of the keys of one head in a page; as many of the values.
  LOWP_HD constexpr std::int64_t keys_bytes() const { return std::int64_t{planes()} * plane_bytes(); }
  LOWP_HD constexpr std::int64_t scales_bytes() const { return scaled() ? kPageTokens * 4 : 0; }
  LOWP_HD constexpr std::int64_t head_bytes() const { return 2 * (keys_bytes() + scales_bytes()); }
  /// Bytes of a page of one layer.
  LOWP_HD constexpr std::int64_t bytes() const { return kv_heads * head_bytes(); }

  /// Where the parts of a head begin in a page, in bytes.
  LOWP_HD constexpr std::int64_t keys_at(int kv_head) const { return kv_head * head_bytes(); }
  LOWP_HD constexpr std::int64_t values_at(int kv_head) const { return keys_at(kv_head) + keys_bytes(); }
  LOWP_HD constexpr std::int64_t key_scales_at(int kv_head) const { return keys_at(kv_head) + 2 * keys_bytes(); }
  LOWP_HD constexpr std::int64_t value_scales_at(int kv_head) const { return key_scales_at(kv_head) + scales_bytes(); }

  /// Where value i of a token's key lies among the keys of its head (of a value among the values), in bytes. The 16
  /// bytes that begin at a multiple of 16 / value_bytes() lie together.
  LOWP_HD constexpr int offset(int token, int i) const {
    const int byte = i * value_bytes(), row = row_bytes(), chunk = byte % row / 16;
    return byte / row * plane_bytes() + token * row + ((chunk ^ (token * row / 128 & (row / 16 - 1))) << 4) + byte % 16;
  }
};

/// Aborts unless kernels exist for such pages.
void check_layout(const KvPageLayout& layout);

/// One layer of a cache: where the pages of each sequence are.
struct KvPages {
  KvPageLayout layout;
  /// Device memory [sequences][max_pages]: page p of sequence s holds its positions from p * kPageTokens on. Only the
  /// pages of positions that are stored or seen are read.
  void* const* pages = nullptr;
  std::int64_t max_pages = 0;
  std::int64_t layer_offset = 0;  // of this layer in every page, in bytes: a multiple of 128, as the pages' addresses
};

}  // namespace lowp::kernels::cuda
