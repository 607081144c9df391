// The casts in vectors: formats/quantize.h row by row, a chunk of groups at a time.
#pragma once

#include <algorithm>

#include "lowp/kernels/cpu/cast_decode.h"
#include "lowp/kernels/cpu/cast_rules.h"
#include "lowp/kernels/group.h"

namespace lowp::kernels::cpu::LOWP_ISA {

constexpr std::int64_t kStep = 2 * kLanes;  // elements at a time

inline const char* address(const TensorView& x, std::int64_t element) {
  return reinterpret_cast<const char*>(x.bytes.data()) + element * (formats::info(element_of(x.dtype)).bits / 8);
}

/// Stores the codes of a pair one after the other.
template <int bits>
void store_codes(char* out, Ints even, Ints odd) {
  if constexpr (bits == 4)
    store_low_bytes(out, choose(all(0x0F), even, odd << 4));
  else if constexpr (bits == 16)
    store_words(out, choose(all(0xFFFF), even, odd << 16));
  else
    store_low_words(out, choose(all(0xFF), even, odd << 8));
}

/// The way through a matrix. A rule's part is virtual and called for some thousand values at a time, so that the rest
/// is compiled once for each input type and not for each of two dozen rules.
template <class In>
class Quantizer {
 public:
  Quantizer(const QuantizeTask& task, Look look)
      : task_(task),
        look_(look),
        format_(task.out->format),
        k_(task.out->k),
        width_(!format_.has_scale() || format_.group_cols == 0 ? k_ : format_.group_cols),
        groups_(ceil_div(k_, width_)),
        narrow_(width_ > 1 && width_ < kStep && kStep % width_ == 0) {
    for (int i = 0; i < kLanes && narrow_; ++i) group_of_lane_[i] = static_cast<std::int32_t>(2 * i / width_);
  }

  bool run(std::int64_t row_begin, std::int64_t row_end) {
    if (format_.has_scale() && format_.group_rows == 0) return whole(row_begin, row_end);
    const std::int64_t height = format_.has_scale() ? format_.group_rows : 1;
    // As many groups at a time as let their values stay in the first- or, with many rows, second-level cache.
    const std::int64_t most = height == 1 ? 4096 : 1024;
    const std::int64_t count =
        std::clamp<std::int64_t>(most / width_ / kLanes * kLanes, height == 1 ? kLanes : 8, kGroups);
    bool all_finite = true;
    for (std::int64_t top = row_begin; top < row_end; top += height)
      for (std::int64_t g = 0; g < groups_; g += count)
        all_finite &= tile(top, std::min(height, row_end - top), g, static_cast<int>(std::min(count, groups_ - g)));
    return all_finite;
  }

 protected:
  ~Quantizer() = default;

  // The parameters of the first `count` groups of the chunk.
  virtual void fit(int count) = 0;
  // Codes of `count` groups from g of a row.
  virtual void encode(std::int64_t row, std::int64_t g, int count) const = 0;

  const QuantizeTask& task_;
  const Look look_;
  const formats::BlockFormat& format_;
  const std::int64_t k_, width_, groups_;
  const bool narrow_;        // several groups in a step
  Ints group_of_lane_ = {};  // there
  Chunk chunk_{};

 private:
  // The parameters of the whole matrix are known.
  bool whole(std::int64_t row_begin, std::int64_t row_end) {
    std::fill_n(chunk_.least, kLanes, task_.matrix.min);
    std::fill_n(chunk_.most, kLanes, look_ == Look::magnitude ? task_.matrix.amax() : task_.matrix.max);
    fit(1);
    if (row_begin == 0) store_params(0, 1);
    for (std::int64_t r = row_begin; r < row_end; ++r) {
      if (chunk_.odd[0])
        quantize_group(task_, r, 1, 0, k_);
      else
        encode(r, 0, 1);
    }
    return true;
  }

  // Rows [top, top + rows) of `count` groups from g.
  bool tile(std::int64_t top, std::int64_t rows, std::int64_t g, int count) {
    const bool all_finite =
        look_ == Look::magnitude ? look<Look::magnitude>(top, rows, g, count) : look<Look::range>(top, rows, g, count);
    fit(count);
    if (format_.super_cols > 0) fit_super_blocks(count);
    if (format_.has_scale()) store_params(top / format_.group_rows * groups_ + g, count);
    for (std::int64_t r = top; r < top + rows; ++r) encode(r, g, count);
    for (int i = 0; i < count; ++i)
      if (chunk_.odd[i]) {
        const std::int64_t column = (g + i) * width_;
        quantize_group(task_, top, rows, column, std::min(width_, k_ - column));
      }
    return all_finite;
  }

