#include <algorithm>
#include <cmath>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/formats/codec.h"
#include "lowp/ops/attention.h"

namespace lowp::ops {
namespace {

using formats::Elem;
using kernels::cpu::kPageTokens;

std::size_t size_of(Elem type) { return type == Elem::f32 ? 4 : type == Elem::bf16 ? 2 : 1; }

// The layout of kernels/cpu/attention.h with pairs of 1 << shift.
template <typename T>
struct PagePlaces {
  T* keys;
  T* values;
  std::int64_t slot, dim, shift;

  void set_key(std::int64_t i, T value) { keys[(((i >> shift) * kPageTokens + slot) << shift) + (i & shift)] = value; }
  void set_value(std::int64_t i, T value) { values[(((slot >> shift) * dim + i) << shift) + (slot & shift)] = value; }
};

// NaN if not all are finite, so that what they reach is not a number either.
float scale_of(std::span<const float> x, float largest_code) {
  float amax = 0;
  for (const float v : x) {
    if (!is_finite(v)) return NAN;
    amax = std::max(amax, std::fabs(v));
  }
  return amax / largest_code;
}

std::uint8_t int8_code(float x) {
  return static_cast<std::uint8_t>(static_cast<std::int8_t>(std::clamp(formats::round_half_even(x), -127.0f, 127.0f)));
}
std::uint8_t e4m3_code(float x) { return static_cast<std::uint8_t>(formats::encode(Elem::e4m3, x)); }

}  // namespace

KvLayout::KvLayout(Elem compute, Elem type, std::int64_t kv_heads, std::int64_t head_dim, kernels::cpu::Isa isa)
    : kernel_(&kernels::cpu::attention_kernel(isa, compute == Elem::bf16 && type != Elem::f32)),
      type_(type),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      padded_dim_(round_up<std::int64_t>(head_dim, 32)),
      element_bytes_(static_cast<std::size_t>(page_elements()) * size_of(type)),
      scale_bytes_(scaled() ? kPageTokens * sizeof(float) : 0) {
  LOWP_CHECK(type == Elem::f32 || type == Elem::bf16 || scaled(), "keys and values of another type");
}

void KvLayout::store(std::byte* page, std::int64_t kv_head, std::int64_t slot, const float* key,
                     const float* value) const {
  const auto parts = [&]<typename T>(T) {
    return PagePlaces<T>{reinterpret_cast<T*>(page + keys_at(kv_head)), reinterpret_cast<T*>(page + values_at(kv_head)),
                         slot, padded_dim_, kernel_->bf16 ? 1 : 0};
  };
  const auto fill = [&](auto to, auto encode_key, auto encode_value) {
    for (std::int64_t i = 0; i < head_dim_; ++i) {
      to.set_key(i, encode_key(key[i]));
      to.set_value(i, encode_value(value[i]));
    }
  };
  const auto upper_half = [](float x) {
    return static_cast<std::uint16_t>(float_bits(formats::round_to(Elem::bf16, x)) >> 16);
  };
  if (type_ == Elem::f32) return fill(parts(float{}), std::identity(), std::identity());
  if (type_ == Elem::bf16) return fill(parts(std::uint16_t{}), upper_half, upper_half);
  const auto count = static_cast<std::size_t>(head_dim_);
  const float largest = type_ == Elem::int8 ? 127.0f : 448.0f;
  const float key_scale = scale_of({key, count}, largest), value_scale = scale_of({value, count}, largest);
  reinterpret_cast<float*>(page + key_scales_at(kv_head))[slot] = key_scale;
  reinterpret_cast<float*>(page + value_scales_at(kv_head))[slot] = value_scale;
  const auto code = type_ == Elem::int8 ? &int8_code : &e4m3_code;
  const auto over = [code](float scale) {
    return [=](float x) { return scale > 0 ? code(x / scale) : std::uint8_t{0}; };
  };
  fill(parts(std::uint8_t{}), over(key_scale), over(value_scale));
}

}  // namespace lowp::ops
