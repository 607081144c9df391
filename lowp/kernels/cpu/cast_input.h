// The types that casts read, as vectors of f32, and the statistics of their groups.
#pragma once

#include <cstdint>
#include <cstring>

#include "lowp/formats/element.h"
#include "lowp/kernels/cpu/simd.h"

namespace lowp::kernels::cpu::LOWP_ISA {

/// Bounds of an integer element. Not formats::max_value(): what is compiled here for an instruction set must not be a
/// function that others share.
inline float integer_most(formats::Elem e) {
  const formats::ElementFormat& f = formats::info(e);
  return static_cast<float>((1 << (f.is_signed ? f.bits - 1 : f.bits)) - 1);
}
inline float integer_least(formats::Elem e) {
  const formats::ElementFormat& f = formats::info(e);
  return f.is_signed ? -static_cast<float>(1 << (f.bits - 1)) : 0.0f;
}

constexpr std::int32_t kMagnitude = 0x7FFFFFFF, kInfinity = 0x7F800000, kHighHalf = -65536;

/// Nearest bf16, ties to even; x is not NaN.
inline Floats round_bf16(Floats x) {
  const Ints u = bits(x);
  return floats((u + 0x7FFF + ((u >> 16) & 1)) & kHighHalf);
}

/// Two or four bytes an element. `pair` loads 2 * kLanes elements, `value` makes floats of codes in the lower bits of
/// the lanes, `round` rounds to the type what the type's arithmetic would.
struct Bf16Input {
  static constexpr std::int64_t kBytes = 2;
  static Pair pair(const char* p) {
    const Ints words = (Ints)load_words(p);
    return {floats(words << 16), floats(words & kHighHalf)};
  }
  static Floats value(Ints code) { return floats(code << 16); }
  static Floats round(Floats x) { return round_bf16(x); }
};

struct F16Input {
  static constexpr std::int64_t kBytes = 2;
  static Pair pair(const char* p) { return load_f16_pair(p); }
  static Floats value(Ints code) { return f16_values(code); }
  static Floats round(Floats x) { return round_f16(x); }
};

struct F32Input {
  static constexpr std::int64_t kBytes = 4;
  static Pair pair(const char* p) { return load_f32_pair(p); }
  static Floats value(Ints code) { return floats(code); }
  static Floats round(Floats x) { return x; }
};

/// Codes of the input type: the largest magnitude, or the smallest and the largest value.
struct Extremes {
  std::int32_t low = 0, high = 0;
};

inline Words load_key(Words x) { return x ^ (sign_of_words<15>(x) | all_words(0x8000)); }  // in the order of the values
inline std::int32_t key_word(std::uint16_t key) { return key & 0x8000 ? key ^ 0x8000 : ~key & 0xFFFF; }
inline Ints ordered(Ints x) { return x ^ ((x >> 31) & kMagnitude); }  // its own inverse

/// Of `count` >= 1 elements.
template <class In>
Extremes magnitude(const char* x, std::int64_t count) {
  if constexpr (In::kBytes == 2) {
    Words most = {};
    std::int64_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) most = max_word(most, load_words(x + 2 * i) & all_words(0x7FFF));
    if (i < count)
      most = max_word(most, load_words(x + 2 * i, static_cast<int>(count - i), Words{}) & all_words(0x7FFF));
    return {0, largest(most)};
  } else {
    const auto* values = reinterpret_cast<const std::int32_t*>(x);
    Ints most = {};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) most = max_int(most, load(values + i) & kMagnitude);
    if (i < count) most = max_int(most, load(values + i, static_cast<int>(count - i), Ints{}) & kMagnitude);
    return {0, largest(most)};
  }
}

template <class In>
Extremes range(const char* x, std::int64_t count) {
  if constexpr (In::kBytes == 2) {
    std::uint16_t first;
    std::memcpy(&first, x, 2);
    const Words start = all_words(first);
    Words least = load_key(start), most = least;
    const auto take = [&](Words words) {
      least = min_word(least, load_key(words));
      most = max_word(most, load_key(words));
    };
    std::int64_t i = 0;
    for (; i + 2 * kLanes <= count; i += 2 * kLanes) take(load_words(x + 2 * i));
    if (i < count) take(load_words(x + 2 * i, static_cast<int>(count - i), start));
    return {key_word(smallest(least)), key_word(largest(most))};
  } else {
    const auto* values = reinterpret_cast<const std::int32_t*>(x);
    std::int32_t first;
    std::memcpy(&first, x, 4);
    const Ints start = all(first);
    Ints least = ordered(start), most = least;
    const auto take = [&](Ints codes) {
      least = min_int(least, ordered(codes));
      most = max_int(most, ordered(codes));
    };
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) take(load(values + i));
    if (i < count) take(load(values + i, static_cast<int>(count - i), start));
    const std::int32_t low = smallest(least), high = largest(most);
    return {low ^ ((low >> 31) & kMagnitude), high ^ ((high >> 31) & kMagnitude)};
  }
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
