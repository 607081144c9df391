#include <gtest/gtest.h>

#include "lowp/checkpoint/dialect_testing.h"
#include "lowp/formats/scale_layout.h"

namespace lowp::checkpoint {
namespace {

using testing::Contents;
using testing::contents;
using testing::expect_error;
using testing::expect_round_trip;
using testing::expect_unreadable;
using testing::make_module;
using testing::random_matrix;

const std::string kName = "model.layers.0.mlp.up_proj";

std::vector<std::string> held() {
  std::vector<std::string> names;
  for (const std::string& name : formats::recipe_names())
    if (const formats::Recipe recipe = formats::recipe(name);
        !recipe.keeps() && torchao_dialect().refusal(recipe).empty())
      names.push_back(name);
  return names;
}

// The recipe that reading gives when our note is gone.
std::string derived(const Contents& written, const std::string& note = "") {
  Contents changed = written;
  if (note.empty())
    changed.metadata.erase(kRecipesKey);
  else
    changed.metadata[kRecipesKey] = note;
  const TempDir folder;
  changed.write(folder);
  return torchao_dialect().modules(Checkpoint(folder.path())).at(0).recipe.name;
}

// Changes the description of the only module.
void describe(Contents& contents, const std::function<void(Json&)>& change) {
  for (auto& [key, text] : contents.metadata)
    if (text.find("_tensor_data_names") != std::string::npos) {
      Json json = parse_json(text, key);
      change(json);
      text = json.dump();
    }
}

TEST(Torchao, RoundTripOfEveryRecipeItHolds) {
  const std::vector<std::string> names = held();
  EXPECT_GT(names.size(), 60u);
  for (const std::string& recipe : names) {
    SCOPED_TRACE(recipe);
    const QuantizedModule module = make_module(kName, recipe, 128, 512);
    expect_round_trip(torchao_dialect(), {&module, 1});
  }
}

TEST(Torchao, RoundTripOfEveryDtype) {
  for (const char* recipe :
       {"fp8-fp8", "int8-bf16", "int3_g32_asym-bf16", "int4_g64_float-bf16", "mxfp4-mxfp4", "nvfp4-bf16"})
    for (const auto input : {formats::Elem::f16, formats::Elem::f32}) {
      SCOPED_TRACE(recipe);
      const QuantizedModule module = make_module(kName, recipe, 128, 512, input);
      expect_round_trip(torchao_dialect(), {&module, 1});
    }
}

TEST(Torchao, RecipesFollowFromTheClassesToo) {
  for (const std::string& recipe : held()) {
    SCOPED_TRACE(recipe);
    std::string expected = recipe;  // only that HQQ chose the zero points is not in the tensors
    if (const auto hqq = expected.find("_hqq"); hqq != std::string::npos) expected.erase(hqq, 4);
    EXPECT_EQ(derived(contents(torchao_dialect(), make_module(kName, recipe, 128, 512))), expected);
  }
}

TEST(Torchao, AGroupOfAWholeRowIsToldApartByTheNote) {
  const Contents written = contents(torchao_dialect(), make_module("x", "int4_g64-bf16", 4, 64));
  EXPECT_EQ(derived(written), "int4_channel-bf16");
  EXPECT_EQ(derived(written, R"({"x":"int4_g64-bf16"})"), "int4_g64-bf16");
  EXPECT_EQ(derived(written, R"({"x":"int4_g64_asym-bf16"})"), "int4_g64_asym-bf16");  // all zero points happen to be 0
}

TEST(Torchao, MixedRecipes) {
  const QuantizedModule modules[] = {make_module("a.x", "int4_g32-bf16", 4, 64), make_module("a.y", "fp8-fp8", 4, 64),
                                     make_module("lm_head2", "int4_g32-bf16", 4, 64, formats::Elem::f16),
                                     make_module("b", "nvfp4-nvfp4_static", 4, 64)};
  expect_round_trip(torchao_dialect(), modules);
  const Json config = torchao_dialect().config(modules, {})["quant_type"]["default"];
  EXPECT_EQ(config["_type"], "FqnToConfig");
  const Json& by_name = config["_data"]["fqn_to_config"];
  ASSERT_EQ(by_name.size(), 3u);
  EXPECT_EQ(by_name["_default"]["_type"], "IntxWeightOnlyConfig");
  EXPECT_EQ(by_name["a.y"]["_type"], "Float8DynamicActivationFloat8WeightConfig");
  EXPECT_EQ(by_name["b"]["_data"]["step"], "convert");
}

TEST(Torchao, Refusals) {
  const std::pair<const char*, const char*> refused[] = {
      {"fp8_block128-fp8_group128", "cannot load a Float8Tensor whose activations are quantized in blocks"},
      {"fp8_tensor-fp8_static", "no class for fp8 activations with a fixed scale"},
      {"int8_g32-int8_g32", "only by int8 weights with one scale for a channel"},
      {"int4_g32-int8", "IntxUnpackedToInt8Tensor has no activations in int8"},
      {"int4_g32-int8_g32", "IntxUnpackedToInt8Tensor has no activations in int8_g32"},
      {"int4_g128_sym8-fp8", "scales in the dtype of the model, int4_g128_sym8 in f32"},
      {"int4_g7_float-bf16", "the group size 7 should be even"},
      {"mxfp4-mxfp8", "the same element"},
      {"mxfp4-bf16", "quantized on the weight side only"},
      {"mxfp4-int8", "MXTensor has no activations in int8"},
      {"nvfp4-nvfp4", "no second-level scale for each token"},
      {"nvfp4-int8_g32", "NVFP4Tensor has no activations in int8_g32"},
      {"codebook4_g64-bf16", "no class for codebook4_g64"}};
  for (const auto& [recipe, reason] : refused) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, reason, torchao_dialect().refusal(formats::recipe(recipe)));
    expect_error(ErrorCode::unsupported, {"module x", recipe, reason},
                 [&] { torchao_dialect().layout(make_module("x", recipe, 128, 256)); });
  }
  EXPECT_EQ(torchao_dialect().refusal(formats::recipe("bf16")), "");
  expect_error(ErrorCode::unsupported, {"130 rows are not a multiple of 128"},
               [] { torchao_dialect().layout(make_module("x", "fp8_block128-bf16", 130, 256)); });
}

