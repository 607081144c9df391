// Vectors of 8 lanes: AVX2 and FMA, and AVX-VNNI where the file is compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lowp::kernels::cpu::LOWP_ISA {

constexpr int kLanes = 8;
constexpr int kMaxRows = 4, kMaxScaledRows = 2;
constexpr int kUnrolledSteps = 16;

using Floats = __m256;
inline Floats zero() { return _mm256_setzero_ps(); }
inline Floats broadcast(float x) { return _mm256_set1_ps(x); }
inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
// Bytes shifted left, and bf16 numbers, as floats.
template <int kCount>
inline Floats shifted_bytes(const std::uint8_t* p) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, kCount));
}
inline Floats load_bf16(const std::uint8_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
// b where either is a NaN.
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }

inline __m256i load_bytes(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m256i broadcast4(const std::uint8_t* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}

struct Int8Dot {
  static constexpr int kStep = 4;
  static constexpr int kRowBytes = 4;
  using Sum = __m256i;
#ifdef __AVXVNNI__
  using Weight = __m256i;
  using Activation = __m256i;
  static Weight weight(const std::uint8_t* p) { return load_bytes(p); }
  static Activation activation(const std::uint8_t* p) { return broadcast4(p); }
  static void add(Sum& sum, Weight w, Activation a) { sum = _mm256_dpbusd_avx_epi32(sum, w, a); }
#else
  // vpmaddubsw would saturate, so bytes are widened: even and odd ones by themselves.
  struct Weight {
    __m256i even, odd;
  };
  using Activation = Weight;
  static Weight weight(const std::uint8_t* p) {
    const __m256i x = load_bytes(p);
    return {_mm256_and_si256(x, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16(x, 8)};
  }
  static Activation activation(const std::uint8_t* p) {
    const __m256i x = broadcast4(p);
    return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
  }
  static void add(Sum& sum, Weight w, Activation a) {
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(w.even, a.even), _mm256_madd_epi16(w.odd, a.odd)));
  }
#endif
  static Sum start(std::int32_t x) { return _mm256_set1_epi32(x); }
  static Floats floats(Sum sum) { return _mm256_cvtepi32_ps(sum); }
};

struct F32Dot {
  static constexpr int kStep = 2;
  static constexpr int kRowBytes = 8;
  struct Weight {
    __m256 even, odd;
  };
  using Activation = Weight;
  using Sum = __m256;
  static Weight weight(const std::uint8_t* p) {
    const __m256i pair = load_bytes(p);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))))};
  }
  static Activation activation(const std::uint8_t* p) {
    float pair[2];
    __builtin_memcpy(pair, p, 8);
    return {_mm256_set1_ps(pair[0]), _mm256_set1_ps(pair[1])};
  }
  static Sum start(float x) { return _mm256_set1_ps(x); }
  static void add(Sum& sum, Weight w, Activation a) {
    sum = _mm256_fmadd_ps(w.odd, a.odd, _mm256_fmadd_ps(w.even, a.even, sum));
  }
  static Floats floats(Sum sum) { return sum; }
};

struct Line {
  __m256i half[2];
};
inline Line load_line(const std::uint8_t* p) { return {{load_bytes(p), load_bytes(p + 32)}}; }
inline void store_line(std::uint8_t* p, Line x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.half[0]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.half[1]);
}
template <typename Body>
inline Line each_half(Body body) {
  return {{body(0), body(1)}};
}
inline Line either(Line a, Line b) {
  return each_half([&](int i) { return _mm256_or_si256(a.half[i], b.half[i]); });
}
inline Line subtract_bytes(Line x, int y) {
  return each_half([&](int i) { return _mm256_sub_epi8(x.half[i], _mm256_set1_epi8(static_cast<char>(y))); });
}
inline Line keep_bytes(Line x, int mask) {
  return each_half([&](int i) { return _mm256_and_si256(x.half[i], _mm256_set1_epi8(static_cast<char>(mask))); });
}
inline Line keep_words(Line x, int mask) {
  return each_half([&](int i) { return _mm256_and_si256(x.half[i], _mm256_set1_epi16(static_cast<short>(mask))); });
}
template <int kCount>
inline Line shift(Line x) {
  if constexpr (kCount > 0) return {{_mm256_srli_epi16(x.half[0], kCount), _mm256_srli_epi16(x.half[1], kCount)}};
  if constexpr (kCount < 0) return {{_mm256_slli_epi16(x.half[0], -kCount), _mm256_slli_epi16(x.half[1], -kCount)}};
  return x;
}

