#include "bench/cast_cases.h"

#include <algorithm>
#include <random>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "lowp/ops/cast.h"

namespace lowp::bench {
namespace {

using formats::BlockFormat;

// The formats that stand for all: weights and activations of the demo's recipes.
std::vector<std::string> demo_formats() {
  std::vector<std::string> names;
  const auto add = [&](const BlockFormat& format) {
    if (format.has_scale() && std::find(names.begin(), names.end(), format.name) == names.end())
      names.push_back(format.name);
  };
  for (const std::string& name : formats::demo_recipe_names()) {
    const formats::Recipe recipe = formats::recipe(name);
    add(recipe.weight);
    if (recipe.activation) add(recipe.activation->format);
  }
  return names;
}

// Normal values with a few large ones, as weights have; cheap and always the same.
Tensor input(DType type, std::int64_t m, std::int64_t k) {
  constexpr std::int64_t kPeriod = 1 << 16;
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(kPeriod + 61);  // no power of two: rows differ
  for (float& v : values) v = normal(rng);
  Tensor x(type, {m, k});
  const std::int64_t count = m * k, period = static_cast<std::int64_t>(values.size());
  for (std::int64_t i = 0; i < count; i += period)
    store_rounded(x, i, std::span(values).first(static_cast<std::size_t>(std::min(period, count - i))));
  return x;
}

std::vector<float> table_for(const BlockFormat& format) {
  std::vector<float> table;
  if (format.rule == formats::Rule::codebook)
    for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 8);
  return table;
}

std::uint64_t stored_bytes(const QuantizedMatrix& q) {
  return q.codes.bytes().size() + q.scale.bytes().size() + q.zero_point.bytes().size();
}

// A scale over the whole matrix needs a look at all of it before the first code.
bool reads_twice(const BlockFormat& format) { return format.tensor_scale || format.group_rows == 0; }

std::string spelled(const char* op, DType type) { return fmt::format("{}:{}", op, formats::name(element_of(type))); }

}  // namespace

std::vector<Case> cast_cases(const Selection& selection) {
  const std::int64_t m = selection.m.value_or(kCastRows), k = selection.k.value_or(kCastColumns);
  const DType type = selection.dtype;
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? demo_formats() : selection.recipes) {
    const BlockFormat format = formats::block_format(name);
    if (const std::string wrong = formats::misfit(format, m, k); !wrong.empty())
      fail(ErrorCode::usage, "{}: {}", name, wrong);
    const std::uint64_t in = byte_count(type, {m, k});
    const std::uint64_t out = stored_bytes(ops::allocate(format, element_of(type), m, k, name));
    const auto add = [&](const char* op, std::uint64_t bytes, std::function<std::function<void()>()> prepare) {
      cases.push_back({spelled(op, type), format.name, m, 0, k, bytes, 0, "copy", std::move(prepare)});
    };
    add("cast", in * (reads_twice(format) ? 2 : 1) + out, [=] {
      const auto x = std::make_shared<Tensor>(input(type, m, k));
      const auto q = std::make_shared<QuantizedMatrix>(ops::allocate(format, element_of(type), m, k, format.name));
      return [=] { ops::quantize_into(*q, x->view(), {}, table_for(format)); };
    });
    const DType output = type == DType::f16 ? DType::bf16 : type;
    add("dequantize", byte_count(output, {m, k}) + out, [=] {
      const auto q =
          std::make_shared<QuantizedMatrix>(ops::quantize(input(type, m, k).view(), format, {}, table_for(format)));
      const auto y = std::make_shared<Tensor>(output, Shape{m, k});
      return [=] { ops::dequantize_into(*y, *q); };
    });
  }
  return cases;
}

}  // namespace lowp::bench