TEST(Torchao, Layout) {
  const auto layout = [](const std::string& recipe) {
    std::string text;
    for (const TensorEntry& entry : torchao_dialect().layout(make_module("a.x", recipe, 6, 128)))
      text += fmt::format("{} {} {}; ", entry.name, name(entry.dtype), to_string(entry.shape));
    return text;
  };
  EXPECT_EQ(layout("fp8-fp8"), "a.x._weight_qdata F8_E4M3 [6, 128]; a.x._weight_scale F32 [6, 1]; ");
  EXPECT_EQ(layout("int8-int8_static"),
            "a.x._weight_qdata I8 [6, 128]; a.x._weight_scale F32 [6, 1]; a.x._weight_zero_point I8 [6, 1]; "
            "a.x._weight_act_quant_scale F32 [1, 1]; ");
  EXPECT_EQ(layout("int4_g32_float-bf16"),
            "a.x._weight_qdata I8 [6, 64]; a.x._weight_scale BF16 [4, 6]; a.x._weight_zero_point BF16 [4, 6]; ");
  EXPECT_EQ(layout("int3_g64-int8_asym"),
            "a.x._weight_qdata I8 [6, 128]; a.x._weight_scale BF16 [6, 2]; a.x._weight_zero_point I8 [6, 2]; ");
  EXPECT_EQ(layout("mxfp6-mxfp6"), "a.x._weight_qdata U8 [6, 128]; a.x._weight_scale F8_E8M0 [6, 4]; ");
  EXPECT_EQ(layout("nvfp4-nvfp4_static"),
            "a.x._weight_qdata U8 [6, 64]; a.x._weight_scale F8_E4M3 [6, 8]; a.x._weight_per_tensor_scale F32 []; "
            "a.x._weight_act_per_tensor_scale F32 []; ");
}

// As torchao 0.18's flatten_tensor_state_dict() writes it.
TEST(Torchao, Description) {
  const QuantizedModule module = make_module("a.x", "fp8-fp8", 256, 256);
  const std::string plain[] = {"a.norm.weight", "dotless"};
  const auto metadata = torchao_dialect().metadata({&module, 1}, plain);
  EXPECT_EQ(
      parse_json(metadata.at("a.x.weight"), "test"),
      parse_json(
          R"({"_type": "Float8Tensor", "_data": {"block_size": [1, 256], "mm_config": {"_type": "Float8MMConfig", "_data":
          {"emulate": false, "use_fast_accum": true, "pad_inner_dim": false}}, "act_quant_kwargs": {"_type":
          "QuantizeTensorToFloat8Kwargs", "_data": {"float8_dtype": {"_type": "torch.dtype", "_data": "float8_e4m3fn"},
          "granularity": {"_type": "PerRow", "_data": {"dim": -1}}, "mm_config": null, "hp_value_lb": null, "hp_value_ub": null,
          "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"}}}, "kernel_preference": {"_type":
          "KernelPreference", "_data": "AUTO"}, "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}},
          "_tensor_data_names": ["qdata", "scale"]})",
          "test"));
  EXPECT_EQ(metadata.at("a.norm.weight"), R"({"_type": "Tensor"})");
  EXPECT_EQ(metadata.at("tensor_names"), R"(["a.x.weight","a.norm.weight"])");  // torchao fails for names without a dot
  EXPECT_EQ(metadata.at("lowp.recipes"), R"({"a.x":"fp8-fp8"})");
}

