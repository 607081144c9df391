#include "lowp/formats/block.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"

namespace lowp::formats {
namespace {

constexpr Elem kE8m0 = Elem::e8m0, kE4m3 = Elem::e4m3, kF32 = Elem::f32;
constexpr auto kNone = ZeroPoint::none, kInteger = ZeroPoint::integer, kFloating = ZeroPoint::floating;
constexpr int kSuper = 256;
constexpr auto kWeight = Use::weight, kActivation = Use::activation, kBoth = Use::both;

// clang-format off
constexpr BlockRow kBlocks[] = {
    // name, alias, {element, rule, rows, cols, scale, input dtype, zero point, tensor scale}, use, calibrated, hqq, torchao, meaning
    {"mxfp8", "mxfp8_e4m3", {Elem::e4m3, Rule::mx, 1, 32, kE8m0, false, kNone, false}, kBoth, false, false,
     "to_mx(float8_e4m3fn, 32)", "e4m3 with a power-of-two scale for 32 values"},
    {"mxfp8_e5m2", "", {Elem::e5m2, Rule::mx, 1, 32, kE8m0, false, kNone, false}, kBoth, false, false,
     "to_mx(float8_e5m2, 32)", "e5m2 with a power-of-two scale for 32 values"},
    {"mxfp6", "mxfp6_e2m3", {Elem::e2m3, Rule::mx, 1, 32, kE8m0, false, kNone, false}, kBoth, false, false,
     "to_mx(fp6_e2m3, 32)", "e2m3 with a power-of-two scale for 32 values"},
    {"mxfp6_e3m2", "", {Elem::e3m2, Rule::mx, 1, 32, kE8m0, false, kNone, false}, kBoth, false, false,
     "to_mx(fp6_e3m2, 32)", "e3m2 with a power-of-two scale for 32 values"},
    {"mxfp4", "", {Elem::e2m1, Rule::mx, 1, 32, kE8m0, false, kNone, false}, kBoth, false, false,
     "to_mx(float4_e2m1fn_x2, 32)", "e2m1 with a power-of-two scale for 32 values"},
    {"nvfp4", "", {Elem::e2m1, Rule::nvfp4, 1, 16, kE4m3, false, kNone, true}, kBoth, false, false,
     "nvfp4_quantize(per_tensor_scale)", "e2m1 with an e4m3 scale for 16 values and an f32 scale for the tensor"},
    {"nvfp4_single", "", {Elem::e2m1, Rule::nvfp4, 1, 16, kE4m3, false, kNone, false}, kBoth, false, false,
     "nvfp4_quantize()", "e2m1 with an e4m3 scale for 16 values only"},
    {"nvfp4_static", "", {Elem::e2m1, Rule::nvfp4, 1, 16, kE4m3, false, kNone, true}, kActivation, true, false,
     "NVFP4 convert step", "nvfp4 whose tensor scale is calibrated"},
    {"nvfp4_training", "", {Elem::e2m1, Rule::nvfp4_training, 1, 16, kE4m3, false, kNone, true}, kActivation, false, false,
     "_nvfp4_quantize (training)", "nvfp4 with the arithmetic of torchao's training kernels"},
    {"nvfp4_training_block16", "", {Elem::e2m1, Rule::nvfp4_training, 16, 16, kE4m3, false, kNone, true}, kActivation, false, false,
     "_nvfp4_2d_quantize (training)", "nvfp4_training with a scale for 16 x 16 values: the same codes for a weight and its transpose"},
    {"fp8", "", {Elem::e4m3, Rule::float8, 1, 0, kF32, false, kNone, false}, kBoth, false, false,
     "Float8Tensor PerRow", "e4m3 with a scale for each row"},
    {"fp8_tensor", "", {Elem::e4m3, Rule::float8, 0, 0, kF32, false, kNone, false}, kBoth, false, false,
     "Float8Tensor PerTensor", "e4m3 with one scale"},
    {"fp8_group128", "", {Elem::e4m3, Rule::float8, 1, 128, kF32, false, kNone, false}, kActivation, false, false,
     "Float8Tensor PerBlock [1,128]", "e4m3 with a scale for 128 values"},
    {"fp8_block128", "", {Elem::e4m3, Rule::float8, 128, 128, kF32, false, kNone, false}, kWeight, false, false,
     "Float8Tensor PerBlock [128,128]", "e4m3 with a scale for 128 x 128 values"},
    {"fp8_static", "", {Elem::e4m3, Rule::float8, 0, 0, kF32, false, kNone, false}, kActivation, true, false,
     "Float8StaticActivation", "fp8_tensor whose scale is calibrated"},
    {"int8", "", {Elem::int8, Rule::symmetric, 1, 0, kF32, false, kNone, false}, kBoth, false, false,
     "Int8Tensor PerRow", "int8 with a scale for each row"},
    {"int8_g32", "", {Elem::int8, Rule::symmetric, 1, 32, kF32, false, kNone, false}, kBoth, false, false,
     "Int8Tensor PerGroup(32)", "int8 with a scale for 32 values"},
    {"int8_tensor", "", {Elem::int8, Rule::symmetric, 0, 0, kF32, false, kNone, false}, kBoth, false, false,
     "Int8Tensor PerTensor", "int8 with one scale"},
    {"int8_asym", "", {Elem::int8, Rule::asymmetric, 1, 0, kF32, false, kInteger, false}, kActivation, false, false,
     "Int8Tensor PerRow ASYMMETRIC", "int8 with a scale and a zero point for each row (token)"},
    {"int8_static", "", {Elem::int8, Rule::symmetric, 0, 0, kF32, false, kNone, false}, kActivation, true, false,
     "Int8StaticActivation", "int8_tensor whose scale is calibrated"},
    {"int4_g128_sym8", "", {Elem::int4, Rule::sym8, 1, 128, kF32, false, kNone, false}, kWeight, false, false,
     "Int4 with fp8 activations", "int4 with scale amax/8 for 128 values, for fp8 activations"},
    {"int4_g<G>_float", "", {Elem::uint4, Rule::tinygemm, 1, 0, kF32, true, kFloating, false}, kWeight, false, false,
     "Int4WeightOnlyConfig (tinygemm)", "uint4 with a scale and a float zero point for G values"},
    {"int4_g<G>_float_hqq", "", {Elem::uint4, Rule::tinygemm, 1, 0, kF32, true, kFloating, false}, kWeight, false, true,
     "Int4WeightOnlyConfig (HQQ)", "int4_g<G>_float with the zero point refined by HQQ"},
    {"int<B>_g<G>_bias", "", {Elem::uint8, Rule::bias, 1, 0, kF32, true, kFloating, false}, kWeight, false, false,
     "", "B-bit unsigned integer with a scale and an added bias for G values (MLX)"},
    {"int<B>_g<G>_shift", "", {Elem::uint8, Rule::shift, 1, 0, kF32, true, kFloating, false}, kWeight, false, false,
     "", "B-bit unsigned integer with a scale and a float zero point, in steps, for G values (HQQ)"},
    {"int<B>_g<G>", "", {Elem::int8, Rule::symmetric, 1, 0, kF32, true, kNone, false}, kWeight, false, false,
     "IntxUnpackedToInt8Tensor PerGroup", "B-bit integer with a scale for G values"},
    {"int<B>_g<G>_asym", "", {Elem::int8, Rule::asymmetric, 1, 0, kF32, true, kInteger, false}, kWeight, false, false,
     "IntxUnpackedToInt8Tensor PerGroup ASYMMETRIC", "B-bit integer with a scale and a zero point for G values"},
    {"int<B>_channel", "", {Elem::int8, Rule::symmetric, 1, 0, kF32, true, kNone, false}, kWeight, false, false,
     "IntxUnpackedToInt8Tensor PerAxis(0)", "B-bit integer with a scale for each output channel"},
    {"int<B>_channel_asym", "", {Elem::int8, Rule::asymmetric, 1, 0, kF32, true, kInteger, false}, kWeight, false, false,
     "IntxUnpackedToInt8Tensor PerAxis(0) ASYMMETRIC", "B-bit integer with a scale and a zero point for each output channel"},
    {"codebook4_g<G>", "", {Elem::uint4, Rule::codebook, 1, 0, kF32, false, kNone, false}, kWeight, false, false,
     "CodebookWeightOnlyConfig(uint4, scale_block_size=G)", "4-bit index into a table fitted to the tensor, a scale for G values"},
    {"q8_0", "", {Elem::int8, Rule::absmax, 1, 32, Elem::f16, false, kNone, false}, kWeight, false, false,
     "", "GGUF Q8_0: int8 with an f16 scale for 32 values"},
    {"q2_k", "", {Elem::uint2, Rule::bias, 1, 16, kF32, false, kFloating, false, kSuper, Elem::uint4}, kWeight, false, false,
     "", "GGUF Q2_K: uint2 with a scale and a minimum for 16 values, in super-blocks of 256"},
    {"q3_k", "", {Elem::int3, Rule::symmetric, 1, 16, kF32, false, kNone, false, kSuper, Elem::int6}, kWeight, false, false,
     "", "GGUF Q3_K: int3 with a scale for 16 values, in super-blocks of 256"},
    {"q4_k", "", {Elem::uint4, Rule::bias, 1, 32, kF32, false, kFloating, false, kSuper, Elem::uint6}, kWeight, false, false,
     "", "GGUF Q4_K: uint4 with a scale and a minimum for 32 values, in super-blocks of 256"},
    {"q5_k", "", {Elem::uint5, Rule::bias, 1, 32, kF32, false, kFloating, false, kSuper, Elem::uint6}, kWeight, false, false,
     "", "GGUF Q5_K: uint5 with a scale and a minimum for 32 values, in super-blocks of 256"},
    {"q6_k", "", {Elem::int6, Rule::symmetric, 1, 16, kF32, false, kNone, false, kSuper, Elem::int8}, kWeight, false, false,
     "", "GGUF Q6_K: int6 with a scale for 16 values, in super-blocks of 256"},
};
// clang-format on

constexpr std::string_view kScalings[] = {"floor", "ceil", "even", "rceil"};

std::string replace(std::string text, std::string_view what, std::string_view with) {
  if (const auto at = text.find(what); at != std::string::npos) text.replace(at, what.size(), with);
  return text;
}

}  // namespace

std::optional<PatternMatch> match_pattern(std::string_view pattern, std::string_view text) {
  PatternMatch match;
  while (!pattern.empty()) {
    if (pattern.starts_with("<B>") || pattern.starts_with("<G>")) {
      int value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || text[0] == '0' || text[0] == '-') return std::nullopt;
      text.remove_prefix(static_cast<std::size_t>(end - text.data()));
      const bool is_bits = pattern[1] == 'B';
      if (value < 1 || value > (is_bits ? 8 : kMaxGroup)) return std::nullopt;
      (is_bits ? match.bits : match.group) = value;
      pattern.remove_prefix(3);
    } else {
      if (text.empty() || text[0] != pattern[0]) return std::nullopt;
      pattern.remove_prefix(1);
      text.remove_prefix(1);
    }
  }
  return text.empty() ? std::optional(match) : std::nullopt;
}

