// The same operations in plain C++: 16 lanes in arrays, for the compiler to make of them what it can.
#pragma once

#include <cstdint>
#include <cstring>

#include "lowp/base/bits.h"

namespace lowp::kernels::cpu::LOWP_ISA {

constexpr int kLanes = 16;
constexpr int kMaxRows = 2, kMaxScaledRows = 2;
constexpr int kUnrolledSteps = 1;

template <typename Body>
inline void each_lane(Body body) {
  for (int i = 0; i < kLanes; ++i) body(i);
}

struct Floats {
  float lane[kLanes];
};
inline Floats broadcast(float x) {
  Floats v;
  each_lane([&](int i) { v.lane[i] = x; });
  return v;
}
inline Floats zero() { return broadcast(0); }
inline Floats load(const float* p) {
  Floats v;
  std::memcpy(v.lane, p, sizeof v.lane);
  return v;
}
inline void store(float* p, const Floats& v) { std::memcpy(p, v.lane, sizeof v.lane); }
// Bytes shifted left, and bf16 numbers, as floats.
template <int kCount>
inline Floats shifted_bytes(const std::uint8_t* p) {
  Floats v;
  each_lane([&](int i) { v.lane[i] = bits_float(static_cast<std::uint32_t>(p[i]) << kCount); });
  return v;
}
inline Floats load_bf16(const std::uint8_t* p) {
  Floats v;
  each_lane([&](int i) { v.lane[i] = bits_float((p[2 * i] | static_cast<std::uint32_t>(p[2 * i + 1]) << 8) << 16); });
  return v;
}
inline Floats add(Floats a, const Floats& b) {
  each_lane([&](int i) { a.lane[i] += b.lane[i]; });
  return a;
}
inline Floats multiply(Floats a, const Floats& b) {
  each_lane([&](int i) { a.lane[i] *= b.lane[i]; });
  return a;
}
inline Floats multiply_add(const Floats& a, const Floats& b, Floats c) {
  each_lane([&](int i) { c.lane[i] += a.lane[i] * b.lane[i]; });
  return c;
}

// b where either is a NaN.
inline Floats smaller(const Floats& a, Floats b) {
  each_lane([&](int i) { b.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  return b;
}
inline Floats larger(const Floats& a, Floats b) {
  each_lane([&](int i) { b.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  return b;
}

struct Int8Dot {
  static constexpr int kStep = 4;
  static constexpr int kRowBytes = 4;
  using Weight = const std::uint8_t*;
  struct Activation {
    std::int8_t k[4];
  };
  struct Sum {
    std::int32_t lane[kLanes];
  };
  static Weight weight(const std::uint8_t* p) { return p; }
  static Activation activation(const std::uint8_t* p) {
    Activation a;
    std::memcpy(a.k, p, 4);
    return a;
  }
  static Sum start(std::int32_t x) {
    Sum sum;
    each_lane([&](int i) { sum.lane[i] = x; });
    return sum;
  }
  static void add(Sum& sum, Weight w, Activation a) {
    each_lane([&](int i) {
      for (int k = 0; k < 4; ++k) sum.lane[i] += w[4 * i + k] * a.k[k];
    });
  }
  static Floats floats(const Sum& sum) {
    Floats v;
    each_lane([&](int i) { v.lane[i] = static_cast<float>(sum.lane[i]); });
    return v;
  }
};

struct F32Dot {
  static constexpr int kStep = 2;
  static constexpr int kRowBytes = 8;
  struct Weight {
    Floats even, odd;
  };
  struct Activation {
    float even, odd;
  };
  using Sum = Floats;
  static Weight weight(const std::uint8_t* p) {
    Weight w;
    each_lane([&](int i) {
      std::uint32_t pair;
      std::memcpy(&pair, p + 4 * i, 4);
      const std::uint32_t even = pair << 16, odd = pair & 0xFFFF0000u;
      std::memcpy(&w.even.lane[i], &even, 4);
      std::memcpy(&w.odd.lane[i], &odd, 4);
    });
    return w;
  }
  static Activation activation(const std::uint8_t* p) {
    Activation a;
    std::memcpy(&a, p, 8);
    return a;
  }
  static Sum start(float x) { return broadcast(x); }
  static void add(Sum& sum, const Weight& w, Activation a) {
    sum = multiply_add(w.odd, broadcast(a.odd), multiply_add(w.even, broadcast(a.even), sum));
  }
  static Floats floats(const Sum& sum) { return sum; }
};

struct Line {
  std::uint16_t word[32];
};
inline Line load_line(const std::uint8_t* p) {
  Line x;
  std::memcpy(x.word, p, 64);
  return x;
}
inline void store_line(std::uint8_t* p, const Line& x) { std::memcpy(p, x.word, 64); }
template <typename Body>
inline Line each_word(Body body) {
  Line x;
  for (int i = 0; i < 32; ++i) x.word[i] = static_cast<std::uint16_t>(body(i));
  return x;
}
inline Line either(const Line& a, const Line& b) {
  return each_word([&](int i) { return a.word[i] | b.word[i]; });
}
inline Line keep_words(const Line& x, int mask) {
  return each_word([&](int i) { return x.word[i] & mask; });
}
inline Line subtract_bytes(const Line& x, int y) {
  return each_word([&](int i) { return ((x.word[i] - y) & 0xFF) | ((x.word[i] & 0xFF00) - (y << 8)); });
}
inline Line keep_bytes(const Line& x, int mask) { return keep_words(x, mask | mask << 8); }
template <int kCount>
inline Line shift(const Line& x) {
  return each_word([&](int i) {
    return kCount >= 0 ? x.word[i] >> (kCount >= 0 ? kCount : 0) : x.word[i] << (kCount < 0 ? -kCount : 0);
  });
}

struct ByteTable {
  const std::uint8_t* bytes;
  explicit ByteTable(const std::uint8_t* table) : bytes(table) {}
  Line operator()(const Line& codes) const {
    return each_word([&](int i) { return bytes[codes.word[i] & 0xF] | bytes[codes.word[i] >> 8 & 0xF] << 8; });
  }
};

struct WordTable {
  const std::uint16_t* words;
  explicit WordTable(const std::uint16_t* table) : words(table) {}
  Line operator()(const Line& codes) const {
    return each_word([&](int i) { return words[codes.word[i] & 0x1F]; });
  }
};

template <int kBits>
struct PairTable {
  const std::uint16_t* words;
  explicit PairTable(const std::uint16_t* table) : words(table) {}
  void operator()(const Line& codes, Line& first, Line& second) const {
    std::uint8_t in[64];
    store_line(in, codes);
    for (int i = 0; i < 64; ++i) {
      const int sign = kBits == 8 ? (in[i] & 0x80) << 8 : 0;
      (i / 8 % 2 ? second : first).word[i / 16 * 8 + i % 8] = static_cast<std::uint16_t>(words[in[i] & 0x7F] | sign);
    }
  }
};

}  // namespace lowp::kernels::cpu::LOWP_ISA