TEST(Torchao, Config) {
  const QuantizedModule module = make_module("a.x", "int4_g32_asym-int8_asym", 4, 64);
  const std::string kept[] = {"lm_head"};
  EXPECT_EQ(torchao_dialect().config({&module, 1}, kept),
            parse_json(R"({"quant_method": "torchao", "quant_type": {"default": {"_type":
                "Int8DynamicActivationIntxWeightConfig", "_version": 2, "_data": {"weight_dtype": {"_type": "torch.dtype",
                "_data": "int4"}, "weight_granularity": {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}},
                "weight_mapping_type": {"_type": "MappingType", "_data": "ASYMMETRIC"}, "weight_scale_dtype": null,
                "act_mapping_type": {"_type": "MappingType", "_data": "ASYMMETRIC"}, "intx_packing_format": {"_type":
                "IntxPackingFormat", "_data": "UNPACKED_TO_INT8"}, "intx_choose_qparams_algorithm": {"_type":
                "IntxChooseQParamsAlgorithm", "_data": "AFFINE"}}}}, "modules_to_not_convert": ["lm_head"],
                "include_input_output_embeddings": false, "untie_embedding_weights": false})",
                       "test"));
}

TEST(Torchao, Int4NibblesAreSignedAndTransposed) {
  const QuantizedModule module = make_module("x", "int4_g2_float-bf16", 2, 4);
  QuantizedMatrix matrix = random_matrix(module);
  const std::uint8_t codes[] = {0, 15, 8, 7, 1, 2, 3, 4};
  std::copy(std::begin(codes), std::end(codes), matrix.codes.as<std::uint8_t>());
  const float scales[] = {1, 2, 3, 4};
  std::copy(std::begin(scales), std::end(scales), matrix.scale.as<float>());
  const std::vector<Tensor> tensors = torchao_dialect().encode(module, matrix);
  const auto* bytes = tensors[0].as<std::uint8_t>();
  EXPECT_EQ(bytes[0], 0x78);                     // -8 low, 7 high
  EXPECT_EQ(bytes[1], 0xF0);                     // 0 low, -1 high
  EXPECT_EQ(load_one(tensors[1].view(), 1), 3);  // group 0 of row 1
}

TEST(Torchao, TiledScales) {
  for (const char* recipe : {"mxfp8-mxfp8", "nvfp4-nvfp4_tensor"}) {
    const QuantizedModule module = make_module("x", recipe, 200, 320);
    const QuantizedMatrix weight = random_matrix(module);
    Contents changed = contents(torchao_dialect(), {&module, 1}, {&weight, 1});
    const std::int64_t h = weight.scale.shape()[0], w = weight.scale.shape()[1];
    Tensor tiled(weight.scale.dtype(), {64, ceil_div<std::int64_t>(w, 4) * 16});
    for (std::int64_t r = 0; r < h; ++r)
      for (std::int64_t c = 0; c < w; ++c)
        tiled.as<std::uint8_t>()[formats::tiled_offset(r, c, w)] = weight.scale.as<std::uint8_t>()[r * w + c];
    changed.replace("x._weight_scale", std::move(tiled));
    describe(changed, [](Json& json) { json["_data"]["is_swizzled_scales"] = true; });
    const TempDir folder;
    changed.write(folder);
    const Checkpoint checkpoint(folder.path());
    testing::expect_same(torchao_dialect().decode(checkpoint, torchao_dialect().modules(checkpoint).at(0)), weight);
  }
}

// torchao can save these, though it cannot multiply by them, so lowp reads them and does not write them.
TEST(Torchao, WeightOnlyMx) {
  Contents changed = contents(torchao_dialect(), make_module("x", "mxfp4-mxfp4", 4, 64));
  changed.metadata.erase(kRecipesKey);
  describe(changed, [](Json& json) { json["_data"]["act_quant_kwargs"] = nullptr; });
  const TempDir folder;
  changed.write(folder);
  const Checkpoint checkpoint(folder.path());
  const QuantizedModule found = torchao_dialect().modules(checkpoint).at(0);
  EXPECT_EQ(found.recipe.name, "mxfp4-bf16");
  EXPECT_EQ(torchao_dialect().decode(checkpoint, found).k, 64);
}

TEST(Torchao, Int8WithoutZeroPoints) {
  Contents changed = contents(torchao_dialect(), make_module("x", "int8-int8", 4, 64));
  changed.remove("x._weight_zero_point");
  EXPECT_EQ(derived(changed), "int8-int8");
}

TEST(Torchao, RecognizedWithoutConfig) {
  Contents alone = contents(torchao_dialect(), make_module("x", "int8-bf16", 4, 64));
  alone.config.reset();
  const TempDir folder;
  alone.write(folder);
  EXPECT_TRUE(torchao_dialect().recognizes(Checkpoint(folder / "model.safetensors")));
}

