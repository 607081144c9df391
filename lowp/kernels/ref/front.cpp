#include "lowp/kernels/ref/front.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lowp/formats/codec.h"
#include "lowp/kernels/front.h"
#include "lowp/kernels/head_hadamard.h"

namespace lowp::kernels::ref {
namespace {

using formats::Elem;
using formats::round_to;

// body(element index, values of `inputs`) for each element, its result rounded and stored.
template <typename Body>
Tensor each(const TensorView& x, const Body& body) {
  const Elem type = element_of(x.dtype);
  std::vector<float> values(static_cast<std::size_t>(element_count(x.shape)));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = round_to(type, body(static_cast<std::int64_t>(i), load_one(x, static_cast<std::int64_t>(i))));
  Tensor out(x.dtype, x.shape);
  store_rounded(out, 0, values);
  return out;
}

// v[i] += v[i + half], then of the halves: what lanes of a warp compute by exchange.
float fold(float* v, int count) {
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

float sum_of_squares(const float* x, std::int64_t k) {
  const int lanes = norm_lanes(k);
  std::vector<float> sums(static_cast<std::size_t>(lanes));
  for (std::int64_t i = 0; i < k; ++i) sums[static_cast<std::size_t>(i / 8 % lanes)] += x[i] * x[i];
  float warps[32] = {};
  for (int w = 0; w < lanes / 32; ++w) warps[w] = fold(sums.data() + 32 * w, 32);
  return fold(warps, 32);
}

void rotate(const HeadsCast& h, std::int64_t position, float* v) {
  const std::int64_t half = h.dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    float &a = v[h.interleaved ? 2 * i : i], &b = v[h.interleaved ? 2 * i + 1 : i + half];
    const float c = h.cos[position * half + i], s = h.sin[position * half + i], x1 = a, x2 = b;
    a = std::fma(x1, c, -(x2 * s));
    b = std::fma(x2, c, x1 * s);
  }
}

}  // namespace

Tensor rms_norm(const TensorView& x, const TensorView& weight, float eps, bool round_quotient) {
  const Elem type = element_of(x.dtype);
  const std::int64_t k = x.shape.back();
  std::vector<float> row(static_cast<std::size_t>(k));
  float scale = 0;
  return each(x, [&](std::int64_t i, float value) {
    if (i % k == 0) {
      load_f32(x, i, k, row.data());
      scale = 1.0f / std::sqrt(sum_of_squares(row.data(), k) / static_cast<float>(k) + eps);
    }
    const float quotient = value * scale;
    return load_one(weight, i % k) * (round_quotient ? round_to(type, quotient) : quotient);
  });
}

Tensor silu_mul(const TensorView& gate, const TensorView& up) {
  const Elem type = element_of(gate.dtype);
  return each(gate, [&](std::int64_t i, float x) { return round_to(type, silu(x)) * load_one(up, i); });
}

Tensor relu(const TensorView& x) {
  return each(x, [](std::int64_t, float v) { return v <= 0 ? 0.0f : v; });
}

HeadsResult rope_cast(const TensorView& x, const HeadsCast& h) {
  const Elem type = element_of(x.dtype);
  const std::int64_t scales = h.heads / h.heads_per_scale, vectors = h.batch * h.seq * h.heads;
  std::vector<float> values(static_cast<std::size_t>(vectors * h.dim));
  load_f32(x, 0, vectors * h.dim, values.data());
  std::vector<float> amax(static_cast<std::size_t>(h.batch * scales));
  const auto scale_of = [&](std::int64_t vector) {
    return vector / h.heads / h.seq * scales + vector % h.heads / h.heads_per_scale;
  };
  for (std::int64_t i = 0; i < vectors; ++i) {
    float* v = values.data() + i * h.dim;
    if (h.cos) rotate(h, i / h.heads % h.seq, v);
    if (h.hadamard) hadamard_head(v, h.dim);
    float& most = amax[static_cast<std::size_t>(scale_of(i))];
    for (std::int64_t d = 0; d < h.dim; ++d) most = std::max(most, std::fabs(v[d]));
  }
  HeadsResult result{Tensor(DType::f8_e4m3, {h.batch, h.heads, h.seq, h.dim}), Tensor(DType::f32, {h.batch, scales})};
  for (std::size_t i = 0; i < amax.size(); ++i)
    result.descale.as<float>()[i] = amax[i] <= 1e-12f ? 1.0f : amax[i] / 448.0f;
  for (std::int64_t i = 0; i < vectors; ++i) {
    const float most = amax[static_cast<std::size_t>(scale_of(i))], scale = most <= 1e-12f ? 1.0f : 448.0f / most;
    const std::int64_t batch = i / h.heads / h.seq, position = i / h.heads % h.seq, head = i % h.heads;
    auto* out = result.codes.as<std::uint8_t>() + ((batch * h.heads + head) * h.seq + position) * h.dim;
    for (std::int64_t d = 0; d < h.dim; ++d)
      out[d] = static_cast<std::uint8_t>(
          formats::encode(Elem::e4m3, round_to(type, values[static_cast<std::size_t>(i * h.dim + d)]) * scale));
  }
  return result;
}

}  // namespace lowp::kernels::ref