std::vector<std::string> expand_pattern(std::string_view pattern) {
  std::vector<std::string> expanded = {std::string(pattern)};
  const auto expand = [&](std::string_view what, const auto& values) {
    if (pattern.find(what) == std::string_view::npos) return;
    std::vector<std::string> next;
    for (const std::string& text : expanded)
      for (const char* value : values) next.push_back(replace(text, what, value));
    expanded = std::move(next);
  };
  expand("<B>", std::array{"1", "2", "3", "4", "5", "6", "7", "8"});
  expand("<G>", std::array{"32", "64", "128", "256"});
  return expanded;
}

std::string_view name(Scaling scaling) { return kScalings[static_cast<std::size_t>(scaling)]; }

std::optional<Scaling> find_scaling(std::string_view text) {
  for (std::size_t i = 0; i < std::size(kScalings); ++i)
    if (kScalings[i] == text) return static_cast<Scaling>(i);
  return std::nullopt;
}

std::vector<std::string> scaling_names() { return {std::begin(kScalings), std::end(kScalings)}; }

std::span<const BlockRow> block_rows() { return kBlocks; }

std::optional<BlockFormat> find_block_format(std::string_view text) {
  for (const BlockRow& row : kBlocks) {
    auto match = match_pattern(row.pattern, text);
    const bool by_alias = !match && !row.alias.empty() && row.alias == text;
    if (by_alias) match = PatternMatch{};
    if (!match) continue;
    BlockFormat format{row.spec, by_alias ? std::string(row.pattern) : std::string(text), row.use, row.calibrated,
                       row.hqq};
    if (match->bits) format.element = integer_element(match->bits, info(row.spec.element).is_signed);
    if (match->group) format.group_cols = match->group;
    return format;
  }
  if (const auto element = find_element(text); element && info(*element).is_float()) {
    BlockFormat format;
    format.element = *element;
    format.name = text;
    return format;
  }
  return std::nullopt;
}