  template <Look kind>
  bool look(std::int64_t top, std::int64_t rows, std::int64_t g, int count) {
    alignas(64) std::int32_t low[kGroups] = {}, high[kGroups] = {};
    Ints not_finite = {};
    for (std::int64_t r = top; r < top + rows; ++r) {
      const char* row = address(task_.x, r * k_);
      for (int i = 0; i < count; ++i) {
        const std::int64_t column = (g + i) * width_, size = std::min(width_, k_ - column);
        const char* x = row + column * In::kBytes;
        const Extremes found = kind == Look::magnitude ? magnitude<In>(x, size) : range<In>(x, size);
        low[i] = found.low;
        high[i] = found.high;
      }
      for (int i = 0; i < count; i += kLanes) {
        const Floats least = In::value(load(low + i)), most = In::value(load(high + i));
        not_finite |= ((bits(most) & kMagnitude) >= kInfinity) | ((bits(least) & kMagnitude) >= kInfinity);
        const bool first = r == top;
        // As integers in the order of values: NaN count as larger than infinity.
        store(chunk_.least + i,
              first ? least : floats(ordered(min_int(ordered(bits(least)), ordered(bits(load(chunk_.least + i)))))));
        store(chunk_.most + i,
              first ? most : floats(ordered(max_int(ordered(bits(most)), ordered(bits(load(chunk_.most + i)))))));
      }
    }
    return !any(not_finite);
  }

  void fit_super_blocks(int count) {
    const int groups = format_.super_cols / format_.group_cols;
    for (int g = 0; g < count; g += groups) {
      formats::GroupParams p[kGroups];
      for (int i = 0; i < groups; ++i) {
        p[i].scale = chunk_.scale[g + i];
        p[i].zero_point = chunk_.zero_point[g + i];
      }
      kernels::fit_super_block(format_, p, groups);
      for (int i = 0; i < groups; ++i) {
        chunk_.scale[g + i] = p[i].scale;
        chunk_.zero_point[g + i] = p[i].zero_point;
        chunk_.multiplier[g + i] = p[i].multiplier;
      }
    }
  }

  void store_params(std::int64_t at, int count) {
    QuantizedMatrix& out = *task_.out;
    if (formats::info(format_.scale).bits > 8) {
      std::memcpy(out.scale.as<float>() + at, chunk_.scale, static_cast<std::size_t>(count) * 4);
    } else {
      for (int i = 0; i < count; ++i)
        out.scale.as<std::uint8_t>()[at + i] = static_cast<std::uint8_t>(chunk_.scale_code[i]);
    }
    if (format_.zero_point == formats::ZeroPoint::integer)
      for (int i = 0; i < count; ++i)
        out.zero_point.as<std::int8_t>()[at + i] = static_cast<std::int8_t>(chunk_.zero[i]);
    if (format_.zero_point == formats::ZeroPoint::floating)
      std::memcpy(out.zero_point.as<float>() + at, chunk_.zero_point, static_cast<std::size_t>(count) * 4);
  }
};

template <class In, class Rule>
class RuleQuantizer final : public Quantizer<In> {
 public:
  explicit RuleQuantizer(const QuantizeTask& task)
      : Quantizer<In>(task, Rule::kLook),
        rule_(task),
        codes_(reinterpret_cast<char*>(task.out->codes.bytes().data())) {}

 private:
  using Quantizer<In>::chunk_;
  using Quantizer<In>::k_;
  using Quantizer<In>::width_;
  static constexpr int kCodeBits = Rule::kBits == 6 ? 8 : Rule::kBits;

  void fit(int count) final {
    for (int i = 0; i < count; i += kLanes) rule_.params(chunk_, i);
  }

  void encode(std::int64_t row, std::int64_t g, int count) const final {
    const std::int64_t first = row * k_ + g * width_, end = std::min((g + count) * width_, k_) - g * width_;
    const char* x = address(this->task_.x, first);
    char* out = codes_ + first * kCodeBits / 8;
    const auto to = [&](std::int64_t i) { return out + i * kCodeBits / 8; };
    if (this->narrow_) {
      std::int64_t i = 0;
      for (; i + kStep <= end; i += kStep)
        step(x + i * In::kBytes, to(i), lanes(static_cast<int>(i / width_), this->group_of_lane_));
      if (i < end)
        last_step(x + i * In::kBytes, to(i), end - i, lanes(static_cast<int>(i / width_), this->group_of_lane_));
      return;
    }
    for (int j = 0; j < count; ++j) {
      const Lane p = lane(j);
      const std::int64_t stop = std::min((j + 1) * width_, end);
      std::int64_t i = j * width_;
      for (; i + kStep <= stop; i += kStep) step(x + i * In::kBytes, to(i), p);
      if (i < stop) last_step(x + i * In::kBytes, to(i), stop - i, p);
    }
  }

