// Vectors of 16 lanes: AVX-512 F, BW, DQ, VL, VNNI, VBMI, and BF16 where the file is compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lowp::kernels::cpu::LOWP_ISA {

constexpr int kLanes = 16;
constexpr int kMaxRows = 8, kMaxScaledRows = 6;  // of a tile: 2 vectors a row, 4 where there are scaled sums too
constexpr int kUnrolledSteps = 16;

using Floats = __m512;
inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats broadcast(float x) { return _mm512_set1_ps(x); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
// Bytes shifted left, and bf16 numbers, as floats.
template <int kCount>
inline Floats shifted_bytes(const std::uint8_t* p) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, kCount));
}
inline Floats load_bf16(const std::uint8_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// b where either is a NaN.
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }

inline __m512i broadcast4(const std::uint8_t* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}

struct Int8Dot {
  static constexpr int kStep = 4;      // values of k a step
  static constexpr int kRowBytes = 4;  // bytes of an activation row a step
  using Weight = __m512i;
  using Activation = __m512i;
  using Sum = __m512i;
  static Weight weight(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static Activation activation(const std::uint8_t* p) { return broadcast4(p); }
  static Sum start(std::int32_t x) { return _mm512_set1_epi32(x); }
  // Inline assembly because GCC 12 spills every accumulator of a tile around the intrinsic.
  static void add(Sum& sum, Weight w, Activation a) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a)); }
  static Floats floats(Sum sum) { return _mm512_cvtepi32_ps(sum); }
};

#ifdef __AVX512BF16__
struct Bf16Dot {
  static constexpr int kStep = 2;
  static constexpr int kRowBytes = 4;
  using Weight = __m512i;
  using Activation = __m512i;
  using Sum = __m512;
  static Weight weight(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static Activation activation(const std::uint8_t* p) { return broadcast4(p); }
  static Sum start(float x) { return _mm512_set1_ps(x); }
  static void add(Sum& sum, Weight w, Activation a) {
    sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(a));
  }
  static Floats floats(Sum sum) { return sum; }
};
#endif

struct F32Dot {
  static constexpr int kStep = 2;
  static constexpr int kRowBytes = 8;
  struct Weight {
    __m512 even, odd;
  };
  struct Activation {
    __m512 even, odd;
  };
  using Sum = __m512;
  static Weight weight(const std::uint8_t* p) {
    const __m512i pair = _mm512_loadu_si512(p);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))))};
  }
  static Activation activation(const std::uint8_t* p) {
    float pair[2];
    __builtin_memcpy(pair, p, 8);
    return {_mm512_set1_ps(pair[0]), _mm512_set1_ps(pair[1])};
  }
  static Sum start(float x) { return _mm512_set1_ps(x); }
  static void add(Sum& sum, Weight w, Activation a) {
    sum = _mm512_fmadd_ps(w.odd, a.odd, _mm512_fmadd_ps(w.even, a.even, sum));
  }
  static Floats floats(Sum sum) { return sum; }
};

// 64 bytes of packed codes.
using Line = __m512i;
inline Line load_line(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
inline void store_line(std::uint8_t* p, Line x) { _mm512_storeu_si512(p, x); }
inline Line either(Line a, Line b) { return _mm512_or_si512(a, b); }
inline Line subtract_bytes(Line x, int y) { return _mm512_sub_epi8(x, _mm512_set1_epi8(static_cast<char>(y))); }
inline Line keep_bytes(Line x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask))); }
inline Line keep_words(Line x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi16(static_cast<short>(mask))); }
// Words right by kCount bits, left where it is negative.
template <int kCount>
inline Line shift(Line x) {
  if constexpr (kCount > 0) return _mm512_srli_epi16(x, kCount);
  if constexpr (kCount < 0) return _mm512_slli_epi16(x, -kCount);
  return x;
}

// 16 bytes, looked up by the low 4 bits of each byte. vpermb reads 6 bits, so the table stands there four times.
struct ByteTable {
  __m512i table;
  explicit ByteTable(const std::uint8_t* bytes)
      : table(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)))) {}
  Line operator()(Line codes) const { return _mm512_permutexvar_epi8(codes, table); }
};

// 32 words, looked up by the low 5 bits of each word.
struct WordTable {
  __m512i table;
  explicit WordTable(const std::uint16_t* words) : table(_mm512_loadu_si512(words)) {}
  Line operator()(Line codes) const { return _mm512_permutexvar_epi16(codes, table); }
};

// Words looked up by bytes of kBits = 6, 7 or 8 bits, of 8 the top one is the sign. In each 16 bytes of codes the low 8
// give words of `low`, the others of `high`.
template <int kBits>
struct PairTable {
  __m512i low[2], high[2];
  explicit PairTable(const std::uint16_t* words) {
    alignas(64) std::uint8_t bytes[2][128];
    for (int i = 0; i < 128; ++i) {
      bytes[0][i] = static_cast<std::uint8_t>(words[i]);
      bytes[1][i] = static_cast<std::uint8_t>(words[i] >> 8);
    }
    for (int i = 0; i < 2; ++i) {
      low[i] = _mm512_load_si512(bytes[0] + 64 * i);
      high[i] = _mm512_load_si512(bytes[1] + 64 * i);
    }
  }
  void operator()(Line codes, Line& first, Line& second) const {
    __m512i l, h;
    if constexpr (kBits == 6) {
      l = _mm512_permutexvar_epi8(codes, low[0]);
      h = _mm512_permutexvar_epi8(codes, high[0]);
    } else {
      l = _mm512_permutex2var_epi8(low[0], codes, low[1]);
      h = _mm512_permutex2var_epi8(high[0], codes, high[1]);
      if constexpr (kBits == 8)
        h = _mm512_ternarylogic_epi32(h, codes, _mm512_set1_epi8(static_cast<char>(0x80)),
                                      0xF8);  // h | (codes & mask)
    }
    first = _mm512_unpacklo_epi8(l, h);
    second = _mm512_unpackhi_epi8(l, h);
  }
};

}  // namespace lowp::kernels::cpu::LOWP_ISA