TEST(Torchao, TensorsThatDoNotFitTheDescription) {
  const auto broken = [](const std::string& recipe, ErrorCode code, const std::vector<std::string>& words,
                         const std::function<void(Contents&)>& change) {
    Contents changed = contents(torchao_dialect(), make_module("x", recipe, 4, 64));
    change(changed);
    expect_unreadable(torchao_dialect(), changed, code, words);
  };
  const auto data = [](const char* key, const Json& value) {
    return [=](Contents& c) { describe(c, [&](Json& json) { json["_data"][key] = value; }); };
  };
  constexpr auto kBad = ErrorCode::bad_input, kUnsupported = ErrorCode::unsupported;

  broken("fp8-fp8", kBad, {"model.safetensors", "'x._weight_scale'", "F32 [4, 1]", "fp8-fp8", "found BF16 [4]"},
         [](Contents& c) { c.replace("x._weight_scale", Tensor(DType::bf16, {4})); });
  broken("int4_g32-bf16", kBad, {"'x._weight_zero_point'", "is missing", "I8 [4, 2]"},
         [](Contents& c) { c.remove("x._weight_zero_point"); });
  broken("int4_g32-bf16", kBad, {"'x._weight_zero_point'", "I8 [4, 4]", "found I8 [4, 2]"},
         data("block_size", {1, 16}));
  broken("mxfp8-mxfp8", kBad, {"describes 'x.weight' as MXTensor", "no tensor 'x._weight_qdata'"},
         [](Contents& c) { c.remove("x._weight_qdata"); });
  broken("mxfp8-mxfp8", kBad, {"'x.weight'", "does not describe it"},
         [](Contents& c) { c.metadata.erase("x.weight"); });
  broken("int4_g32_float-bf16", kBad, {"shape is [4, 32]", "[4, 64]"}, data("shape", {4, 32}));
  broken("int4_g32_float-bf16", kBad, {"K = 64 is not divisible by the group size 24"}, data("block_size", {1, 24}));
  broken("fp8-fp8", kBad, {"block_size", "two integers", "[1]"}, data("block_size", {1}));
  broken("fp8-fp8", kBad, {"attribute dtype is missing"}, data("dtype", nullptr));
  broken("fp8-bf16", kBad, {"the note says int8-bf16", "Float8Tensor beside it is fp8-bf16 [4, 64]"},
         [](Contents& c) { c.metadata[kRecipesKey] = R"({"x":"int8-bf16"})"; });
  broken("int4_g32_asym-bf16", kBad, {"the note says int4_g32-bf16", "int4_g32_asym-bf16"},
         [](Contents& c) { c.metadata[kRecipesKey] = R"({"x":"int4_g32-bf16"})"; });
  broken("int3_g32-bf16", kBad, {"'x._weight_qdata'", "value 4 of element 5", "[-4, 3] of int3"},
         [](Contents& c) { c.tensors[c.index("x._weight_qdata")].as<std::int8_t>()[5] = 4; });
  broken("mxfp6-mxfp6", kBad, {"value 64 of element 0", "[0, 63] of e2m3"},
         [](Contents& c) { c.tensors[c.index("x._weight_qdata")].as<std::uint8_t>()[0] = 64; });

  broken("fp8-fp8", kUnsupported, {"fp8 in blocks of [1, 32]"}, data("block_size", {1, 32}));
  broken("int8-bf16", kUnsupported, {"int8 weights with f32 scales and zero points"},
         [](Contents& c) { c.tensors[c.index("x._weight_zero_point")].as<std::int8_t>()[2] = 1; });
  broken("int8-int8", kUnsupported, {"nvfp4 weights with nvfp4_single activations"}, [](Contents& c) {
    c = contents(torchao_dialect(), make_module("x", "nvfp4-nvfp4_tensor", 4, 64));
    describe(c, [](Json& json) { json["_data"]["act_quant_kwargs"]["_data"]["use_dynamic_per_tensor_scale"] = false; });
  });
  broken("fp8-fp8", kUnsupported, {"'Float8OpaqueTensor'"},
         [](Contents& c) { describe(c, [](Json& json) { json["_type"] = "Float8OpaqueTensor"; }); });
  broken("fp8-fp8", kUnsupported, {"'experts.gate_up_proj' is quantized", "Linears only"},
         [](Contents& c) { c.metadata["experts.gate_up_proj"] = c.metadata["x.weight"]; });
  broken("fp8-fp8", kUnsupported, {"pickled"}, [](Contents& c) {
    c.metadata.clear();
    c.remove("x._weight_qdata");
    c.remove("x._weight_scale");
  });
}

}  // namespace
}  // namespace lowp::checkpoint
