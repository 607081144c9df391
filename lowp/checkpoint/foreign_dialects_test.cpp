// GPTQ, AWQ, ModelOpt, fp8 blocks, gpt-oss, and those that are only read: round trips, the vectors of
// checkpoint-formats appendix A, and what is refused.
#include <gtest/gtest.h>

#include <array>

#include "lowp/checkpoint/dialect_testing.h"

namespace lowp::checkpoint {
namespace {

using testing::Contents;
using testing::contents;
using testing::expect_error;
using testing::expect_round_trip;
using testing::expect_unreadable;
using testing::make_module;
using testing::random_matrix;

constexpr auto bad = ErrorCode::bad_input, unsupported = ErrorCode::unsupported;

Tensor words(std::vector<std::uint32_t> values, Shape shape, DType type = DType::i32) {
  Tensor tensor(type, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.as<std::uint32_t>());
  return tensor;
}

Tensor bytes(std::vector<std::uint8_t> values, Shape shape, DType type = DType::u8) {
  Tensor tensor(type, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.as<std::uint8_t>());
  return tensor;
}

Tensor text(const std::string& value) {
  return bytes({value.begin(), value.end()}, {static_cast<std::int64_t>(value.size())});
}

Tensor floats(std::vector<float> values, Shape shape, DType type = DType::f32) {
  Tensor tensor(DType::f32, std::move(shape));
  std::copy(values.begin(), values.end(), tensor.as<float>());
  return copy_rounded(tensor, type);
}

/// The one module of a folder, through detection.
QuantizedMatrix read_one(const Contents& contents, const Dialect& dialect, const std::string& recipe) {
  const TempDir folder;
  contents.write(folder);
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(detect_dialect(checkpoint), &dialect);
  const std::vector<QuantizedModule> modules = dialect.modules(checkpoint);
  EXPECT_EQ(modules.size(), 1u);
  EXPECT_EQ(modules.at(0).recipe.name, recipe);
  return dialect.decode(checkpoint, modules.at(0));
}

std::vector<int> codes_of(const QuantizedMatrix& weight) {
  const auto* codes = weight.codes.as<std::int8_t>();
  return {codes, codes + weight.codes.bytes().size()};
}

Json config(Json quantization) { return {{"quantization_config", std::move(quantization)}}; }

// --- GPTQ

TEST(Gptq, RoundTrips) {
  for (const char* recipe : {"int4_g32-bf16", "int4_g32_asym-bf16", "int3_g64-bf16", "int2_g32_asym-bf16",
                             "int8_g64-bf16", "int8_g64_asym-bf16", "int4_channel-bf16", "int4_channel_asym-bf16"}) {
    SCOPED_TRACE(recipe);
    QuantizedModule module = make_module("model.layers.0.mlp.up_proj", recipe, 64, 128, formats::Elem::f16);
    expect_round_trip(gptq_dialect(), {&module, 1});
    module.reordered = std::string_view(recipe).find("channel") == std::string_view::npos;
    expect_round_trip(gptq_dialect(), {&module, 1});
  }
}

TEST(Gptq, MixedRecipesAreOverrides) {
  const std::array modules = {make_module("model.layers.0.mlp.up_proj", "int4_g32-bf16", 64, 128),
                              make_module("model.layers.0.mlp.gate_proj", "int4_g32-bf16", 64, 128),
                              make_module("model.layers.0.mlp.down_proj", "int8_g64_asym-bf16", 64, 128)};
  expect_round_trip(gptq_dialect(), modules);
}

// Appendix A: rows k = 0..7 with q = k in one column; symmetric zero points are 7s (v1) or 8s (v2), whatever the label.
TEST(Gptq, GoldenWords) {
  for (const bool v2 : {false, true})
    for (const char* label : {"gptq", "gptq_v2"}) {
      Contents x;
      x.config = config(
          {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 8}, {"sym", true}, {"checkpoint_format", label}});
      x.add("p.qweight", words(std::vector<std::uint32_t>(8, 0x76543210), {1, 8}));
      x.add("p.qzeros", words({v2 ? 0x88888888 : 0x77777777}, {1, 1}));
      x.add("p.scales", floats(std::vector<float>(8, 0.5f), {1, 8}, DType::f16));
      const QuantizedMatrix weight = read_one(x, gptq_dialect(), "int4_g8-bf16");
      EXPECT_EQ(weight.m, 8);
      std::vector<int> first = codes_of(weight);
      first.resize(8);
      EXPECT_EQ(first, (std::vector<int>{-8, -7, -6, -5, -4, -3, -2, -1}));
      EXPECT_EQ(weight.input, formats::Elem::f16);
    }
}

TEST(Gptq, AsymmetricZerosFollowTheLabel) {
  for (const bool v2 : {false, true}) {
    Contents x;
    x.config = config({{"quant_method", "gptq"},
                       {"bits", 4},
                       {"group_size", 8},
                       {"sym", false},
                       {"checkpoint_format", v2 ? "gptq_v2" : "gptq"}});
    x.add("p.qweight", words(std::vector<std::uint32_t>(8, 0x76543210), {1, 8}));
    x.add("p.qzeros", words({0xFEDCBA90}, {1, 1}));  // columns 0, 9, 10, ... 15
    x.add("p.scales", floats(std::vector<float>(8, 0.5f), {1, 8}, DType::f16));
    const QuantizedMatrix weight = read_one(x, gptq_dialect(), "int4_g8_asym-bf16");
    const auto* zeros = weight.zero_point.as<std::int8_t>();
    EXPECT_EQ(std::vector<int>(zeros, zeros + 8), v2 ? (std::vector<int>{-8, 1, 2, 3, 4, 5, 6, 7})
                                                     : (std::vector<int>{-7, 2, 3, 4, 5, 6, 7, -8}));  // 15 + 1 wraps
  }
}

TEST(Gptq, Refusals) {
  const Contents good = contents(gptq_dialect(), make_module("p", "int4_g32-bf16", 64, 128));
  const auto changed = [&](const char* key, Json value, ErrorCode code, std::vector<std::string> said) {
    Contents x;
    for (std::size_t i = 0; i < good.entries.size(); ++i) x.add(good.entries[i].name, copy(good.tensors[i].view()));
    x.config = good.config;
    (*x.config)["quantization_config"][key] = std::move(value);
    expect_unreadable(gptq_dialect(), x, code, said);
  };
  changed("group_size", 64, bad, {"p.scales", "[2, 64]", "[4, 64]", "4 bits in groups of 64"});
  changed("group_size", 24, bad, {"K = 128", "24"});
  changed("group_size", 0, bad, {"group_size"});
  changed("bits", 8, bad, {"p.scales", "[2, 64]"});
  changed("bits", 5, unsupported, {"bits 5"});
  changed("checkpoint_format", "marlin", unsupported, {"'marlin'"});
  changed("dynamic", Json{{"-:p", Json::object()}}, bad, {"'p'", "excludes"});
  changed("dynamic", Json{{"+:(", Json::object()}}, bad, {"dynamic"});
  changed("dynamic", Json::array(), bad, {"dynamic"});
}

TEST(Gptq, ObstaclesNameTheReason) {
  const auto obstacle = [](const char* recipe, std::int64_t m, std::int64_t k) {
    return gptq_dialect().obstacle(make_module("p", recipe, m, k));
  };
  EXPECT_EQ(obstacle("int4_g32-bf16", 64, 128), "");
  EXPECT_NE(obstacle("int4_g32-bf16", 60, 128), "");
  EXPECT_NE(obstacle("int5_g32-bf16", 64, 128), "");
  EXPECT_NE(obstacle("int8-int8", 64, 128), "");
  EXPECT_NE(obstacle("nvfp4-bf16", 64, 128), "");
  EXPECT_NE(obstacle("int4_g32_float-bf16", 64, 128), "");
}

// --- AWQ

TEST(Awq, RoundTrips) {
  for (const char* recipe : {"int4_g32-bf16", "int4_g64_asym-bf16", "int4_channel_asym-bf16"}) {
    SCOPED_TRACE(recipe);
    const QuantizedModule module = make_module("model.layers.0.mlp.up_proj", recipe, 16, 128, formats::Elem::f16);
    expect_round_trip(awq_dialect(), {&module, 1});
  }
}

// Appendix A: columns 0..7 with q = column.
TEST(Awq, GoldenWord) {
  Contents x;
  x.config =
      config({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 2}, {"zero_point", true}, {"version", "gemm"}});
  x.add("p.qweight", words({0x75316420, 0x75316420}, {2, 1}));
  x.add("p.qzeros", words({0x75316420}, {1, 1}));
  x.add("p.scales", floats(std::vector<float>(8, 1), {1, 8}, DType::f16));
  const QuantizedMatrix weight = read_one(x, awq_dialect(), "int4_g2_asym-bf16");
  EXPECT_EQ(codes_of(weight), (std::vector<int>{-8, -8, -7, -7, -6, -6, -5, -5, -4, -4, -3, -3, -2, -2, -1, -1}));
  const auto* zeros = weight.zero_point.as<std::int8_t>();
  EXPECT_EQ(std::vector<int>(zeros, zeros + 8), (std::vector<int>{-8, -7, -6, -5, -4, -3, -2, -1}));
  x.config = config({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 2}, {"version", "gemv"}});
  expect_unreadable(awq_dialect(), x, unsupported, {"'gemv'"});
  x.config = config({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 1}});
  expect_unreadable(awq_dialect(), x, bad, {"p.scales", "[2, 8]", "[1, 8]", "groups of 1"});
}

