#include "lowp/kernels/cuda/gemm_rebase.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"

namespace lowp::kernels::cuda {
namespace {

using formats::Elem;
using formats::Rule;

// Codes of a group under its scale in a base: what they become, and what that loses.
struct Step {
  std::array<std::uint8_t, 256> code{};
  std::array<double, 256> value{}, lost{};  // squares, in units of the base

  Step(Elem element, double factor) {
    for (std::uint32_t c = 0; c <= formats::info(element).code_mask(); ++c) {
      const double exact = formats::decode(element, c) * factor;
      const std::uint32_t kept = formats::encode(Elem::e4m3, static_cast<float>(exact));
      const double off = formats::decode(Elem::e4m3, kept) - exact;
      code[c] = static_cast<std::uint8_t>(kept);
      value[c] = exact * exact;
      lost[c] = off * off;
    }
  }
};

class Rows {
 public:
  explicit Rows(const QuantizedMatrix& w)
      : w_(w), groups_(w.format.scale_cols(w.k)), magnitude_(formats::info(w.format.element).code_mask() >> 1) {}

  // The exponent of a row's base; nullopt where a scale is not a number.
  std::optional<int> base(std::int64_t row) const {
    int most = -1000;
    for (std::int64_t g = 0; g < groups_; ++g) {
      const std::optional<double> scale = scale_of(scale_code(row, g));
      if (!scale) return std::nullopt;
      std::uint32_t code_of_largest = 0;  // magnitudes are in the order of their codes
      each(row, g,
           [&](std::int64_t, std::uint8_t code) { code_of_largest = std::max(code_of_largest, code & magnitude_); });
      const float largest = formats::decode(w_.format.element, code_of_largest);
      if (largest == 0 || *scale == 0) continue;
      int exponent = 0;
      const double part = std::frexp(largest * *scale, &exponent);  // [0.5, 1)
      most = std::max(most, exponent - (part <= 448.0 / 512 ? 9 : 8));
    }
    return most == -1000 ? 0 : most;
  }

  // Its codes, and what they lose.
  double rebase(std::int64_t row, int base, std::uint8_t* codes) {
    double most = 0, value = 0, lost = 0;
    for (std::int64_t g = 0; g < groups_; ++g) {
      const Step& step = step_of(scale_code(row, g), base);
      each(row, g, [&](std::int64_t c, std::uint8_t code) {
        codes[c] = step.code[code];
        value += step.value[code];
        lost += step.lost[code];
      });
      if ((g + 1) * w_.format.group_cols % 128 && g + 1 < groups_) continue;
      if (lost > 0) most = std::max(most, lost / value);
      value = lost = 0;
    }
    return std::sqrt(most);
  }

 private:
  std::uint8_t scale_code(std::int64_t row, std::int64_t g) const {
    return reinterpret_cast<const std::uint8_t*>(w_.scale.bytes().data())[row * groups_ + g];
  }
  std::optional<double> scale_of(std::uint8_t code) const {
    if (w_.format.rule == Rule::mx) {
      if (code == 255) return std::nullopt;
      return std::ldexp(1.0, code - 127);
    }
    const float scale = formats::decode(Elem::e4m3, code);
    if (!(scale >= 0)) return std::nullopt;
    return scale;
  }
  const Step& step_of(std::uint8_t scale, int base) {
    const auto found = steps_.find({scale, base});
    if (found != steps_.end()) return found->second;
    return steps_.try_emplace({scale, base}, w_.format.element, *scale_of(scale) * std::ldexp(1.0, -base))
        .first->second;
  }
  template <typename F>
  void each(std::int64_t row, std::int64_t g, const F& f) const {
    const auto* codes = reinterpret_cast<const std::uint8_t*>(w_.codes.bytes().data());
    const std::int64_t from = g * w_.format.group_cols, to = std::min(w_.k, from + w_.format.group_cols);
    for (std::int64_t c = from; c < to; ++c) {
      const std::int64_t at = row * w_.k + c;
      f(c, w_.format.two_codes_a_byte() ? codes[at / 2] >> (4 * (at & 1)) & 15 : codes[at]);
    }
  }

  const QuantizedMatrix& w_;
  const std::int64_t groups_;
  const std::uint32_t magnitude_;
  std::map<std::pair<std::uint8_t, int>, Step> steps_;
};

}  // namespace

bool rebases(const formats::BlockSpec& f) { return f.rule == Rule::mx && f.element != Elem::e5m2; }

std::optional<RebasedWeight> rebase_weight(const QuantizedMatrix& w, std::string* why) {
  LOWP_CHECK(rebases(w.format) || w.format.rule == Rule::nvfp4, "{} has no base of rows", w.format.name);
  RebasedWeight out;
  out.codes.resize(static_cast<std::size_t>(w.m * w.k));
  out.scale.resize(static_cast<std::size_t>(w.m));
  std::atomic<const char*> wrong = nullptr;
  std::vector<double> lost(static_cast<std::size_t>(w.m));
  parallel_for(w.m, 16, [&](std::int64_t begin, std::int64_t end) {
    Rows rows(w);
    for (std::int64_t row = begin; row < end; ++row) {
      const std::optional<int> base = rows.base(row);
      const double scale = base ? std::ldexp(static_cast<double>(w.tensor_scale), *base) : 0;
      if (!base) {
        wrong = "a scale that is not a number";
      } else if (!(scale >= 0x1p-126 && scale <= 0x1p126)) {
        wrong = "a row whose power of two is beyond f32";
      } else {
        out.scale[static_cast<std::size_t>(row)] = static_cast<float>(scale);
        lost[static_cast<std::size_t>(row)] = rows.rebase(row, *base, out.codes.data() + row * w.k);
      }
    }
  });
  if (wrong) {
    *why = wrong;
    return std::nullopt;
  }
  out.lost = w.m ? *std::max_element(lost.begin(), lost.end()) : 0;
  return out;
}

}  // namespace lowp::kernels::cuda