struct ByteTable {
  __m256i table;
  explicit ByteTable(const std::uint8_t* bytes)
      : table(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)))) {}
  Line operator()(Line codes) const {
    return each_half(
        [&](int i) { return _mm256_shuffle_epi8(table, _mm256_and_si256(codes.half[i], _mm256_set1_epi8(0xF))); });
  }
};

// Both bytes of a word are looked up by its low 4 bits; where all 32 entries differ, bit 4 chooses between two tables.
struct WordTable {
  __m256i low[2], high[2];
  bool wide = false;
  explicit WordTable(const std::uint16_t* words) {
    for (int t = 0; t < 2; ++t) {
      alignas(16) std::uint8_t bytes[2][16];
      for (int i = 0; i < 16; ++i) {
        bytes[0][i] = static_cast<std::uint8_t>(words[16 * t + i]);
        bytes[1][i] = static_cast<std::uint8_t>(words[16 * t + i] >> 8);
        wide = wide || words[16 * t + i] != words[i];
      }
      low[t] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[0])));
      high[t] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[1])));
    }
  }
  __m256i find(int t, __m256i index) const {
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(low[t], index), _mm256_shuffle_epi8(high[t], index),
                              _mm256_set1_epi16(static_cast<short>(0xFF00)));
  }
  Line operator()(Line codes) const {
    return each_half([&](int i) {
      const __m256i index = _mm256_and_si256(codes.half[i], _mm256_set1_epi16(0xF));
      const __m256i both = _mm256_or_si256(index, _mm256_slli_epi16(index, 8));
      const __m256i found = find(0, both);
      if (!wide) return found;
      const __m256i second = _mm256_srai_epi16(_mm256_slli_epi16(codes.half[i], 11), 15);
      return _mm256_blendv_epi8(found, find(1, both), second);
    });
  }
};

// Words looked up by bytes of kBits = 6, 7 or 8 bits, of 8 the top one is the sign: 16 entries at a time. A code that
// is none of a table's gets an index with its top bit set there, which gives 0.
template <int kBits>
struct PairTable {
  static constexpr int kTables = kBits == 6 ? 4 : 8;
  __m256i low[kTables], high[kTables];
  explicit PairTable(const std::uint16_t* words) {
    for (int t = 0; t < kTables; ++t) {
      alignas(16) std::uint8_t bytes[2][16];
      for (int i = 0; i < 16; ++i) {
        bytes[0][i] = static_cast<std::uint8_t>(words[16 * t + i]);
        bytes[1][i] = static_cast<std::uint8_t>(words[16 * t + i] >> 8);
      }
      low[t] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[0])));
      high[t] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[1])));
    }
  }
  void operator()(Line codes, Line& first, Line& second) const {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int i = 0; i < 2; ++i) {
      const __m256i code = kBits == 8 ? _mm256_andnot_si256(sign, codes.half[i]) : codes.half[i];
      __m256i l = _mm256_setzero_si256();
      __m256i h = kBits == 8 ? _mm256_and_si256(sign, codes.half[i]) : l;
#pragma GCC unroll 8
      for (int t = 0; t < kTables; ++t) {
        const __m256i other = _mm256_xor_si256(code, _mm256_set1_epi8(static_cast<char>(16 * t)));
        const __m256i index = _mm256_adds_epu8(other, _mm256_set1_epi8(0x70));
        l = _mm256_or_si256(l, _mm256_shuffle_epi8(low[t], index));
        h = _mm256_or_si256(h, _mm256_shuffle_epi8(high[t], index));
      }
      first.half[i] = _mm256_unpacklo_epi8(l, h);
      second.half[i] = _mm256_unpackhi_epi8(l, h);
    }
  }
};

}  // namespace lowp::kernels::cpu::LOWP_ISA
