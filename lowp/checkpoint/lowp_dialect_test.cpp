#include <gtest/gtest.h>

#include "lowp/checkpoint/dialect_testing.h"

namespace lowp::checkpoint {
namespace {

using testing::Contents;
using testing::contents;
using testing::expect_round_trip;
using testing::expect_unreadable;
using testing::make_module;
using testing::random_matrix;

const std::string kName = "model.layers.0.mlp.up_proj";

std::string json(const Json& value) { return value.dump(); }

TEST(LowpDialect, RefusesNothing) {
  for (const std::string& recipe : formats::recipe_names())
    EXPECT_EQ(lowp_dialect().refusal(formats::recipe(recipe)), "") << recipe;
}

TEST(LowpDialect, RoundTripOfEveryRecipe) {
  for (const std::string& recipe : formats::recipe_names()) {
    SCOPED_TRACE(recipe);
    if (formats::recipe(recipe).keeps()) continue;
    const QuantizedModule module = make_module(kName, recipe, 12, 512);
    expect_round_trip(lowp_dialect(), {&module, 1});
  }
}

TEST(LowpDialect, RoundTripOfEveryDtype) {
  for (const std::string& recipe : formats::demo_recipe_names()) {
    SCOPED_TRACE(recipe);
    if (formats::recipe(recipe).keeps()) continue;
    for (const auto input : {formats::Elem::f16, formats::Elem::f32}) {
      const QuantizedModule module = make_module(kName, recipe, 3, 256, input);
      expect_round_trip(lowp_dialect(), {&module, 1});
    }
  }
}

TEST(LowpDialect, RowsOfOddLengthEndInTheirOwnByte) {
  for (const char* recipe :
       {"int1_channel-bf16", "int3_channel-bf16", "int4_channel_asym-bf16", "int7_channel-bf16", "fp8-fp8"})
    for (const std::int64_t k : {1, 2, 3, 5, 7, 8, 9, 37}) {
      SCOPED_TRACE(fmt::format("{} {}", recipe, k));
      const QuantizedModule module = make_module(kName, recipe, 3, k);
      expect_round_trip(lowp_dialect(), {&module, 1});
    }
}

TEST(LowpDialect, RaggedBlocks) {
  const QuantizedModule module = make_module(kName, "fp8_block128-bf16", 130, 256);
  expect_round_trip(lowp_dialect(), {&module, 1});
}

TEST(LowpDialect, MixedRecipesAndDtypes) {
  const QuantizedModule modules[] = {make_module("a", "int4_g32-bf16", 4, 64), make_module("b.c", "fp8-fp8", 4, 64),
                                     make_module("b.d", "int4_g32-bf16", 4, 64, formats::Elem::f32),
                                     make_module("e", "nvfp4-nvfp4_static", 4, 64),
                                     make_module("f", "int4_g32-bf16", 4, 64)};
  expect_round_trip(lowp_dialect(), modules);
  EXPECT_EQ(
      json(lowp_dialect().config(modules, {})),
      R"({"quant_method":"lowp","version":1,"default":"int4_g32-bf16","modules":{"b.c":"fp8-fp8","e":"nvfp4-nvfp4_static"},)"
      R"("dtype":"bf16","dtypes":{"b.d":"f32"},"kept":[]})");
}

// The schema, as docs/CHECKPOINTS.md describes it.
TEST(LowpDialect, Layout) {
  const auto layout = [](const std::string& recipe, formats::Elem input = formats::Elem::bf16) {
    std::string text;
    for (const TensorEntry& entry : lowp_dialect().layout(make_module("x", recipe, 5, 128, input)))
      text += fmt::format("{} {} {}; ", entry.name, name(entry.dtype), to_string(entry.shape));
    return text;
  };
  EXPECT_EQ(
      layout("int3_g32_asym-bf16"),
      "x.weight.data U8 [5, 48]; x.weight.shape I64 [2]; x.weight.scale BF16 [5, 4]; x.weight.zero_point I8 [5, 4]; ");
  EXPECT_EQ(
      layout("int4_g64_float-bf16", formats::Elem::f16),
      "x.weight.data U8 [5, 64]; x.weight.shape I64 [2]; x.weight.scale F16 [5, 2]; x.weight.zero_point F16 [5, 2]; ");
  EXPECT_EQ(
      layout("int8-int8_static"),
      "x.weight.data I8 [5, 128]; x.weight.shape I64 [2]; x.weight.scale F32 [5, 1]; x.activation_scale F32 [1]; ");
  EXPECT_EQ(layout("fp8_tensor-bf16"),
            "x.weight.data F8_E4M3 [5, 128]; x.weight.shape I64 [2]; x.weight.scale F32 [1, 1]; ");
  EXPECT_EQ(layout("mxfp8_e5m2-bf16"),
            "x.weight.data F8_E5M2 [5, 128]; x.weight.shape I64 [2]; x.weight.scale U8 [5, 4]; ");
  EXPECT_EQ(layout("mxfp6-mxfp6"), "x.weight.data U8 [5, 96]; x.weight.shape I64 [2]; x.weight.scale U8 [5, 4]; ");
  EXPECT_EQ(layout("nvfp4-bf16"),
            "x.weight.data U8 [5, 64]; x.weight.shape I64 [2]; x.weight.scale F8_E4M3 [5, 8]; x.weight.tensor_scale "
            "F32 [1]; ");
  EXPECT_EQ(
      layout("codebook4_g64-bf16"),
      "x.weight.data U8 [5, 64]; x.weight.shape I64 [2]; x.weight.scale F32 [5, 2]; x.weight.codebook F32 [16]; ");
}

TEST(LowpDialect, CodesAreABitStreamFromTheLowestBit) {
  const QuantizedModule module = make_module("x", "int3_channel-bf16", 1, 3);
  QuantizedMatrix matrix = random_matrix(module);
  const std::int8_t codes[] = {-1, 2, -4};  // 111, 010, 100: bits 0.. are 111 010 100 read upwards
  std::copy(std::begin(codes), std::end(codes), matrix.codes.as<std::int8_t>());
  const std::vector<Tensor> tensors = lowp_dialect().encode(module, matrix);
  EXPECT_EQ(tensors[0].as<std::uint8_t>()[0], 0b00'010'111);
  EXPECT_EQ(tensors[0].as<std::uint8_t>()[1], 0b1);
}

TEST(LowpDialect, AFileWithoutConfigDescribesItself) {
  const QuantizedModule module = make_module("x", "int5_g32-bf16", 4, 64, formats::Elem::f16);
  Contents alone = contents(lowp_dialect(), module);
  alone.config.reset();
  const TempDir folder;
  alone.write(folder);
  const Checkpoint checkpoint(folder / "model.safetensors");
  ASSERT_TRUE(lowp_dialect().recognizes(checkpoint));
  const auto found = lowp_dialect().modules(checkpoint);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].recipe.name, "int5_g32-bf16");
  EXPECT_EQ(found[0].input, formats::Elem::f16);
  testing::expect_same(lowp_dialect().decode(checkpoint, found[0]), random_matrix(module));
}