BlockFormat block_format(std::string_view text) {
  if (auto format = find_block_format(text)) return *format;
  fail(ErrorCode::usage, "unknown format '{}'{}; `lowp recipes --formats` lists them", text,
       did_you_mean(text, block_format_names()));
}

std::vector<std::string> block_format_names() {
  std::vector<std::string> names;
  for (const BlockRow& row : kBlocks)
    for (std::string& found : expand_pattern(row.pattern))  // a fixed row may shadow a member of a family (int8_g32)
      if (std::find(names.begin(), names.end(), found) == names.end()) names.push_back(std::move(found));
  return names;
}

std::string misfit(const BlockFormat& format, std::int64_t m, std::int64_t k) {
  if (m == 0 || k == 0) return fmt::format("the matrix [{}, {}] is empty", m, k);
  if (format.group_cols > 1 && k % format.group_cols != 0)
    return fmt::format("K = {} is not divisible by the group size {} of {}", k, format.group_cols, format.name);
  if (format.super_cols > 0 && k % format.super_cols != 0)
    return fmt::format("K = {} is not divisible by the {} values of a super-block of {}", k, format.super_cols,
                       format.name);
  if (format.two_codes_a_byte() && k % 2 != 0)
    return fmt::format("K = {} is odd and {} stores two codes a byte", k, format.name);
  return "";
}

double bits_per_weight(const BlockFormat& format, std::int64_t m, std::int64_t k, Elem input) {
  const double groups = static_cast<double>(format.scale_rows(m)) * static_cast<double>(format.scale_cols(k));
  const double scale_bits = format.has_scale() ? info(format.scale_in_input_dtype ? input : format.scale).bits : 0;
  const double zero_bits = format.zero_point == ZeroPoint::none      ? 0
                           : format.zero_point == ZeroPoint::integer ? info(format.element).bits
                                                                     : info(input).bits;
  if (format.super_cols > 0) {
    const double kinds = format.zero_point == ZeroPoint::none ? 1 : 2;
    return info(format.element).bits +
           kinds *
               (info(format.super_multiple).bits / static_cast<double>(format.group_cols) + 16.0 / format.super_cols);
  }
  const double rest = (format.tensor_scale ? 32.0 : 0.0) + (format.rule == Rule::codebook ? 16 * 32.0 : 0.0);
  return info(format.element).bits +
         (groups * (scale_bits + zero_bits) + rest) / (static_cast<double>(m) * static_cast<double>(k));
}

}  // namespace lowp::formats
