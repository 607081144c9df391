// Element formats: what the bits of one number mean. A format is a row of kElements.   <- ADD AN ELEMENT FORMAT HERE
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lowp/base/bits.h"

namespace lowp::formats {

/// Ids of the rows of kElements, in the same order. They never leave the process: files and messages hold names.
enum class Elem : std::uint8_t {
  f32,
  f16,
  bf16,
  e4m3,
  e5m2,
  e3m2,
  e2m3,
  e2m1,
  e8m0,
  int1,
  int2,
  int3,
  int4,
  int5,
  int6,
  int7,
  int8,
  uint1,
  uint2,
  uint3,
  uint4,
  uint5,
  uint6,
  uint7,
  uint8,
};

/// Which codes are not finite numbers.
enum class Specials : std::uint8_t {
  none,      // every code is a number (fp6, fp4, integers)
  ieee,      // top exponent: mantissa 0 is infinity, the rest NaN
  nan_only,  // all ones is NaN, no infinity (e4m3 "FN", e8m0)
};

/// A row: a float s|e|m (exponent_bits > 0) or a two's complement / unsigned integer (exponent_bits == 0).
struct ElementFormat {
  std::string_view name;
  int bits;
  int exponent_bits;
  int mantissa_bits;
  int bias;
  bool is_signed;
  Specials specials;

  LOWP_HD constexpr bool is_float() const { return exponent_bits > 0; }
  LOWP_HD constexpr std::uint32_t code_mask() const { return bits == 32 ? 0xFFFFFFFFu : (1u << bits) - 1u; }
};

inline constexpr auto kElements = std::to_array<ElementFormat>({
    {"f32", 32, 8, 23, 127, true, Specials::ieee},     {"f16", 16, 5, 10, 15, true, Specials::ieee},
    {"bf16", 16, 8, 7, 127, true, Specials::ieee},     {"e4m3", 8, 4, 3, 7, true, Specials::nan_only},
    {"e5m2", 8, 5, 2, 15, true, Specials::ieee},       {"e3m2", 6, 3, 2, 3, true, Specials::none},
    {"e2m3", 6, 2, 3, 1, true, Specials::none},        {"e2m1", 4, 2, 1, 1, true, Specials::none},
    {"e8m0", 8, 8, 0, 127, false, Specials::nan_only}, {"int1", 1, 0, 0, 0, true, Specials::none},
    {"int2", 2, 0, 0, 0, true, Specials::none},        {"int3", 3, 0, 0, 0, true, Specials::none},
    {"int4", 4, 0, 0, 0, true, Specials::none},        {"int5", 5, 0, 0, 0, true, Specials::none},
    {"int6", 6, 0, 0, 0, true, Specials::none},        {"int7", 7, 0, 0, 0, true, Specials::none},
    {"int8", 8, 0, 0, 0, true, Specials::none},        {"uint1", 1, 0, 0, 0, false, Specials::none},
    {"uint2", 2, 0, 0, 0, false, Specials::none},      {"uint3", 3, 0, 0, 0, false, Specials::none},
    {"uint4", 4, 0, 0, 0, false, Specials::none},      {"uint5", 5, 0, 0, 0, false, Specials::none},
    {"uint6", 6, 0, 0, 0, false, Specials::none},      {"uint7", 7, 0, 0, 0, false, Specials::none},
    {"uint8", 8, 0, 0, 0, false, Specials::none},
});
static_assert(kElements.size() == static_cast<std::size_t>(Elem::uint8) + 1);

#ifdef __CUDACC__
static __device__ constexpr auto kDeviceElements = kElements;  // device code cannot index a host constant
#endif

LOWP_HD constexpr const ElementFormat& info(Elem e) {
#ifdef __CUDA_ARCH__
  return kDeviceElements[static_cast<std::size_t>(e)];
#else
  return kElements[static_cast<std::size_t>(e)];
#endif
}
constexpr std::string_view name(Elem e) { return info(e).name; }

/// The element with this name, if any.
constexpr std::optional<Elem> find_element(std::string_view name) {
  for (std::size_t i = 0; i < kElements.size(); ++i)
    if (kElements[i].name == name) return static_cast<Elem>(i);
  return std::nullopt;
}

/// The signed (or unsigned) integer element of 1 to 8 bits.
constexpr Elem integer_element(int bits, bool is_signed = true) {
  return static_cast<Elem>(static_cast<int>(is_signed ? Elem::int1 : Elem::uint1) + bits - 1);
}

}  // namespace lowp::formats