// --- ModelOpt

TEST(ModelOpt, RoundTrips) {
  for (const char* recipe :
       {"fp8_tensor-fp8_static", "fp8-fp8", "fp8_block128-fp8_group128", "nvfp4-nvfp4_static", "nvfp4-bf16",
        "nvfp4-fp8_static", "mxfp8-mxfp8", "mxfp4-mxfp4", "mxfp4-fp8", "mxfp4-fp8_static", "int4_g32-bf16",
        "int4_g128-fp8_static", "int8-bf16", "int8-int8", "int8-int8_static"}) {
    SCOPED_TRACE(recipe);
    QuantizedModule module = make_module("model.layers.0.mlp.up_proj", recipe, 130, 256);
    expect_round_trip(modelopt_dialect(), {&module, 1});
    module.pre_scaled = true;
    expect_round_trip(modelopt_dialect(), {&module, 1});
  }
}

TEST(ModelOpt, MixedPrecision) {
  const std::array modules = {make_module("model.layers.0.mlp.up_proj", "nvfp4-nvfp4_static", 64, 128),
                              make_module("model.layers.0.mlp.down_proj", "fp8_tensor-fp8_static", 64, 128)};
  expect_round_trip(modelopt_dialect(), modules);
}

// Appendix A: row 2i value 3, row 2i + 1 value -2 -> 0xE3.
TEST(ModelOpt, GoldenPairOfRows) {
  Contents x;
  x.config = config({{"quant_method", "modelopt"}, {"quant_algo", "W4A16_AWQ"}, {"group_size", 2}});
  x.add("p.weight", bytes({0xE3, 0xE3}, {1, 2}));
  x.add("p.weight_scale", floats({1, 2}, {2, 1}, DType::bf16));
  EXPECT_EQ(codes_of(read_one(x, modelopt_dialect(), "int4_g2-bf16")), (std::vector<int>{3, 3, -2, -2}));
  x.config = config({{"quant_method", "modelopt"}, {"quant_algo", "W4A16_AWQ"}, {"group_size", 1}});
  expect_unreadable(modelopt_dialect(), x, bad, {"p.weight_scale", "W4A16_AWQ with group_size 1", "[2, 1]"});
}

