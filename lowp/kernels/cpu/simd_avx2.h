// Vectors of 8 floats and what the casts do with them, in AVX2, FMA and F16C. simd_avx512.h has the same names.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace lowp::kernels::cpu::avx2 {

constexpr int kLanes = 8;
typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
typedef std::uint16_t Words __attribute__((vector_size(32)));  // 2 * kLanes of them
typedef double Doubles __attribute__((vector_size(32)));

inline Ints bits(Floats x) { return (Ints)x; }
inline Floats floats(Ints x) { return (Floats)x; }
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline Ints all(std::int32_t x) { return (Ints)_mm256_set1_epi32(x); }
inline Words all_words(std::uint16_t x) { return (Words)_mm256_set1_epi16(static_cast<short>(x)); }

inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline Ints load(const std::int32_t* p) { return (Ints)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Words load_words(const void* p) { return (Words)_mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline void store(std::int32_t* p, Ints x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)x); }
inline void store_words(void* p, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(p), (__m256i)x); }

/// The first `count` < 2 * kLanes words; the rest is `rest`.
inline Words load_words(const void* p, int count, Words rest) {
  std::memcpy(&rest, p, static_cast<std::size_t>(count) * 2);
  return rest;
}
inline Ints load(const std::int32_t* p, int count, Ints rest) {
  std::memcpy(&rest, p, static_cast<std::size_t>(count) * 4);
  return rest;
}

inline Ints min_int(Ints a, Ints b) { return (Ints)_mm256_min_epi32((__m256i)a, (__m256i)b); }
inline Ints max_int(Ints a, Ints b) { return (Ints)_mm256_max_epi32((__m256i)a, (__m256i)b); }
inline Words min_word(Words a, Words b) { return (Words)_mm256_min_epu16((__m256i)a, (__m256i)b); }
inline Words max_word(Words a, Words b) { return (Words)_mm256_max_epu16((__m256i)a, (__m256i)b); }
/// a < b ? a : b and a > b ? a : b: b where either is NaN.
inline Floats min_float(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats max_float(Floats a, Floats b) { return _mm256_max_ps(a, b); }
/// Bits of a where mask has ones, of b elsewhere.
inline Ints choose(Ints mask, Ints a, Ints b) { return b ^ ((a ^ b) & mask); }
inline Ints logical_shift(Ints x, int by) { return (Ints)_mm256_srli_epi32((__m256i)x, by); }
template <int by>
inline Words sign_of_words(Words x) {
  return (Words)_mm256_srai_epi16((__m256i)x, by);
}
inline bool any(Ints mask) { return _mm256_movemask_ps((__m256)mask) != 0; }

inline Ints nearest(Floats x) { return (Ints)_mm256_cvtps_epi32(x); }
inline Floats to_float(Ints x) { return _mm256_cvtepi32_ps((__m256i)x); }
/// a * b + c and c - a * b, rounded once.
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats fused_negative(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
inline Floats round_f16(Floats x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
/// The lower 16 bits of each lane, one after the other.
inline __m128i low_words(Ints x) {
  const __m256i masked = (__m256i)(x & 0xFFFF);
  return _mm_packus_epi32(_mm256_castsi256_si128(masked), _mm256_extracti128_si256(masked, 1));
}
/// Values of the f16 codes in the lower halves of the lanes.
inline Floats f16_values(Ints code) { return _mm256_cvtph_ps(low_words(code)); }

inline Floats gather(const float* table, Ints index) { return _mm256_i32gather_ps(table, (__m256i)index, 4); }
/// table[index[i]], of the lowest four bits of the index.
inline Floats lookup16(const float* table, Ints index) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)index);
  return _mm256_blendv_ps(low, high, (__m256)(index << 28));
}
/// x[index[i]].
inline Floats permute(Floats x, Ints index) { return _mm256_permutevar8x32_ps(x, (__m256i)index); }
inline Ints permute(Ints x, Ints index) { return (Ints)_mm256_permutevar8x32_epi32((__m256i)x, (__m256i)index); }

inline std::uint16_t largest(Words x) {
  const __m128i most = _mm_max_epu16(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(most, _mm_set1_epi32(-1)));
  return static_cast<std::uint16_t>(~_mm_extract_epi16(least, 0));
}
inline std::uint16_t smallest(Words x) {
  const __m128i least = _mm_min_epu16(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
  return static_cast<std::uint16_t>(_mm_extract_epi16(_mm_minpos_epu16(least), 0));
}
inline std::int32_t largest(Ints x) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}
inline std::int32_t smallest(Ints x) {
  __m128i half = _mm_min_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
  half = _mm_min_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_min_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

/// 2 * kLanes neighbours: elements 0, 2, 4 ... and 1, 3, 5 ...
struct Pair {
  Floats even, odd;
};
inline __m256 in_order(__m256 x) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xD8)); }
inline Pair load_f32_pair(const void* p) {
  const __m256 a = _mm256_loadu_ps(static_cast<const float*>(p)), b = _mm256_loadu_ps(static_cast<const float*>(p) + 8);
  return {in_order(_mm256_shuffle_ps(a, b, 0x88)), in_order(_mm256_shuffle_ps(a, b, 0xDD))};
}
inline Pair load_f16_pair(const void* p) {
  const __m256 a = _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256 b = _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p) + 1));
  return {in_order(_mm256_shuffle_ps(a, b, 0x88)), in_order(_mm256_shuffle_ps(a, b, 0xDD))};
}
inline void store_f32_pair(void* p, Pair x) {
  const __m256 low = _mm256_unpacklo_ps(x.even, x.odd), high = _mm256_unpackhi_ps(x.even, x.odd);
  _mm256_storeu_ps(static_cast<float*>(p), _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(static_cast<float*>(p) + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

/// The lower 16 and 8 bits of each lane, one after the other.
inline void store_low_words(void* p, Ints x) { _mm_storeu_si128(static_cast<__m128i*>(p), low_words(x)); }
inline void store_low_bytes(void* p, Ints x) {
  const __m128i words = low_words(x & 0xFF);
  _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
inline Ints load_low_words(const void* p) {
  return (Ints)_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
inline Ints load_low_bytes(const void* p) {
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
}

inline Doubles low_doubles(Floats x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
inline Doubles high_doubles(Floats x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }

}  // namespace lowp::kernels::cpu::avx2
