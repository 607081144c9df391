// Vectors of 16 floats and what the casts do with them, in AVX-512 F, BW, VL and DQ. simd_avx2.h has the same names.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace lowp::kernels::cpu::avx512 {

constexpr int kLanes = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef std::int32_t Ints __attribute__((vector_size(64)));
typedef std::uint16_t Words __attribute__((vector_size(64)));  // 2 * kLanes of them
typedef double Doubles __attribute__((vector_size(64)));

inline Ints bits(Floats x) { return (Ints)x; }
inline Floats floats(Ints x) { return (Floats)x; }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Ints all(std::int32_t x) { return (Ints)_mm512_set1_epi32(x); }
inline Words all_words(std::uint16_t x) { return (Words)_mm512_set1_epi16(static_cast<short>(x)); }

inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline Ints load(const std::int32_t* p) { return (Ints)_mm512_loadu_si512(p); }
inline Words load_words(const void* p) { return (Words)_mm512_loadu_si512(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline void store(std::int32_t* p, Ints x) { _mm512_storeu_si512(p, (__m512i)x); }
inline void store_words(void* p, Ints x) { _mm512_storeu_si512(p, (__m512i)x); }

/// The first `count` < 2 * kLanes words; the rest is `rest`.
inline Words load_words(const void* p, int count, Words rest) {
  return (Words)_mm512_mask_loadu_epi16((__m512i)rest, static_cast<__mmask32>((1u << count) - 1), p);
}
inline Ints load(const std::int32_t* p, int count, Ints rest) {
  return (Ints)_mm512_mask_loadu_epi32((__m512i)rest, static_cast<__mmask16>((1u << count) - 1), p);
}

inline Ints min_int(Ints a, Ints b) { return (Ints)_mm512_min_epi32((__m512i)a, (__m512i)b); }
inline Ints max_int(Ints a, Ints b) { return (Ints)_mm512_max_epi32((__m512i)a, (__m512i)b); }
inline Words min_word(Words a, Words b) { return (Words)_mm512_min_epu16((__m512i)a, (__m512i)b); }
inline Words max_word(Words a, Words b) { return (Words)_mm512_max_epu16((__m512i)a, (__m512i)b); }
/// a < b ? a : b and a > b ? a : b: b where either is NaN.
inline Floats min_float(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats max_float(Floats a, Floats b) { return _mm512_max_ps(a, b); }
/// Bits of a where mask has ones, of b elsewhere.
inline Ints choose(Ints mask, Ints a, Ints b) {
  return (Ints)_mm512_ternarylogic_epi32((__m512i)mask, (__m512i)a, (__m512i)b, 0xCA);
}
inline Ints logical_shift(Ints x, int by) { return (Ints)_mm512_srli_epi32((__m512i)x, static_cast<unsigned>(by)); }
template <int by>
inline Words sign_of_words(Words x) {
  return (Words)_mm512_srai_epi16((__m512i)x, by);
}
inline bool any(Ints mask) { return _mm512_movepi32_mask((__m512i)mask) != 0; }

inline Ints nearest(Floats x) { return (Ints)_mm512_cvtps_epi32(x); }
inline Floats to_float(Ints x) { return _mm512_cvtepi32_ps((__m512i)x); }
/// a * b + c and c - a * b, rounded once.
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fused_negative(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
inline Floats round_f16(Floats x) {
  return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/// Values of the f16 codes in the lower halves of the lanes.
inline Floats f16_values(Ints code) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)code)); }

inline Floats gather(const float* table, Ints index) { return _mm512_i32gather_ps((__m512i)index, table, 4); }
/// table[index[i]], of the lowest four bits of the index.
inline Floats lookup16(const float* table, Ints index) {
  return _mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}
/// x[index[i]].
inline Floats permute(Floats x, Ints index) { return _mm512_permutexvar_ps((__m512i)index, x); }
inline Ints permute(Ints x, Ints index) { return (Ints)_mm512_permutexvar_epi32((__m512i)index, (__m512i)x); }

inline std::uint16_t largest(Words x) {
  const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256((__m512i)x), _mm512_extracti64x4_epi64((__m512i)x, 1));
  const __m128i most = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(most, _mm_set1_epi32(-1)));
  return static_cast<std::uint16_t>(~_mm_extract_epi16(least, 0));
}
inline std::uint16_t smallest(Words x) {
  const __m256i half = _mm256_min_epu16(_mm512_castsi512_si256((__m512i)x), _mm512_extracti64x4_epi64((__m512i)x, 1));
  const __m128i least = _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return static_cast<std::uint16_t>(_mm_extract_epi16(_mm_minpos_epu16(least), 0));
}
inline std::int32_t largest(Ints x) { return _mm512_reduce_max_epi32((__m512i)x); }
inline std::int32_t smallest(Ints x) { return _mm512_reduce_min_epi32((__m512i)x); }

/// 2 * kLanes neighbours: elements 0, 2, 4 ... and 1, 3, 5 ...
struct Pair {
  Floats even, odd;
};
inline Pair load_f32_pair(const void* p) {
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(static_cast<const char*>(p) + 64);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)};
}
inline Pair load_f16_pair(const void* p) {
  const __m512i words = _mm512_loadu_si512(p);
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)),
          _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)))};
}
inline void store_f32_pair(void* p, Pair x) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_ps(p, _mm512_permutex2var_ps(x.even, first, x.odd));
  _mm512_storeu_ps(static_cast<char*>(p) + 64, _mm512_permutex2var_ps(x.even, second, x.odd));
}

/// The lower 16 and 8 bits of each lane, one after the other.
inline void store_low_words(void* p, Ints x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)x));
}
inline void store_low_bytes(void* p, Ints x) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x));
}
inline Ints load_low_words(const void* p) {
  return (Ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
inline Ints load_low_bytes(const void* p) {
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

inline Doubles low_doubles(Floats x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
inline Doubles high_doubles(Floats x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }

}  // namespace lowp::kernels::cpu::avx512