TEST(ModelOpt, SideFileAlone) {
  Contents x = contents(modelopt_dialect(), make_module("p", "nvfp4-bf16", 16, 32));
  x.config = Json{{"architectures", {"LlamaForCausalLM"}}};
  const TempDir folder;
  x.write(folder);
  folder.write(
      "hf_quant_config.json",
      R"({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_NVFP4", "group_size": 16}})");
  const Checkpoint checkpoint(folder.path());
  ASSERT_EQ(detect_dialect(checkpoint), &modelopt_dialect());
  EXPECT_EQ(modelopt_dialect().modules(checkpoint).at(0).recipe.name, "nvfp4-bf16");
}

TEST(ModelOpt, ExpertsWithoutInputScaleTakeTheLargest) {
  std::vector<QuantizedModule> modules;
  for (int e = 0; e < 3; ++e) {
    modules.push_back(make_module(fmt::format("l.experts.{}.up_proj", e), "nvfp4-nvfp4_static", 16, 32));
    modules.back().activation_scale = 0.5f * static_cast<float>(e);
  }
  std::vector<QuantizedMatrix> weights;
  for (const QuantizedModule& module : modules) weights.push_back(random_matrix(module));
  Contents x = contents(modelopt_dialect(), modules, weights);
  x.remove("l.experts.1.up_proj.input_scale");
  const TempDir folder;
  x.write(folder);
  for (const QuantizedModule& module : modelopt_dialect().modules(Checkpoint(folder.path())))
    EXPECT_EQ(module.activation_scale, 1.0f) << module.name;
  x.remove("l.experts.2.up_proj.input_scale");
  expect_unreadable(modelopt_dialect(), x, bad, {"input_scale"});
}

