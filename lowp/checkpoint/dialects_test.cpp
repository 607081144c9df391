#include <gtest/gtest.h>

#include <set>

#include "lowp/checkpoint/dialect_testing.h"

namespace lowp::checkpoint {
namespace {

using testing::contents;
using testing::expect_error;
using testing::make_module;

std::string default_for(std::initializer_list<const char*> names) {
  std::vector<formats::Recipe> recipes;
  for (const char* name : names) recipes.push_back(formats::recipe(name));
  return default_dialect(recipes).name();
}

TEST(Dialects, AreFoundByName) {
  for (const Dialect* dialect : dialects())
    if (dialect->writes()) EXPECT_EQ(&find_dialect(dialect->name()), dialect);
  expect_error(ErrorCode::usage,
               {"'torcha'", "did you mean 'torchao'", "lowp writes compressed-tensors, torchao, gguf, lowp"},
               [] { find_dialect("torcha"); });
  expect_error(ErrorCode::usage, {"'mlx'"}, [] { find_dialect("mlx"); });  // is only read
}

TEST(Dialects, DefaultIsTheFirstThatHoldsAll) {
  EXPECT_EQ(default_for({}), "compressed-tensors");
  EXPECT_EQ(default_for({"fp8-fp8", "bf16"}), "compressed-tensors");
  EXPECT_EQ(default_for({"int4_g64_float-bf16", "fp8-fp8"}), "torchao");
  EXPECT_EQ(default_for({"codebook4_g64-bf16"}), "lowp");
  EXPECT_EQ(default_for({"int4_g64_float-bf16", "codebook4_g64-bf16"}), "lowp");
}

// No recipe without a home, and every dialect that accepts one can say how it lays it out.
TEST(Dialects, EveryRecipeHasOne) {
  for (const std::string& name : formats::recipe_names()) {
    const formats::Recipe recipe = formats::recipe(name);
    if (recipe.keeps()) continue;
    EXPECT_EQ(default_dialect({&recipe, 1}).refusal(recipe), "") << name;
    for (const Dialect* dialect : dialects()) {
      if (!dialect->refusal(recipe).empty()) continue;
      EXPECT_FALSE(dialect->layout(make_module("x", name, 128, 256)).empty()) << name;
    }
  }
}

TEST(Dialects, EachIsDetectedAndOnlyThatOne) {
  for (const Dialect* writer : dialects()) {
    if (!writer->writes() || writer->is_file()) continue;
    QuantizedModule module;
    for (const char* recipe : {"mxfp4-bf16", "fp8_block128-fp8_group128", "int4_g32-bf16", "int8-int8"})
      if (QuantizedModule held = make_module("model.layers.0.mlp.experts.0.down_proj", recipe, 128, 128);
          writer->obstacle(held).empty())
        module = held;
    const TempDir folder;
    contents(*writer, module).write(folder);
    const Checkpoint checkpoint(folder.path());
    EXPECT_EQ(detect_dialect(checkpoint), writer);
    for (const Dialect* dialect : dialects())
      EXPECT_EQ(dialect->recognizes(checkpoint), dialect == writer) << dialect->name();
  }
}

TEST(Dialects, PlainAndForeignCheckpoints) {
  testing::Contents plain;
  plain.add("model.norm.weight", Tensor(DType::bf16, {8}));
  const auto detect = [&](std::optional<Json> config) {
    plain.config = std::move(config);
    const TempDir folder;
    plain.write(folder);
    return detect_dialect(Checkpoint(folder.path()));
  };
  EXPECT_EQ(detect(std::nullopt), nullptr);
  EXPECT_EQ(detect(Json{{"hidden_size", 8}}), nullptr);
  EXPECT_EQ(detect(Json{{"quantization_config", nullptr}}), nullptr);
  expect_error(ErrorCode::unsupported, {"quant_method 'aqlm'"}, [&] {
    detect(Json{{"quantization_config", Json{{"quant_method", "aqlm"}}}});
  });
  expect_error(ErrorCode::unsupported, {"without quant_method"}, [&] {
    detect(Json{{"quantization_config", Json{{"bits", 4}}}});
  });
}

}  // namespace
}  // namespace lowp::checkpoint
