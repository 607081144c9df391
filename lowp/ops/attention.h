// Causal attention of many sequences over paged keys and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lowp/formats/element.h"
#include "lowp/kernels/cpu/attention.h"

namespace lowp::ops {

/// How one layer's keys and values of kPageTokens tokens lie in memory: for each KV head its keys, values and, with
/// int8 and e4m3, their scales, in the layout of the attention kernel (kernels/cpu/attention.h). int8, e4m3: codes of x
/// / scale, where scale = amax / 127 (448) of one token's head in f32, zero where that is zero.
class KvLayout {
 public:
  /// `compute` (f32, bf16) is the dtype that queries, keys and values have been rounded to, `type` (f32, bf16, int8,
  /// e4m3) what they are stored as. With bf16 the kernel may multiply bf16 operands; with f32 compute it never does.
  KvLayout(formats::Elem compute, formats::Elem type, std::int64_t kv_heads, std::int64_t head_dim,
           kernels::cpu::Isa isa = kernels::cpu::isa());

  formats::Elem type() const { return type_; }
  std::int64_t kv_heads() const { return kv_heads_; }
  std::int64_t head_dim() const { return head_dim_; }
  const kernels::cpu::AttentionKernel& kernel() const { return *kernel_; }
  /// Whether values are codes over a scale.
  bool scaled() const { return type_ == formats::Elem::int8 || type_ == formats::Elem::e4m3; }
  /// Bytes of one layer's page; a multiple of 64.
  std::size_t page_bytes() const { return static_cast<std::size_t>(kv_heads_) * head_bytes(); }

  /// Stores key and value [head_dim] of a head in a page that was zero, at slot 0 to kPageTokens - 1.
  void store(std::byte* page, std::int64_t kv_head, std::int64_t slot, const float* key, const float* value) const;

  /// Where a head's parts begin in a page, in bytes.
  std::size_t keys_at(std::int64_t kv_head) const { return static_cast<std::size_t>(kv_head) * head_bytes(); }
  std::size_t values_at(std::int64_t kv_head) const { return keys_at(kv_head) + element_bytes_; }
  std::size_t key_scales_at(std::int64_t kv_head) const { return values_at(kv_head) + element_bytes_; }
  std::size_t value_scales_at(std::int64_t kv_head) const { return key_scales_at(kv_head) + scale_bytes_; }
  /// head_dim padded to a multiple of 32, and the elements of a head's keys in a page.
  std::int64_t padded_dim() const { return padded_dim_; }
  std::int64_t page_elements() const { return kernels::cpu::kPageTokens * padded_dim_; }
  /// Whether the stored values are the kernel's operands as they are.
  bool direct() const { return type_ == (kernel_->bf16 ? formats::Elem::bf16 : formats::Elem::f32); }
  std::size_t operand_bytes() const { return kernel_->bf16 ? 2 : 4; }

 private:
  std::size_t head_bytes() const { return 2 * (element_bytes_ + scale_bytes_); }

  const kernels::cpu::AttentionKernel* kernel_;
  formats::Elem type_;
  std::int64_t kv_heads_, head_dim_, padded_dim_;
  std::size_t element_bytes_, scale_bytes_;  // of one head's keys (or values) and their scales
};

/// The new tokens of one sequence: row r stands at position past + r and sees positions 0 .. past + r, or the last of
/// them, whose keys and values are in `pages` (of one layer) already.
struct AttendSequence {
  const float* queries;  // [rows, heads, head_dim]
  float* out;            // [rows, heads, head_dim]
  std::int64_t rows, past;
  std::span<const std::byte* const> pages;
};

struct AttendOptions {
  std::int64_t heads;                 // query heads, a multiple of the KV heads
  float scale;                        // of the scores
  std::int64_t window = 0;            // last positions that a token sees, itself included; 0: all
  std::span<const float> sinks = {};  // [heads] logits that take part in the softmax and have no value; empty: none
  formats::Elem compute = formats::Elem::bf16;
  // Queries (over a scale for each row of a head) and weights are rounded to e4m3, as kernels/ref/attention.h has them;
  // over keys and values of e4m3.
  bool e4m3 = false;
  bool hadamard = false;  // results are rotated by a Hadamard transform (kernels/head_hadamard.h), as values were
};

/// Memory that attend() reuses from call to call.
struct AttendScratch {
  std::vector<float> states;
};

/// out = softmax(scale q k^T) v, rounded to `compute`; the softmax may have a sink, whose weight is dropped. Query head
/// h reads KV head h / (heads / kv_heads). A row's result depends on its own query and the keys and values that it
/// sees, not on the batch nor on how the sequence was cut: segments of kSegmentTokens are computed by themselves and
/// merged in order.
void attend(const KvLayout& layout, const AttendOptions& options, std::span<const AttendSequence> sequences,
            AttendScratch& scratch);

}  // namespace lowp::ops