TEST(ModelOpt, Refusals) {
  Contents x = contents(modelopt_dialect(), make_module("p", "nvfp4-bf16", 16, 32));
  const auto with = [&](Json quantization, ErrorCode code, std::vector<std::string> said) {
    quantization["quant_method"] = "modelopt";
    x.config = config(std::move(quantization));
    expect_unreadable(modelopt_dialect(), x, code, said);
  };
  with({{"quant_algo", "NVFP4_SVD"}}, unsupported, {"'NVFP4_SVD'"});
  with({{"quant_algo", "FP8"}}, bad, {"p.weight", "quant_algo FP8", "U8"});
  with({{"quant_algo", "W4A16_NVFP4"}, {"group_size", 32}}, bad, {"group_size 32", "16"});
  with({{"quant_algo", "MIXED_PRECISION"}}, bad, {"quantized_layers"});
  with({{"quant_algo", "MIXED_PRECISION"}, {"quantized_layers", Json::object()}}, bad, {"'p'", "quantized_layers"});
}

// --- fp8 blocks

TEST(Fp8Block, RoundTrips) {
  for (const char* recipe : {"fp8_block128-fp8_group128", "mxfp8-mxfp8"}) {
    const QuantizedModule module = make_module("model.layers.0.mlp.up_proj", recipe, 192, 256);
    expect_round_trip(fp8_block_dialect(), {&module, 1});
  }
}

TEST(Fp8Block, WhatOthersWrite) {
  Contents x;
  x.add("p.weight", bytes(std::vector<std::uint8_t>(128 * 128, 0x38), {128, 128}, DType::f8_e4m3));
  x.add("p.weight_scale_inv", floats({2}, {1, 1}, DType::bf16));  // Qwen's scales are bf16
  x.config = config({{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}, {"activation_scheme", "dynamic"}});
  EXPECT_EQ(read_one(x, fp8_block_dialect(), "fp8_block128-fp8_group128").scale.as<float>()[0], 2);
  x.config = config({{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}});
  expect_unreadable(fp8_block_dialect(), x, unsupported, {"[64, 64]"});
  x.config = config({{"quant_method", "fp8"}, {"weight_block_size", {1, 32}}});
  expect_unreadable(fp8_block_dialect(), x, bad, {"weight_scale_inv", "[128, 4]", "weight_block_size [1, 32]"});

  x.remove("p.weight_scale_inv");
  x.add("p.weight_scale", floats({2}, {}));
  x.config = config({{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}});
  read_one(x, fp8_block_dialect(), "fp8_tensor-fp8");
  x.config = config({{"quant_method", "fp8"}, {"activation_scheme", "static"}});
  expect_unreadable(fp8_block_dialect(), x, bad, {"p.input_scale", "missing"});
  x.add("p.input_scale", floats({0.25f}, {}));
  read_one(x, fp8_block_dialect(), "fp8_tensor-fp8_static");

  x.replace("p.weight_scale", floats(std::vector<float>(128, 3), {128, 1}));
  x.config = config({{"quant_method", "fbgemm_fp8"}, {"activation_scale_ub", 1200.0}});
  EXPECT_EQ(read_one(x, fp8_block_dialect(), "fp8-fp8").scale.as<float>()[127], 3);
}

