// Storage types of tensors in memory and in safetensors files.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lowp/formats/element.h"

namespace lowp {

/// Ids of the rows of kDTypes, in the same order.
enum class DType : std::uint8_t {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  c64,
  f8_e4m3,
  f8_e5m2,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f8_e8m0,
  f4,
  f6_e2m3,
  f6_e3m2,
};

struct DTypeInfo {
  std::string_view name;  // as safetensors spells it
  int bits;
  std::optional<formats::Elem> element;  // whose codec decodes it, for floating types that lowp computes with
};

inline constexpr auto kDTypes = std::to_array<DTypeInfo>({
    {"BOOL", 8, {}},
    {"U8", 8, {}},
    {"I8", 8, {}},
    {"U16", 16, {}},
    {"I16", 16, {}},
    {"U32", 32, {}},
    {"I32", 32, {}},
    {"U64", 64, {}},
    {"I64", 64, {}},
    {"F16", 16, formats::Elem::f16},
    {"BF16", 16, formats::Elem::bf16},
    {"F32", 32, formats::Elem::f32},
    {"F64", 64, {}},
    {"C64", 64, {}},
    {"F8_E4M3", 8, formats::Elem::e4m3},
    {"F8_E5M2", 8, formats::Elem::e5m2},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F8_E8M0", 8, formats::Elem::e8m0},
    {"F4", 4, formats::Elem::e2m1},
    {"F6_E2M3", 6, formats::Elem::e2m3},
    {"F6_E3M2", 6, formats::Elem::e3m2},
});
static_assert(kDTypes.size() == static_cast<std::size_t>(DType::f6_e3m2) + 1);

constexpr const DTypeInfo& info(DType type) { return kDTypes[static_cast<std::size_t>(type)]; }
constexpr std::string_view name(DType type) { return info(type).name; }

constexpr std::optional<DType> find_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kDTypes.size(); ++i)
    if (kDTypes[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

/// The types that can be quantized: f16, bf16, f32.
constexpr bool is_high_precision(DType type) { return type == DType::f16 || type == DType::bf16 || type == DType::f32; }

/// The element of a type for which is_high_precision() holds (or another with a codec).
constexpr formats::Elem element_of(DType type) { return *info(type).element; }

}  // namespace lowp
