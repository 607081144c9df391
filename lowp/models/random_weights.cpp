#include "lowp/models/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>

#include "lowp/base/bits.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/recipes.h"
#include "lowp/ops/cast.h"

namespace lowp::models {
namespace {

constexpr std::int64_t kTable = 1048573;  // a prime: rows of no width start where another did

// FNV-1a: the same on every machine.
std::uint64_t hash(const std::string& text) {
  std::uint64_t h = 14695981039346656037u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return h;
}

// "model.layers..mlp.up_proj" of "model.layers.7.mlp.up_proj".
std::string without_numbers(const std::string& module) {
  std::string kind;
  for (const char c : module)
    if (c < '0' || c > '9') kind += c;
  return kind;
}

// Of codebook formats; fitting one is for real weights. Values are relative to the largest of their group.
std::vector<float> codebook_for(const formats::BlockFormat& format) {
  std::vector<float> table;
  if (format.rule == formats::Rule::codebook)
    for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 7.5f) / 7.5f);
  return table;
}

}  // namespace

RandomWeights::RandomWeights(const formats::Recipe& recipe, bool repeat)
    : recipe_(recipe), repeat_(repeat), table_(static_cast<std::size_t>(kTable)) {
  std::mt19937_64 rng(20260101);
  const auto uniform = [&] { return (static_cast<double>(rng() >> 11) + 0.5) * 0x1p-53; };
  for (std::uint16_t& code : table_) {  // Box and Muller's
    const double normal = std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
    code = static_cast<std::uint16_t>(
        float_bits(formats::round_to(formats::Elem::bf16, static_cast<float>(0.02 * normal))) >> 16);
  }
}

Tensor RandomWeights::values(const std::string& module, std::int64_t n, std::int64_t k) const {
  Tensor x(DType::bf16, {n, k});
  const auto start = static_cast<std::int64_t>(hash(module) % static_cast<std::uint64_t>(kTable));
  auto* const out = x.as<std::uint16_t>();
  parallel_for(n, ceil_div<std::int64_t>(1 << 16, k), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin * k; at < end * k;) {
      const std::int64_t from = (start + at) % kTable, count = std::min(kTable - from, end * k - at);
      std::memcpy(out + at, table_.data() + from, static_cast<std::size_t>(count) * 2);
      at += count;
    }
  });
  return x;
}

std::vector<float> RandomWeights::vector(const std::string&, std::int64_t size) {
  return std::vector<float>(static_cast<std::size_t>(size), 1.0f);
}

ops::LinearWeight RandomWeights::quantized(const std::string& module, std::int64_t n, std::int64_t k,
                                           const formats::Recipe& recipe) {
  constexpr float kCalibrated = 0.05f;  // any multiplier will do
  linear_bytes_ += static_cast<std::uint64_t>(formats::bits_per_weight(recipe.weight, n, k, formats::Elem::bf16) / 8 *
                                              static_cast<double>(n * k));
  ops::LinearWeight made;
  if (repeat_) {
    made.equal_to = without_numbers(module);
    if (!made_.insert(made.equal_to).second) {
      made.weight = TensorView{DType::bf16, {n, k}, {}};
      return made;
    }
  }
  Tensor x = values(module, n, k);
  if (recipe.keeps()) {
    made.weight = x.view();  // of memory that moves along
    made.holder = std::move(x);
    return made;
  }
  ops::CastOptions options;
  options.name = module + ".weight";
  if (recipe.activation && recipe.activation->scope == formats::Scope::calibrated) made.activation_scale = kCalibrated;
  made.weight = ops::quantize(x.view(), recipe.weight, options, codebook_for(recipe.weight));
  made.recipe = recipe;
  return made;
}

// Biases are few: they are left out.
ops::LinearWeight RandomWeights::linear(const std::string& module, std::int64_t n, std::int64_t k, bool) {
  return quantized(module, n, k, recipe_);
}

ops::LinearWeight RandomWeights::router(const std::string& module, std::int64_t n, std::int64_t k, bool) {
  return quantized(module, n, k, formats::recipe("bf16"));
}

ops::LinearWeight RandomWeights::head(const std::string& module, std::int64_t n, std::int64_t k,
                                      const LoadOptions& options) {
  return quantized(module, n, k, options.head_as_others ? recipe_ : options.head.value_or(formats::recipe("bf16")));
}

TensorView RandomWeights::embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) {
  holder = values(module, n, k);
  return holder.view();
}

}  // namespace lowp::models
