// For tests of dialects: quantized matrices of random bits, folders written in a dialect, and comparison bit for bit.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/recipes.h"
#include "tests/temp_dir.h"

namespace lowp::checkpoint::testing {

inline QuantizedModule make_module(const std::string& name, const std::string& recipe, std::int64_t m, std::int64_t k,
                                   formats::Elem input = formats::Elem::bf16) {
  QuantizedModule module;
  module.name = name;
  module.recipe = formats::recipe(recipe);
  module.m = m;
  module.k = k;
  module.input = input;
  if (module.recipe.activation && module.recipe.activation->scope == formats::Scope::calibrated)
    module.activation_scale = 0.0123f;
  return module;
}

/// Random codes (NaN among them where the element has it) and parameters that the format can have.
inline QuantizedMatrix random_matrix(const QuantizedModule& module, std::uint32_t seed = 1) {
  const formats::BlockFormat& format = module.recipe.weight;
  const formats::ElementFormat& element = formats::info(format.element);
  std::mt19937 random(seed);
  const auto uniform = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const auto value = [&](float low, float high) {
    const float x = std::uniform_real_distribution<float>(low, high)(random);
    if (format.scale == formats::Elem::f16) return formats::round_to(formats::Elem::f16, x);
    return format.scale_in_input_dtype ? formats::round_to(module.input, x) : x;
  };
  QuantizedMatrix matrix;
  matrix.format = format;
  matrix.m = module.m;
  matrix.k = module.k;
  matrix.input = module.input;
  const bool packed = format.two_codes_a_byte(), is_signed = element.is_signed && !element.is_float();
  matrix.codes = Tensor(dtype_of(format.element), {module.m, packed ? module.k / 2 : module.k});
  const int bits = packed ? 8 : element.bits, low = is_signed ? -(1 << (bits - 1)) : 0;
  for (std::byte& byte : matrix.codes.bytes()) byte = static_cast<std::byte>(uniform(low, low + (1 << bits) - 1));

  const Shape groups = {format.scale_rows(module.m), format.scale_cols(module.k)};
  matrix.scale = Tensor(formats::info(format.scale).bits > 8 ? DType::f32 : dtype_of(format.scale), groups);
  for (std::int64_t i = 0; i < element_count(groups); ++i) {
    if (format.scale == formats::Elem::e8m0)
      matrix.scale.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(uniform(110, 135));
    else if (format.scale == formats::Elem::e4m3)
      matrix.scale.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(uniform(8, 126));
    else
      matrix.scale.as<float>()[i] = value(0.001f, 0.1f);
  }
  if (format.zero_point != formats::ZeroPoint::none)
    matrix.zero_point = Tensor(format.zero_point == formats::ZeroPoint::integer ? DType::i8 : DType::f32, groups);
  if (format.zero_point == formats::ZeroPoint::integer)
    for (std::byte& byte : matrix.zero_point.bytes())
      byte = static_cast<std::byte>(uniform(low, low + (1 << bits) - 1));
  if (format.zero_point == formats::ZeroPoint::floating)
    for (std::int64_t i = 0; i < element_count(groups); ++i) matrix.zero_point.as<float>()[i] = value(-1, 1);
  if (format.tensor_scale) matrix.tensor_scale = 0.000321f;
  if (format.rule == formats::Rule::codebook) {
    matrix.codebook = Tensor(DType::f32, {16});
    for (int i = 0; i < 16; ++i) matrix.codebook.as<float>()[i] = value(-1, 1);
  }
  if (module.pre_scaled) {
    matrix.pre_scale = Tensor(DType::f32, {module.k});
    for (std::int64_t i = 0; i < module.k; ++i) matrix.pre_scale.as<float>()[i] = value(0.5f, 2);
  }
  if (module.reordered) {
    matrix.column_order = Tensor(DType::i32, {module.k});
    auto* order = matrix.column_order.as<std::int32_t>();
    std::iota(order, order + module.k, 0);
    std::shuffle(order, order + module.k, random);
    const std::int64_t group = format.group_cols ? format.group_cols : module.k;
    for (std::int64_t g = 0; g < module.k; g += group) std::sort(order + g, order + g + group);
  }
  return matrix;
}

/// Tensors and JSON of a folder, to be changed by tests before it is written.
struct Contents {
  std::vector<TensorEntry> entries;
  std::vector<Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::optional<Json> config;  // config.json

  void add(const std::string& name, Tensor tensor) {
    entries.push_back({name, tensor.dtype(), tensor.shape()});
    tensors.push_back(std::move(tensor));
  }
  std::size_t index(const std::string& name) const {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.name == name; });
    EXPECT_NE(found, entries.end()) << name;
    return static_cast<std::size_t>(found - entries.begin());
  }
  void remove(const std::string& name) {
    const auto at = static_cast<std::ptrdiff_t>(index(name));
    entries.erase(entries.begin() + at);
    tensors.erase(tensors.begin() + at);
  }
  void replace(const std::string& name, Tensor tensor) {
    remove(name);
    add(name, std::move(tensor));
  }

  void write(const TempDir& folder) const {
    const std::string path = folder.write("model.safetensors", "");
    FileWriter out(path);
    SafetensorsWriter writer(out, entries, metadata);
    for (std::size_t i = 0; i < entries.size(); ++i) writer.append(entries[i].name, tensors[i].bytes());
    writer.finish();
    out.close();
    if (config) folder.write("config.json", config->dump());
  }
};