  Lane lane(int i) const {
    return {all(chunk_.scale[i]), all(chunk_.multiplier[i]), all(chunk_.low[i]),
            all(chunk_.high[i]),  all(chunk_.zero_point[i]), all(chunk_.zero[i])};
  }
  Lane lanes(int i, Ints group) const {
    const auto each = [&](const float* values) { return permute(load(values + i), group); };
    return {each(chunk_.scale), each(chunk_.multiplier), each(chunk_.low),
            each(chunk_.high),  each(chunk_.zero_point), permute(load(chunk_.zero + i), group)};
  }

  void step(const char* x, char* out, const Lane& p) const {
    const Pair values = In::pair(x);
    store_codes<Rule::kBits>(out, rule_.code(values.even, p), rule_.code(values.odd, p));
  }

  // Fewer elements than a step.
  void last_step(const char* x, char* out, std::int64_t count, const Lane& p) const {
    char values[kStep * 4] = {}, codes[kStep * 2];
    std::memcpy(values, x, static_cast<std::size_t>(count * In::kBytes));
    step(values, codes, p);
    std::memcpy(out, codes, static_cast<std::size_t>(count * kCodeBits / 8));
  }

  const Rule rule_;
  char* const codes_;
};

template <class In>
bool quantize_from(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end) {
  const formats::BlockFormat& format = task.out->format;
  const auto with = [&]<class Rule>() { return RuleQuantizer<In, Rule>(task).run(row_begin, row_end); };
  const auto plain_or_mx = [&]<Elem e>() {
    return format.rule == formats::Rule::mx ? with.template operator()<Mx<In, e>>()
                                            : with.template operator()<Plain<In, e>>();
  };
  switch (format.rule) {
    case formats::Rule::plain:
    case formats::Rule::mx:
      switch (format.element) {
        case Elem::bf16:
          return with.template operator()<Plain<In, Elem::bf16>>();
        case Elem::f16:
          return with.template operator()<Plain<In, Elem::f16>>();
        case Elem::e4m3:
          return plain_or_mx.template operator()<Elem::e4m3>();
        case Elem::e5m2:
          return plain_or_mx.template operator()<Elem::e5m2>();
        case Elem::e3m2:
          return plain_or_mx.template operator()<Elem::e3m2>();
        case Elem::e2m3:
          return plain_or_mx.template operator()<Elem::e2m3>();
        case Elem::e2m1:
          return plain_or_mx.template operator()<Elem::e2m1>();
        default:
          return quantize_groups(task, row_begin, row_end);
      }
    case formats::Rule::nvfp4_training:  // not a format of inference
      return quantize_groups(task, row_begin, row_end);
    case formats::Rule::nvfp4:
      return with.template operator()<Nvfp4<In, Elem::e2m1>>();
    case formats::Rule::float8:
      return format.element == Elem::e4m3 ? with.template operator()<Float8<In, Elem::e4m3>>()
                                          : quantize_groups(task, row_begin, row_end);
    case formats::Rule::symmetric:
      return format.scale_in_input_dtype ? with.template operator()<Affine<In, true, true>>()
                                         : with.template operator()<Affine<In, true, false>>();
    case formats::Rule::asymmetric:
      return format.scale_in_input_dtype ? with.template operator()<Affine<In, false, true>>()
                                         : with.template operator()<Affine<In, false, false>>();
    case formats::Rule::tinygemm:
      return with.template operator()<Tinygemm<In>>();
    case formats::Rule::bias:
      return with.template operator()<FloatZero<In, false>>();
    case formats::Rule::shift:
      return with.template operator()<FloatZero<In, true>>();
    case formats::Rule::absmax:
      return with.template operator()<Absmax<In>>();
    case formats::Rule::sym8:
      return with.template operator()<Sym8<In>>();
    case formats::Rule::codebook:
      return with.template operator()<Codebook<In>>();
  }
  return true;
}

/// Calls body<In>() for the type of x.
template <class Body>
auto with_input(DType type, const Body& body) {
  if (type == DType::bf16) return body.template operator()<Bf16Input>();
  if (type == DType::f16) return body.template operator()<F16Input>();
  return body.template operator()<F32Input>();
}

inline bool quantize(const QuantizeTask& task, std::int64_t row_begin, std::int64_t row_end) {
  return with_input(task.x.dtype, [&]<class In>() { return quantize_from<In>(task, row_begin, row_end); });
}

inline MatrixStats stats(const TensorView& x, std::int64_t row_begin, std::int64_t row_end) {
  return with_input(x.dtype, [&]<class In>() {
    const std::int64_t k = x.shape.back();
    MatrixStats result;
    for (std::int64_t r = row_begin; r < row_end && k > 0; ++r) {
      const Extremes found = range<In>(address(x, r * k), k);
      const Floats low = In::value(all(found.low)), high = In::value(all(found.high));
      const bool whole = !any(((bits(low) & kMagnitude) >= kInfinity) | ((bits(high) & kMagnitude) >= kInfinity));
      result.values.merge({low[0], high[0], whole, false});
      for (std::int64_t c = 0; !whole && result.first_nonfinite < 0; ++c)
        if (!is_finite(load_one(x, r * k + c))) result.first_nonfinite = r * k + c;
    }
    return result;
  });
}

/// f32 codes are values; everything else is decoded.
inline bool is_f32(const QuantizedMatrix& in) { return in.format.element == Elem::f32; }

inline void dequantize(const QuantizedMatrix& in, DType output, std::int64_t row_begin, std::int64_t row_end,
                       std::byte* out) {
  const bool to_bf16 = output == DType::bf16;
  const std::int64_t k = in.k, size = to_bf16 ? 2 : 4;
  char* to = reinterpret_cast<char*>(out);
  const auto put = [&](std::int64_t column, std::int64_t count, Pair x) {
    const auto store_pair = [&](char* p) {
      if (to_bf16)
        store_words(p, choose(all(0xFFFF), bits(x.even) >> 16, bits(x.odd)));
      else
        store_f32_pair(p, x);
    };
    if (count == kStep) return store_pair(to + column * size);
    char staged[kStep * 4];
    store_pair(staged);
    std::memcpy(to + column * size, staged, static_cast<std::size_t>(count * size));
  };
  const Decoder d = decoder(in, to_bf16);
  if (is_f32(in)) {
    for (std::int64_t r = row_begin; r < row_end; ++r, to += k * size)
      for (std::int64_t c = 0; c < k; c += kStep) {
        const std::int64_t count = std::min(kStep, k - c);
        char staged[kStep * 4] = {};
        std::memcpy(staged, in.codes.as<float>() + r * k + c, static_cast<std::size_t>(count) * 4);
        const Pair x = load_f32_pair(staged);
        put(c, count, to_bf16 ? Pair{round_bf16_or_nan(x.even), round_bf16_or_nan(x.odd)} : x);
      }
    return;
  }
  with_decoding(in.format, [&]<formats::Rule rule, From from>() {
    RowParams params(in);
    for (std::int64_t r = row_begin; r < row_end; ++r, to += k * size) {
      params.load_row(in, r);
      decode_row<rule, from>(d, in, params, r, put);
    }
  });
}

/// Sums of a row in double, in kLanes / 2 lanes.
struct RowError {
  Doubles signal = {}, noise = {};
  void add(Doubles x, Doubles value) {
    signal += x * x;
    const Doubles error = x - value;
    noise += error * error;
  }
  static double total(Doubles x) {
    double sum = 0;
    for (int i = 0; i < kLanes / 2; ++i) sum += x[i];
    return sum;
  }
};

inline void errors(const TensorView& x, const QuantizedMatrix& in, std::int64_t row_begin, std::int64_t row_end,
                   double* signal, double* noise) {
  const Decoder d = decoder(in, false);
  with_input(x.dtype, [&]<class In>() {
    const auto measure = [&](std::int64_t r, const auto& decode) {
      RowError error;
      const char* row = address(x, r * in.k);
      decode([&](std::int64_t column, std::int64_t count, Pair value) {
        char staged[kStep * 4] = {};
        const char* at = row + column * In::kBytes;
        if (count < kStep) {  // beyond the end both are zero
          std::memcpy(staged, at, static_cast<std::size_t>(count * In::kBytes));
          at = staged;
          alignas(64) float values[kStep];
          store_f32_pair(values, value);
          std::fill(values + count, values + kStep, 0.0f);
          value = load_f32_pair(values);
        }
        const Pair original = In::pair(at);
        error.add(low_doubles(original.even), low_doubles(value.even));
        error.add(high_doubles(original.even), high_doubles(value.even));
        error.add(low_doubles(original.odd), low_doubles(value.odd));
        error.add(high_doubles(original.odd), high_doubles(value.odd));
      });
      signal[r - row_begin] = RowError::total(error.signal);
      noise[r - row_begin] = RowError::total(error.noise);
    };
    RowParams params(in);
    for (std::int64_t r = row_begin; r < row_end; ++r) {
      if (is_f32(in)) {
        measure(r, [&](const auto& take) {
          for (std::int64_t c = 0; c < in.k; c += kStep) {
            const std::int64_t count = std::min(kStep, in.k - c);
            char values[kStep * 4] = {};
            std::memcpy(values, in.codes.as<float>() + r * in.k + c, static_cast<std::size_t>(count) * 4);
            take(c, count, load_f32_pair(values));
          }
        });
        continue;
      }
      params.load_row(in, r);
      with_decoding(in.format, [&]<formats::Rule rule, From from>() {
        measure(r, [&](const auto& take) { decode_row<rule, from>(d, in, params, r, take); });
      });
    }
  });
}

}  // namespace lowp::kernels::cpu::LOWP_ISA