// --- gpt-oss

TEST(GptOss, RoundTripsWholeStacks) {
  std::vector<QuantizedModule> modules;
  for (int e = 0; e < 3; ++e)
    for (const char* part : {"gate_proj", "up_proj"})
      modules.push_back(make_module(fmt::format("model.layers.0.mlp.experts.{}.{}", e, part), "mxfp4-bf16", 8, 64));
  for (int e = 0; e < 3; ++e)
    modules.push_back(make_module(fmt::format("model.layers.0.mlp.experts.{}.down_proj", e), "mxfp4-bf16", 64, 32));
  expect_round_trip(gpt_oss_dialect(), modules);
  modules.erase(modules.begin() + 1);  // an expert without up_proj
  std::vector<QuantizedMatrix> weights;
  for (const QuantizedModule& module : modules) weights.push_back(random_matrix(module));
  expect_error(unsupported, {"gate_up_proj"}, [&] { contents(gpt_oss_dialect(), modules, weights); });
}

// Even rows are gate, odd rows up; the low nibble is the even element.
TEST(GptOss, RowsAlternate) {
  Contents x;
  x.config = config({{"quant_method", "mxfp4"}});
  std::vector<std::uint8_t> blocks(2 * 2 * 16);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::uint8_t>(0x10 * (i / 16) + 1);
  x.add("l.experts.gate_up_proj_blocks", bytes(blocks, {1, 4, 1, 16}));
  x.add("l.experts.gate_up_proj_scales", bytes({127, 128, 129, 130}, {1, 4, 1}));
  const TempDir folder;
  x.write(folder);
  const Checkpoint checkpoint(folder.path());
  const auto modules = gpt_oss_dialect().modules(checkpoint);
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[1].name, "l.experts.0.up_proj");
  const QuantizedMatrix up = gpt_oss_dialect().decode(checkpoint, modules[1]);
  EXPECT_EQ(up.codes.as<std::uint8_t>()[0], 0x11);
  EXPECT_EQ(up.codes.as<std::uint8_t>()[16], 0x31);
  EXPECT_EQ(up.scale.as<std::uint8_t>()[1], 130);
  x.replace("l.experts.gate_up_proj_scales", bytes({127, 128}, {1, 2, 1}));
  expect_unreadable(gpt_oss_dialect(), x, bad, {"gate_up_proj_scales", "[1, 4, 1]", "[1, 2, 1]"});
}

// --- read only

TEST(BitsAndBytes, GoldenByteAndNestedScales) {
  Contents x;
  x.config = config({{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}});
  std::vector<std::uint8_t> packed(64, 0);
  packed[0] = 0x3E;  // appendix A: element 0 is code 3, element 1 code 14
  std::vector<float> table(16), nested(256);
  for (int i = 0; i < 16; ++i) table[i] = static_cast<float>(i) / 8 - 1;
  for (int i = 0; i < 256; ++i) nested[i] = static_cast<float>(i);
  x.add("p.weight", bytes(packed, {64, 1}));
  x.add("p.weight.absmax", bytes({2, 3}, {2}));
  x.add("p.weight.quant_map", floats(table, {16}));
  x.add("p.weight.nested_absmax", floats({0.5f}, {1}));
  x.add("p.weight.nested_quant_map", floats(nested, {256}));
  const char* state = R"({"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[2,64],"nested_blocksize":256,)"
                      R"("nested_dtype":"float32","nested_offset":0.25})";
  x.add("p.weight.quant_state.bitsandbytes__nf4", text(state));
  const QuantizedMatrix weight = read_one(x, bitsandbytes_dialect(), "codebook4_g64-bf16");
  EXPECT_EQ(weight.codes.as<std::uint8_t>()[0], 3);
  EXPECT_EQ(weight.codes.as<std::uint8_t>()[1], 14);
  EXPECT_EQ(weight.scale.as<float>()[0], 2 * 0.5f + 0.25f);
  EXPECT_EQ(weight.scale.as<float>()[1], 3 * 0.5f + 0.25f);
  x.replace("p.weight.quant_state.bitsandbytes__nf4", text(R"({"blocksize":128,"shape":[2,64]})"));
  expect_unreadable(bitsandbytes_dialect(), x, unsupported, {"K = 64", "128"});
  x.replace("p.weight.quant_state.bitsandbytes__nf4", text(R"({"blocksize":64,"shape":[3,64]})"));
  expect_unreadable(bitsandbytes_dialect(), x, bad, {"p.weight", "[96, 1]", "[64, 1]"});
}