/// What a dialect makes of modules; a plain tensor and a kept Linear are beside them.
inline Contents contents(const Dialect& dialect, std::span<const QuantizedModule> modules,
                         std::span<const QuantizedMatrix> weights) {
  Contents result;
  std::map<std::string, std::vector<std::size_t>> units;
  for (std::size_t i = 0; i < modules.size(); ++i) units[dialect.unit(modules[i])].push_back(i);
  std::set<std::string> written;
  for (const QuantizedModule& first : modules) {
    if (!written.insert(dialect.unit(first)).second) continue;
    std::vector<QuantizedModule> unit;
    std::vector<QuantizedMatrix> matrices;
    for (const std::size_t i : units[dialect.unit(first)]) {
      unit.push_back(modules[i]);
      matrices.push_back(weights[i]);
    }
    std::vector<TensorEntry> layout = dialect.unit_layout(unit);
    std::vector<Tensor> tensors = dialect.unit_encode(unit, matrices);
    EXPECT_EQ(layout.size(), tensors.size());
    for (std::size_t j = 0; j < layout.size(); ++j) {
      EXPECT_EQ(layout[j].dtype, tensors[j].dtype()) << layout[j].name;
      EXPECT_EQ(layout[j].shape, tensors[j].shape()) << layout[j].name;
      result.add(layout[j].name, std::move(tensors[j]));
    }
  }
  result.add("model.norm.weight", Tensor(DType::bf16, {8}));
  result.add("lm_head.weight", Tensor(DType::bf16, {4, 8}));
  const std::string plain[] = {"model.norm.weight", "lm_head.weight"}, kept[] = {"lm_head"};
  result.metadata = dialect.metadata(modules, plain);
  result.config = Json{{"architectures", {"LlamaForCausalLM"}}, {"quantization_config", dialect.config(modules, kept)}};
  return result;
}

inline Contents contents(const Dialect& dialect, const QuantizedModule& module) {
  const QuantizedMatrix weight = random_matrix(module);
  return contents(dialect, {&module, 1}, {&weight, 1});
}

inline void expect_same(const Tensor& found, const Tensor& expected, const std::string& what) {
  EXPECT_EQ(found.dtype(), expected.dtype()) << what;
  EXPECT_EQ(found.shape(), expected.shape()) << what;
  EXPECT_TRUE(std::ranges::equal(found.bytes(), expected.bytes())) << what << " differs";
}

inline void expect_same(const QuantizedMatrix& found, const QuantizedMatrix& expected) {
  EXPECT_EQ(found.format.name, expected.format.name);
  EXPECT_EQ(found.m, expected.m);
  EXPECT_EQ(found.k, expected.k);
  EXPECT_EQ(found.input, expected.input);
  expect_same(found.codes, expected.codes, "codes");
  expect_same(found.scale, expected.scale, "scale");
  expect_same(found.zero_point, expected.zero_point, "zero_point");
  expect_same(found.codebook, expected.codebook, "codebook");
  expect_same(found.column_order, expected.column_order, "column_order");
  expect_same(found.pre_scale, expected.pre_scale, "pre_scale");
  EXPECT_EQ(found.tensor_scale, expected.tensor_scale);
}

/// Writes modules, reads them back through detection, and compares recipes and weights.
inline void expect_round_trip(const Dialect& dialect, std::span<const QuantizedModule> modules) {
  std::vector<QuantizedMatrix> weights;
  for (const QuantizedModule& module : modules)
    weights.push_back(random_matrix(module, static_cast<std::uint32_t>(weights.size()) + 1));
  const TempDir folder;
  contents(dialect, modules, weights).write(folder);
  const Checkpoint checkpoint(folder.path());
  ASSERT_TRUE(dialect.recognizes(checkpoint));
  const std::vector<QuantizedModule> found = dialect.modules(checkpoint);
  ASSERT_EQ(found.size(), modules.size());
  for (std::size_t i = 0; i < modules.size(); ++i) {
    EXPECT_EQ(found[i].name, modules[i].name);
    EXPECT_EQ(found[i].recipe.name, modules[i].recipe.name);
    EXPECT_EQ(found[i].m, modules[i].m);
    EXPECT_EQ(found[i].k, modules[i].k);
    EXPECT_EQ(found[i].input, modules[i].input);
    EXPECT_EQ(found[i].activation_scale, modules[i].activation_scale);
    EXPECT_EQ(found[i].reordered, modules[i].reordered);
    EXPECT_EQ(found[i].pre_scaled, modules[i].pre_scaled);
    expect_same(dialect.decode(checkpoint, found[i]), weights[i]);
  }
}

/// An Error with this code whose text has all these words.
inline void expect_error(ErrorCode code, const std::vector<std::string>& words, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words) EXPECT_PRED_FORMAT2(::testing::IsSubstring, word, error.what());
    return;
  }
  ADD_FAILURE() << "no error with " << (words.empty() ? "" : words[0]);
}

/// The error of reading modules (and their weights) from these contents.
inline void expect_unreadable(const Dialect& dialect, const Contents& changed, ErrorCode code,
                              const std::vector<std::string>& words) {
  const TempDir folder;
  changed.write(folder);
  const Checkpoint checkpoint(folder.path());
  expect_error(code, words, [&] {
    for (const QuantizedModule& module : dialect.modules(checkpoint)) dialect.decode(checkpoint, module);
  });
}

}  // namespace lowp::checkpoint::testing