TEST(LowpDialect, TensorsThatDoNotFitTheRecipe) {
  const QuantizedModule module = make_module("x", "int4_g32-bf16", 4, 64);
  const auto broken = [&](const std::vector<std::string>& words, const std::function<void(Contents&)>& change) {
    Contents changed = contents(lowp_dialect(), module);
    change(changed);
    expect_unreadable(lowp_dialect(), changed, ErrorCode::bad_input, words);
  };
  broken({"model.safetensors", "'x.weight.data'", "expected I8 [4, 64] of int8-bf16", "found U8 [4, 32]"},
         [](Contents& c) { (*c.config)["quantization_config"]["default"] = "int8-bf16"; });
  broken({"'x.weight.scale'", "expected BF16 [4, 2] of int4_g32-bf16", "found F32 [4, 2]"}, [](Contents& c) {
    c.replace("x.weight.scale", Tensor(DType::f32, {4, 2}));
  });
  broken({"'x.weight.scale'", "is missing", "BF16 [4, 2]"}, [](Contents& c) { c.remove("x.weight.scale"); });
  broken({"'x.weight.zero_point'", "does not belong to recipe int4_g32-bf16"}, [](Contents& c) {
    c.add("x.weight.zero_point", Tensor(DType::i8, {4, 2}));
  });
  broken({"'x.weight.shape'", "shape [0, 0]", "[4, 32]"},
         [](Contents& c) { c.replace("x.weight.shape", Tensor(DType::i64, {2})); });
  broken({"'y' has recipe 'fp8-fp8'", "no tensor 'y.weight.data'"}, [](Contents& c) {
    (*c.config)["quantization_config"]["modules"] = Json{{"y", "fp8-fp8"}};
  });
  broken({"module 'x' has no recipe"}, [](Contents& c) { (*c.config)["quantization_config"].erase("default"); });
  broken({"expected dtype bf16, f16 or f32, found 'e4m3'"},
         [](Contents& c) { (*c.config)["quantization_config"]["dtype"] = "e4m3"; });
  broken({"'x' is quantized, but its recipe is bf16"},
         [](Contents& c) { (*c.config)["quantization_config"]["default"] = "bf16"; });
}

TEST(LowpDialect, ShapeThatDoesNotFitTheFormat) {
  Contents changed = contents(lowp_dialect(), make_module("x", "int4_g32-bf16", 4, 64));
  const std::int64_t shape[] = {4, 63};
  Tensor tensor(DType::i64, {2});
  std::memcpy(tensor.bytes().data(), shape, sizeof shape);
  changed.replace("x.weight.shape", std::move(tensor));
  expect_unreadable(lowp_dialect(), changed, ErrorCode::bad_input, {"K = 63 is not divisible by the group size 32"});
}

TEST(LowpDialect, FilesOfALaterLowp) {
  Contents changed = contents(lowp_dialect(), make_module("x", "int4_g32-bf16", 4, 64));
  (*changed.config)["quantization_config"]["default"] = "int4_g33x-bf16";
  expect_unreadable(lowp_dialect(), changed, ErrorCode::unsupported, {"module 'x'", "int4_g33x-bf16"});
  (*changed.config)["quantization_config"]["version"] = 2;
  expect_unreadable(lowp_dialect(), changed, ErrorCode::unsupported, {"version 2", "reads version 1"});
}

}  // namespace
}  // namespace lowp::checkpoint