TEST(Hqq, GoldenByte) {
  Contents x;
  x.config = config({{"quant_method", "hqq"}});
  const auto number = [](std::uint32_t value) { return words({value}, {}); };
  Tensor shape(DType::i64, {2});
  shape.as<std::int64_t>()[0] = 2;
  shape.as<std::int64_t>()[1] = 2;
  x.add("p.W_q", bytes({0x3E, 0x3E}, {1, 2}));  // appendix A: row 0 value 3, row half value 14
  x.add("p.scale", floats({0.5f, 2}, {2, 1}, DType::f16));
  x.add("p.zero", floats({7.5f, 8}, {2, 1}, DType::f16));
  x.add("p.nbits", number(4));
  x.add("p.group_size", number(2));
  x.add("p.axis", number(1));
  x.add("p.shape", std::move(shape));
  x.add("p.packing", text("4bit_u8"));
  const QuantizedMatrix weight = read_one(x, hqq_dialect(), "int4_g2_shift-bf16");
  EXPECT_EQ(codes_of(weight), (std::vector<int>{3, 3, 14, 14}));
  EXPECT_EQ(weight.zero_point.as<float>()[0], 7.5f);
  x.replace("p.axis", number(0));
  expect_unreadable(hqq_dialect(), x, unsupported, {"axis 0"});
  x.replace("p.axis", number(1));
  x.replace("p.group_size", number(4));
  expect_unreadable(hqq_dialect(), x, unsupported, {"K = 2", "4"});
}

TEST(Mlx, AffineAndPowerOfTwoModes) {
  Contents x;
  x.config = Json{{"quantization", {{"group_size", 8}, {"bits", 4}}}};
  x.add("p.weight", words({0x76543210, 0xFEDCBA98}, {2, 1}, DType::u32));
  x.add("p.scales", floats({0.5f, 2}, {2, 1}, DType::f16));
  x.add("p.biases", floats({-1, 3}, {2, 1}, DType::f16));
  const QuantizedMatrix weight = read_one(x, mlx_dialect(), "int4_g8_bias-bf16");
  EXPECT_EQ(codes_of(weight), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
  EXPECT_EQ(weight.zero_point.as<float>()[1], 3);
  x.config = Json{{"quantization", {{"group_size", 4}, {"bits", 4}}}};
  expect_unreadable(mlx_dialect(), x, bad, {"p.scales", "[2, 2]", "[2, 1]", "groups of 4"});

  Contents y;
  y.config = Json{{"quantization", {{"group_size", 32}, {"bits", 4}, {"mode", "mxfp4"}}}};
  y.add("p.weight", words({1, 2, 3, 4}, {1, 4}, DType::u32));
  y.add("p.scales", bytes({127}, {1, 1}));
  EXPECT_EQ(read_one(y, mlx_dialect(), "mxfp4-bf16").codes.as<std::uint8_t>()[4], 2);
}

TEST(ReadOnly, NamesItself) {
  EXPECT_EQ(mlx_dialect().refusal(formats::recipe("int4_g64_bias-bf16")), "lowp reads mlx only");
}

}  // namespace
}  // namespace lowp::checkpoint
