// Block formats: element + group + scale (+ zero point, + tensor scale) + the rule that picks the scale.
// A format is a row of the table in block.cpp.   <- ADD A BLOCK FORMAT THERE
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/formats/element.h"

namespace lowp::formats {

/// How the group parameters follow from the group's values; the formulas are in quantize.h.
enum class Rule : std::uint8_t {
  plain,           // no scale: each value is rounded to the element (torchao-spec 1.2, 1.3)
  mx,              // power-of-two scale from the largest magnitude (2.2, 2.3)
  nvfp4,           // e4m3 scale amax/6, optionally relative to a tensor scale amax/2688 (3.1)
  nvfp4_training,  // the same two levels by torchao's training kernels: reciprocals where nvfp4 divides (7.7)
  float8,          // f32 scale amax/max of the element (5.0, float8 primitives)
  symmetric,       // integer, scale amax/((qmax-qmin)/2) (5.0)
  asymmetric,      // integer, scale (max-min)/(qmax-qmin) and an integer zero point (5.0)
  tinygemm,        // unsigned integer, scale (max-min)/15 and a float zero point (5.0, 5.5)
  bias,            // unsigned integer, scale (max-min)/qmax and the smallest value, which is added (MLX's affine mode)
  shift,     // unsigned integer, scale (max-min)/qmax and a float zero point in steps, -min/scale (HQQ's own form)
  sym8,      // integer, scale max(amax, 1e-6)/8 in f32 (5.5, fp8-activation flavour)
  absmax,    // integer, scale amax/qmax in f32, kept rounded to f16; codes half away from zero (ggml's Q8_0)
  codebook,  // table fitted to the tensor, scale = largest value of the group (5.9)
};

enum class ZeroPoint : std::uint8_t { none, integer, floating };

/// Scale rounding modes of MX (2.2).
enum class Scaling : std::uint8_t { floor, ceil, even, rceil };
std::string_view name(Scaling scaling);
std::optional<Scaling> find_scaling(std::string_view name);
std::vector<std::string> scaling_names();

/// What the bits mean: scalars only, so that it can be handed to a kernel.
struct BlockSpec {
  Elem element = Elem::f32;
  Rule rule = Rule::plain;
  int group_rows = 1;  // rows that share a scale; 0 = all
  int group_cols = 1;  // columns that share a scale; 0 = all
  Elem scale = Elem::f32;
  bool scale_in_input_dtype = false;  // computed and rounded in the input's dtype, as torchao's intx
  ZeroPoint zero_point = ZeroPoint::none;
  bool tensor_scale = false;  // a second, f32, scale for the whole matrix
  // Super-blocks: the scales of the groups in so many columns are small integers times one f16, and so are the negated
  // float zero points, with an f16 of their own. 0: scales are independent.
  int super_cols = 0;
  Elem super_multiple = Elem::f32;  // those integers
};

/// Where a format makes sense.
enum class Use : std::uint8_t { weight, activation, both };

/// A resolved format: a row with its parameters filled in.
struct BlockFormat : BlockSpec {
  std::string name;
  Use use = Use::both;
  bool calibrated = false;  // activation scale fixed beforehand from calibration data
  bool hqq = false;         // zero point refined by HQQ instead of taken from min and max

  /// Shape of the scale tensor of an [m, k] matrix.
  std::int64_t scale_rows(std::int64_t m) const {
    return group_rows == 0 ? (m > 0) : ceil_div<std::int64_t>(m, group_rows);
  }
  std::int64_t scale_cols(std::int64_t k) const {
    return group_cols == 0 ? (k > 0) : ceil_div<std::int64_t>(k, group_cols);
  }
  bool has_scale() const { return rule != Rule::plain; }
  /// Stored as bytes of two codes (low nibble first) rather than one byte a code.
  bool two_codes_a_byte() const { return info(element).is_float() && info(element).bits == 4; }
};

/// A row of the table: a name or a family of names such as int<B>_g<G>.
struct BlockRow {
  std::string_view pattern;  // "<B>" stands for 1..8 bits, "<G>" for a group size
  std::string_view alias;    // another spelling, or ""
  BlockSpec spec;            // <B> overrides element, <G> overrides group_cols
  Use use;
  bool calibrated;
  bool hqq;
  std::string_view torchao;  // the torchao function or class with the same numerics
  std::string_view meaning;
};

/// What the placeholders of a pattern stand for; 0 where the pattern has none.
struct PatternMatch {
  int bits = 0;
  int group = 0;
};
/// Matches a name against a pattern such as "int<B>_g<G>"; placeholders take decimal numbers without leading zeros.
std::optional<PatternMatch> match_pattern(std::string_view pattern, std::string_view text);

/// A pattern with its usual parameters filled in: 1 to 8 bits, groups of 32, 64, 128 and 256.
std::vector<std::string> expand_pattern(std::string_view pattern);

/// All rows, in the order of the documentation.
std::span<const BlockRow> block_rows();

/// Resolves a name ("mxfp8", "int4_g128_asym", "mxfp6_e2m3", an element such as "bf16"); nullopt if there is none.
std::optional<BlockFormat> find_block_format(std::string_view name);

/// As find_block_format; throws Error(usage) naming the nearest format.
BlockFormat block_format(std::string_view name);

/// Names to print and to suggest: fixed rows as they are, families with their usual parameters.
std::vector<std::string> block_format_names();

/// Largest group size that a name may ask for.
inline constexpr int kMaxGroup = 65536;

/// "" if an [m, k] matrix fits the format, else what is wrong ("K = 100 is not divisible by the group size 32").
/// Rows beyond the last full block are allowed in formats with several rows a block.
std::string misfit(const BlockFormat& format, std::int64_t m, std::int64_t k);

/// Bits of codes, scales and zero points for each weight of an [m, k] matrix, sub-byte codes packed densely and scales
/// in `input` where the format keeps them in the input's dtype.
double bits_per_weight(const BlockFormat& format, std::int64_t m, std::int64_t k, Elem input);

}  // namespace lowp::formats
