#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "lowp/checkpoint/dialect_testing.h"
#include "lowp/formats/quantize.h"

namespace lowp::checkpoint {
namespace {

using formats::Elem;
using testing::Contents;
using testing::make_module;
using testing::random_matrix;

const Dialect& dialect() { return compressed_tensors_dialect(); }

const char* dtype_name(Elem input) {
  return input == Elem::f16 ? "float16" : input == Elem::bf16 ? "bfloat16" : "float32";
}

// A folder with one module and the matrix in it.
struct One {
  QuantizedModule module;
  QuantizedMatrix weight;
  Contents contents;

  Tensor& at(const std::string& part) { return contents.tensors[contents.index(module.name + "." + part)]; }
  void replace(const std::string& part, Tensor tensor) {
    contents.replace(module.name + "." + part, std::move(tensor));
  }
  Json& quantization() { return (*contents.config)["quantization_config"]; }
  Json& group() { return quantization()["config_groups"]["group_0"]; }
};

One one(const std::string& recipe, std::int64_t m = 16, std::int64_t k = 128, Elem input = Elem::bf16) {
  One result;
  result.module = make_module("p.q_proj", recipe, m, k, input);
  result.weight = random_matrix(result.module);
  result.contents = testing::contents(dialect(), {&result.module, 1}, {&result.weight, 1});
  (*result.contents.config)["torch_dtype"] = dtype_name(input);
  return result;
}

// The same without our notes, as others write it.
One foreign(const std::string& recipe, std::int64_t m = 16, std::int64_t k = 128) {
  One result = one(recipe, m, k);
  result.contents.metadata.clear();
  return result;
}

std::vector<QuantizedModule> read(const Contents& contents) {
  const TempDir folder;
  contents.write(folder);
  return dialect().modules(Checkpoint(folder.path()));
}

// The one module of a folder, and its weight.
std::pair<QuantizedModule, QuantizedMatrix> read_one(const One& x) {
  const TempDir folder;
  x.contents.write(folder);
  const Checkpoint checkpoint(folder.path());
  const auto modules = dialect().modules(checkpoint);
  EXPECT_EQ(modules.size(), 1u);
  return {modules.at(0), dialect().decode(checkpoint, modules.at(0))};
}

std::string recipe_read(const One& x) { return read_one(x).first.recipe.name; }

void expect_error(const One& x, ErrorCode code, const std::vector<std::string>& words) {
  testing::expect_unreadable(dialect(), x.contents, code, words);
}

std::vector<std::string> held_recipes() {
  std::vector<std::string> held;
  for (const std::string& name : formats::recipe_names())
    if (const formats::Recipe recipe = formats::recipe(name); !recipe.keeps() && dialect().refusal(recipe).empty())
      held.push_back(name);
  return held;
}

// --- bytes: the vectors of checkpoint-formats, appendix A

using Words = std::vector<std::uint32_t>;

Words words_of(const Tensor& tensor) {
  const auto* words = tensor.as<std::uint32_t>();
  return {words, words + tensor.bytes().size() / 4};
}

// The packed weight of one row of signed codes.
Words packed_row(const std::string& recipe, const std::vector<std::int8_t>& codes) {
  const QuantizedModule module = make_module("m", recipe, 1, static_cast<std::int64_t>(codes.size()));
  QuantizedMatrix weight = random_matrix(module);
  std::memcpy(weight.codes.bytes().data(), codes.data(), codes.size());
  return words_of(dialect().encode(module, weight)[0]);
}

TEST(CompressedTensors, GoldenInt4) {
  std::vector<std::int8_t> codes;
  for (int q = -8; q < 8; ++q) codes.push_back(static_cast<std::int8_t>(q));
  EXPECT_EQ(packed_row("int4_g16-bf16", codes), (Words{0x76543210u, 0xfedcba98u}));
}

TEST(CompressedTensors, GoldenInt8) { EXPECT_EQ(packed_row("int8_g4-bf16", {-128, -1, 0, 127}), Words{0xff807f00u}); }

TEST(CompressedTensors, GoldenInt3IsDense) {
  std::vector<std::int8_t> codes;
  for (int i = 0; i < 32; ++i) codes.push_back(static_cast<std::int8_t>(i % 8 - 4));
  EXPECT_EQ(packed_row("int3_g32-bf16", codes), (Words{0x88fac688u, 0xc688fac6u, 0xfac688fau}));
}

TEST(CompressedTensors, GoldenZeroPointsRunAlongRows) {
  const QuantizedModule module = make_module("m", "int4_g32_asym-bf16", 8, 32);
  QuantizedMatrix weight = random_matrix(module);
  for (int r = 0; r < 8; ++r) weight.zero_point.as<std::int8_t>()[r] = static_cast<std::int8_t>(r - 8);
  const auto tensors = dialect().encode(module, weight);
  EXPECT_EQ(tensors[2].shape(), (Shape{1, 1}));
  EXPECT_EQ(words_of(tensors[2]), Words{0x76543210u});
}

TEST(CompressedTensors, GoldenNibblesAndSixes) {
  const QuantizedModule four = make_module("m", "mxfp4-bf16", 1, 32);
  QuantizedMatrix nibbles = random_matrix(four);
  nibbles.codes.as<std::uint8_t>()[0] = 0x21;
  nibbles.codes.as<std::uint8_t>()[1] = 0x43;
  auto tensors = dialect().encode(four, nibbles);
  EXPECT_EQ(tensors[0].as<std::uint8_t>()[0], 0x21);
  EXPECT_EQ(tensors[0].as<std::uint8_t>()[1], 0x43);
  EXPECT_EQ(tensors[1].dtype(), DType::u8);

  const QuantizedModule six = make_module("m", "mxfp6-bf16", 1, 32);
  QuantizedMatrix sixes = random_matrix(six);
  const std::uint8_t codes[] = {0x01, 0x22, 0x3F, 0x14};
  std::memcpy(sixes.codes.bytes().data(), codes, 4);
  tensors = dialect().encode(six, sixes);
  const std::uint32_t word = 0x01u | 0x22u << 6 | 0x3Fu << 12 | 0x14u << 18;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(tensors[0].as<std::uint8_t>()[i], (word >> (8 * i)) & 0xFF);
  EXPECT_EQ(tensors[0].shape(), (Shape{1, 24}));
}

TEST(CompressedTensors, GoldenGlobalScaleIsADivisor) {
  const QuantizedModule module = make_module("m", "nvfp4-bf16", 1, 16);
  QuantizedMatrix weight = random_matrix(module);
  weight.tensor_scale = formats::nvfp4_tensor_scale(12);
  EXPECT_FLOAT_EQ(dialect().encode(module, weight)[2].as<float>()[0], 224.0f);  // of a rounded 12 / 2688
}

// --- round trips

TEST(CompressedTensors, HoldsWhatTheSchemaCanSay) {
  for (const char* name : {"fp8-fp8",
                           "fp8_tensor-fp8_tensor",
                           "fp8_block128-fp8_group128",
                           "fp8_tensor-fp8_static",
                           "fp8-bf16",
                           "fp8_tensor-bf16",
                           "fp8_block128-bf16",
                           "int8-int8",
                           "int8-int8_static",
                           "int8-int8_asym",
                           "int8-bf16",
                           "int8_tensor-bf16",
                           "int8_g32-int8_g32",
                           "int8_g32-bf16",
                           "int4_g128-bf16",
                           "int3_channel_asym-bf16",
                           "int1_g32-bf16",
                           "int4_g32-int8",
                           "int4_g32-int8_g32",
                           "int5_g64_asym-int8_asym",
                           "int4_g128_sym8-fp8",
                           "mxfp8-mxfp8",
                           "mxfp8-bf16",
                           "mxfp6-mxfp6",
                           "mxfp6-bf16",
                           "mxfp4-mxfp4",
                           "mxfp4-bf16",
                           "mxfp4-mxfp8",
                           "mxfp4-fp8",
                           "mxfp4-int8",
                           "mxfp4-int8_g32",
                           "nvfp4-bf16",
                           "nvfp4-nvfp4_static",
                           "nvfp4-int8",
                           "nvfp4-int8_g32",
                           "nvfp4_single-nvfp4_single",
                           "nvfp4_single-bf16",
                           "bf16"})
    EXPECT_EQ(dialect().refusal(formats::recipe(name)), "") << name;
}

TEST(CompressedTensors, RefusesTheRestWithAReason) {
  const std::pair<const char*, const char*> refused[] = {
      {"nvfp4-nvfp4", "input_global_scale"},  {"nvfp4-nvfp4_tensor", "input_global_scale"},
      {"mxfp6_e3m2-mxfp6_e3m2", "e3m2"},      {"mxfp8_e5m2-bf16", "e5m2"},
      {"int4_g64_float-bf16", "zero points"}, {"int4_g64_float_hqq-bf16", "zero points"},
      {"codebook4_g64-bf16", "codebooks"},
  };
  for (const auto& [name, reason] : refused)
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, reason, dialect().refusal(formats::recipe(name))) << name;
}

TEST(CompressedTensors, RoundTripOfEveryRecipeAlone) {
  const std::vector<std::string> names = held_recipes();
  EXPECT_GT(names.size(), 100u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const QuantizedModule module = make_module("p.q_proj", name, 152, 256);
    testing::expect_round_trip(dialect(), {&module, 1});
  }
}

TEST(CompressedTensors, RoundTripOfEveryRecipeInOneFolder) {
  std::vector<QuantizedModule> modules;
  for (const std::string& name : held_recipes())
    modules.push_back(make_module(fmt::format("layers.{:03}.up_proj", modules.size()), name, 40, 256));
  testing::expect_round_trip(dialect(), modules);
  EXPECT_EQ(dialect().config(modules, {})["format"], "mixed-precision");
}

TEST(CompressedTensors, RoundTripOfOtherTypes) {
  for (const Elem input : {Elem::f16, Elem::f32})
    for (const char* recipe : {"int4_g32_asym-bf16", "int8_channel-bf16", "fp8-fp8", "nvfp4-bf16"}) {
      const One x = one(recipe, 16, 128, input);
      const auto [module, weight] = read_one(x);
      EXPECT_EQ(module.recipe.name, recipe);
      testing::expect_same(weight, x.weight);
    }
}

// Many reciprocals do not lead back by another reciprocal.
TEST(CompressedTensors, TensorScalesComeBackToTheBit) {
  for (const Elem input : {Elem::bf16, Elem::f16}) {
    std::mt19937 random(5);
    std::vector<QuantizedModule> modules;
    std::vector<QuantizedMatrix> weights;
    int inexact = 0;
    for (int i = 0; i < 500; ++i) {
      modules.push_back(make_module(fmt::format("m{:03}", i), "nvfp4-nvfp4_static", 1, 16, input));
      modules.back().activation_scale = std::exp2(std::uniform_real_distribution<float>(-30, 10)(random));
      weights.push_back(random_matrix(modules.back()));
      const float amax = std::exp2(std::uniform_real_distribution<float>(-14, 15)(random));
      const float scale = formats::nvfp4_tensor_scale(formats::round_to(input, amax));
      weights.back().tensor_scale = scale;
      inexact += 1.0f / (1.0f / scale) != scale;
    }
    EXPECT_GT(inexact, 20);
    Contents contents = testing::contents(dialect(), modules, weights);
    (*contents.config)["dtype"] = dtype_name(input);
    const TempDir folder;
    contents.write(folder);
    const Checkpoint checkpoint(folder.path());
    const auto found = dialect().modules(checkpoint);
    ASSERT_EQ(found.size(), modules.size());
    for (std::size_t i = 0; i < modules.size(); ++i) {
      EXPECT_EQ(found[i].activation_scale, modules[i].activation_scale);
      EXPECT_EQ(dialect().decode(checkpoint, found[i]).tensor_scale, weights[i].tensor_scale);
    }
  }
}

TEST(CompressedTensors, ScalesWithoutAReciprocalAreErrors) {
  One x = one("nvfp4-bf16");
  for (const float scale : {0.0f, 0x1p-140f, INFINITY, NAN}) {
    x.weight.tensor_scale = scale;
    EXPECT_THROW(dialect().encode(x.module, x.weight), Error) << scale;
  }
}

// Each shard has the notes of its own modules.
TEST(CompressedTensors, NotesOfAllShardsCount) {
  One first = one("nvfp4_single-nvfp4_single"), second = one("nvfp4-nvfp4_static");
  second.module.name = "p.k_proj";
  second.contents = testing::contents(dialect(), second.module);
  const QuantizedModule both[] = {first.module, second.module};
  const TempDir folder;
  first.quantization() = dialect().config(both, {});
  first.contents.write(folder);
  std::filesystem::rename(folder / "model.safetensors", folder / "model-1.safetensors");
  second.contents.config.reset();
  second.contents.remove("lm_head.weight");
  second.contents.remove("model.norm.weight");
  second.contents.write(folder);
  std::filesystem::rename(folder / "model.safetensors", folder / "model-2.safetensors");
  const auto found = dialect().modules(Checkpoint(folder.path()));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].recipe.name, "nvfp4-nvfp4_static");
  EXPECT_EQ(found[0].activation_scale, second.module.activation_scale);
  EXPECT_EQ(found[1].recipe.name, "nvfp4_single-nvfp4_single");
}

// --- what config.json says

TEST(CompressedTensors, ConfigOfOneRecipe) {
  EXPECT_EQ(one("fp8-fp8").quantization().dump(),
            R"({"quant_method":"compressed-tensors","format":"float-quantized","quantization_status":"compressed",)"
            R"("config_groups":{"group_0":{"targets":["Linear"],)"
            R"("weights":{"num_bits":8,"type":"float","symmetric":true,"strategy":"channel","group_size":null,)"
            R"("dynamic":false},)"
            R"("input_activations":{"num_bits":8,"type":"float","symmetric":true,"strategy":"token",)"
            R"("group_size":null,"dynamic":true},)"
            R"("output_activations":null,"format":"float-quantized"}},"ignore":["lm_head"],"kv_cache_scheme":null,)"
            R"("sparsity_config":{},"transform_config":{},"global_compression_ratio":null,"version":"0.20.0"})");
}

TEST(CompressedTensors, FormatsAndStrategies) {
  const auto expect = [](const char* recipe, const char* format, const Json& weights, const Json& input) {
    One x = one(recipe, 128, 128);
    EXPECT_EQ(x.quantization()["format"], format) << recipe;
    const Json& group = x.group();
    EXPECT_EQ(group["input_activations"].is_null(), input.is_null()) << recipe;
    for (const auto& [key, value] : weights.items()) EXPECT_EQ(group["weights"][key], value) << recipe << " " << key;
    if (input.is_null()) return;
    for (const auto& [key, value] : input.items())
      EXPECT_EQ(group["input_activations"][key], value) << recipe << " " << key;
  };
  expect("fp8_block128-fp8_group128", "float-quantized", {{"strategy", "block"}, {"block_structure", {128, 128}}},
         {{"strategy", "group"}, {"group_size", 128}, {"dynamic", true}});
  expect("fp8_tensor-fp8_static", "float-quantized", {{"strategy", "tensor"}},
         {{"strategy", "tensor"}, {"dynamic", false}});
  expect("fp8_tensor-fp8_tensor", "float-quantized", {{"strategy", "tensor"}},
         {{"strategy", "tensor"}, {"dynamic", true}});
  expect("fp8-bf16", "naive-quantized", {{"strategy", "channel"}}, nullptr);
  expect("int8-int8_asym", "int-quantized", {{"type", "int"}}, {{"symmetric", false}, {"strategy", "token"}});
  expect("int8-bf16", "pack-quantized", {{"num_bits", 8}, {"strategy", "channel"}}, nullptr);
  expect("int8_g32-int8_g32", "pack-quantized", {{"group_size", 32}}, {{"group_size", 32}, {"dynamic", true}});
  expect("int4_g32-int8", "pack-quantized", {{"num_bits", 4}}, {{"strategy", "token"}, {"symmetric", true}});
  expect("int4_g32_asym-int8_asym", "int-quantized", {{"symmetric", false}}, {{"symmetric", false}});
  expect("int4_g128_sym8-fp8", "pack-quantized", {{"type", "int"}}, {{"type", "float"}, {"strategy", "token"}});
  expect("mxfp8-mxfp8", "mxfp8-quantized", {{"scale_dtype", "torch.uint8"}}, {{"scale_dtype", "torch.uint8"}});
  expect("mxfp6-bf16", "mxfp6-pack-quantized", {{"num_bits", 6}, {"type", "float"}}, nullptr);
  expect("mxfp4-fp8", "mxfp4-pack-quantized", {{"num_bits", 4}}, {{"strategy", "token"}, {"num_bits", 8}});
  expect("nvfp4-nvfp4_static", "nvfp4-pack-quantized",
         {{"strategy", "tensor_group"}, {"scale_dtype", "torch.float8_e4m3fn"}, {"dynamic", false}},
         {{"strategy", "tensor_group"}, {"dynamic", "local"}});
}

TEST(CompressedTensors, IgnoreNamesWhatIsKept) {
  using Names = std::vector<std::string>;
  QuantizedModule module = make_module("p.q_proj", "fp8-fp8", 16, 16);
  const auto ignored = [&](const Names& kept) { return dialect().config({&module, 1}, kept)["ignore"].get<Names>(); };
  EXPECT_EQ(ignored({}), Names{"lm_head"});  // a tied one has no tensor
  EXPECT_EQ(ignored({"x.lm_head", "layers.0.gate"}), (Names{"x.lm_head", "layers.0.gate"}));
  Names routers;
  for (int i = 0; i < 5; ++i) routers.push_back(fmt::format("model.layers.{}.mlp.gate", i));
  EXPECT_EQ(ignored(routers), (Names{R"(re:^model\.layers\.\d+\.mlp\.gate$)", "lm_head"}));
  module.name = routers.back();  // a pattern would take this one too
  routers.pop_back();
  EXPECT_EQ(ignored(routers).size(), 5u);
  module.name = "lm_head";
  EXPECT_EQ(ignored({}), Names{});
}

// --- files by others

// The recipe follows from the scheme; the values must be the same.
TEST(CompressedTensors, RecipeWithoutANote) {
  const std::pair<const char*, const char*> cases[] = {
      {"fp8-fp8", "fp8-fp8"},
      {"fp8_block128-fp8_group128", "fp8_block128-fp8_group128"},
      {"fp8_tensor-fp8_static", "fp8_tensor-fp8_static"},
      {"int8-int8", "int8-int8"},
      {"int8-int8_asym", "int8-int8_asym"},
      {"int8-int8_static", "int8-int8_static"},
      {"int8-bf16", "int8-bf16"},                  // scales in F32
      {"int8_channel-bf16", "int8_channel-bf16"},  // scales in BF16
      {"int4_g128-bf16", "int4_g128-bf16"},
      {"int4_g128_sym8-fp8", "int4_g128_sym8-fp8"},
      {"int4_g32_asym-int8_asym", "int4_g32_asym-int8_asym"},
      {"int3_channel_asym-bf16", "int3_channel_asym-bf16"},
      {"mxfp8-mxfp8", "mxfp8-mxfp8"},
      {"mxfp6-mxfp6", "mxfp6-mxfp6"},
      {"mxfp4-mxfp8", "mxfp4-mxfp8"},
      {"nvfp4-bf16", "nvfp4-bf16"},
      {"nvfp4-nvfp4_static", "nvfp4-nvfp4_static"},
      {"nvfp4_single-nvfp4_single", "nvfp4-nvfp4_static"},
      {"int4_g128_sym8-bf16", "int4_g128-bf16"},
  };
  for (const auto& [written, expected] : cases) {
    const One x = foreign(written, 128, 256);
    const auto [module, weight] = read_one(x);
    EXPECT_EQ(module.recipe.name, expected);
    testing::expect_same(weight.codes, x.weight.codes, written);
    testing::expect_same(weight.scale, x.weight.scale, written);
    EXPECT_NEAR(weight.tensor_scale / x.weight.tensor_scale, 1, 1e-6) << written;
  }
}

// llm-compressor's W4A8: no row of the table of recipes, but a pair of formats that there are.
TEST(CompressedTensors, PairsBeyondTheTable) {
  One x = foreign("int4_g128-bf16");
  x.group()["input_activations"] = {{"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}};
  const QuantizedModule module = read_one(x).first;
  EXPECT_EQ(module.recipe.name, "int4_g128-int8");
  EXPECT_EQ(module.recipe.activation->format.name, "int8");
}

TEST(CompressedTensors, TargetsAndIgnore) {
  One x = foreign("fp8-fp8");
  const auto set = [&](const char* target, std::vector<std::string> ignore) {
    x.group()["targets"] = {target};
    x.quantization()["ignore"] = std::move(ignore);
  };
  for (const char* target : {"Linear", "p.q_proj", R"(re:p\.(q|k))", R"(re:.*\.q_proj$)"}) {
    set(target, {"lm_head", "re:.*visual.*", "re:q_proj"});  // anchored left, and only left
    EXPECT_EQ(recipe_read(x), "fp8-fp8") << target;
  }
  set("re:q_proj", {});
  expect_error(x, ErrorCode::bad_input, {"p.q_proj", "no config group"});
  set("Linear", {"re:.*q_proj"});
  expect_error(x, ErrorCode::bad_input, {"p.q_proj", "ignore"});
  set("re:([", {});
  expect_error(x, ErrorCode::bad_input, {"config_groups.group_0", "regular expression"});
}

TEST(CompressedTensors, ExactNamesBeatPatternsBeatClasses) {
  std::vector<QuantizedModule> modules;
  std::vector<QuantizedMatrix> weights;
  for (const auto& [name, recipe] : {std::pair{"a", "int4_g32-bf16"}, {"b", "int4_g64-bf16"}, {"c", "fp8-bf16"}}) {
    modules.push_back(make_module(std::string("layers.0.") + name, recipe, 8, 64));
    weights.push_back(random_matrix(modules.back()));
  }
  Contents contents = testing::contents(dialect(), modules, weights);
  Json& groups = (*contents.config)["quantization_config"]["config_groups"];
  groups["group_1"]["targets"] = {"re:layers.*(a|b)"};
  groups["group_2"]["targets"] = {"Linear"};
  const auto found = read(contents);
  ASSERT_EQ(found.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(found[i].recipe.name, modules[i].recipe.name);
}

TEST(CompressedTensors, ScaleTypesAndShapesOfOthers) {
  for (const DType type : kHighPrecision) {
    One x = one("fp8-fp8");
    float* scales = x.weight.scale.as<float>();
    for (int i = 0; i < 16; ++i) scales[i] = formats::round_to(element_of(type), scales[i]);
    x.replace("weight_scale", copy_rounded(x.weight.scale, type).reinterpret(type, {16}));
    testing::expect_same(read_one(x).second, x.weight);
  }
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{1, 1}}) {
    One x = one("fp8_tensor-fp8_static");
    x.replace("weight_scale", copy(x.at("weight_scale").view()).reinterpret(DType::f32, shape));
    x.replace("input_scale", copy(x.at("input_scale").view()).reinterpret(DType::f32, shape));
    const auto [module, weight] = read_one(x);
    EXPECT_EQ(module.activation_scale, x.module.activation_scale);
    testing::expect_same(weight, x.weight);
  }
  One x = one("mxfp8-bf16");
  x.replace("weight_scale", copy(x.at("weight_scale").view()).reinterpret(DType::f8_e8m0, {16, 4}));
  testing::expect_same(read_one(x).second, x.weight);
}

TEST(CompressedTensors, SpellingsOfOlderFiles) {
  One x = foreign("fp8_block128-fp8_group128", 128, 256);
  Json& weights = x.group()["weights"];
  weights["block_structure"] = "128x128";
  weights["observer"] = "minmax";
  weights["observer_kwargs"] = Json::object();
  weights["actorder"] = "static";
  x.group().erase("format");
  Json& config = x.quantization();
  config["kv_cache_scheme"] = {{"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}};
  config["sparsity_config"] = {{"format", "dense"}, {"global_sparsity", 0.1}};
  config["quantization_status"] = "frozen";
  config["something_new"] = 1;
  EXPECT_EQ(recipe_read(x), "fp8_block128-fp8_group128");
  x.contents.config = Json{{"compression_config", Json(config)}};
  EXPECT_EQ(recipe_read(x), "fp8_block128-fp8_group128");

  One y = foreign("nvfp4-bf16");
  y.group()["weights"].erase("scale_dtype");
  EXPECT_EQ(recipe_read(y), "nvfp4-bf16");

  One z = foreign("int8-int8");  // zero points of symmetric weights
  z.contents.add("p.q_proj.weight_zero_point", Tensor(DType::i8, {16, 1}));
  EXPECT_EQ(recipe_read(z), "int8-int8");
  z.at("weight_zero_point").as<std::int8_t>()[3] = 1;
  expect_error(z, ErrorCode::bad_input, {"weight_zero_point", "symmetric"});
}

// Words of 10 codes of 3 bits and 2 bits of nothing.
TEST(CompressedTensors, PackingBeforeJune2026) {
  One x = one("int3_g32-bf16", 1, 32);
  const std::uint32_t words[] = {0x08fac688u, 0x1a23eb1au, 0x2c688facu, 0x0000003eu};
  Tensor packed(DType::i32, {1, 4});
  std::memcpy(packed.bytes().data(), words, sizeof words);
  x.replace("weight_packed", std::move(packed));
  const QuantizedMatrix found = read_one(x).second;
  for (int i = 0; i < 32; ++i) EXPECT_EQ(found.codes.as<std::int8_t>()[i], i % 8 - 4) << i;
}

// Nothing aligns the tensors of a file.
TEST(CompressedTensors, TensorsAtOddAddresses) {
  for (const char* recipe : {"int5_g32_asym-bf16", "nvfp4-bf16", "fp8-fp8"}) {
    One x = one(recipe, 24);
    x.contents.entries.insert(x.contents.entries.begin(), {"a", DType::u8, {1}});
    x.contents.tensors.insert(x.contents.tensors.begin(), Tensor(DType::u8, {1}));
    testing::expect_same(read_one(x).second, x.weight);
  }
}

// --- disagreements

TEST(CompressedTensors, TensorsMustFitTheScheme) {
  const auto changed = [](const char* recipe, const char* part, std::optional<Tensor> tensor,
                          const std::vector<std::string>& words) {
    SCOPED_TRACE(fmt::format("{} {}", recipe, part));
    One x = one(recipe);
    if (tensor)
      x.replace(part, std::move(*tensor));
    else
      x.contents.remove(x.module.name + "." + part);
    std::vector<std::string> all = words;
    all.push_back("p.q_proj.");
    all.emplace_back(part);
    expect_error(x, ErrorCode::bad_input, all);
  };
  const auto shape_of = [](std::int64_t m, std::int64_t k) {
    Tensor shape(DType::i64, {2});
    shape.as<std::int64_t>()[0] = m;
    shape.as<std::int64_t>()[1] = k;
    return shape;
  };
  changed("fp8-fp8", "weight_scale", Tensor(DType::f32, {1}), {"[16, 1]", "[1]"});
  changed("fp8-fp8", "weight_scale", Tensor(DType::u8, {16, 1}), {"BF16 or F16 or F32", "U8"});
  changed("fp8-fp8", "weight_scale", {}, {"missing"});
  changed("fp8-fp8", "weight", Tensor(DType::i8, {16, 128}), {"F8_E4M3", "I8"});
  changed("fp8-fp8", "weight", Tensor(DType::f8_e4m3, {16}), {"[?, ?]", "[16]"});
  changed("fp8_tensor-fp8_static", "input_scale", {}, {"missing"});
  changed("int4_g32-bf16", "weight_packed", Tensor(DType::i32, {16, 15}), {"[16, 16]", "[16, 15]"});
  changed("int4_g32-bf16", "weight_packed", Tensor(DType::u8, {16, 64}), {"I32", "U8"});
  changed("int4_g32-bf16", "weight_scale", Tensor(DType::bf16, {16, 2}), {"[16, 4]", "[16, 2]"});
  changed("int4_g32-bf16", "weight_shape", shape_of(17, 128), {"[17, 128]", "[16, 16]"});
  changed("int4_g32-bf16", "weight_shape", shape_of(16, 1 << 30), {"1073741824"});
  changed("int4_g32-bf16", "weight_shape", shape_of(16, -128), {"-128"});
  changed("int4_g32_asym-bf16", "weight_zero_point", {}, {"missing", "[2, 4]"});
  changed("nvfp4-bf16", "weight_global_scale", one_f32(0), {"positive"});
  changed("nvfp4-nvfp4_static", "input_global_scale", one_f32(-1), {"positive"});
  changed("nvfp4_single-bf16", "weight_global_scale", one_f32(2), {"expected 1", "2"});
  changed("nvfp4_single-nvfp4_single", "input_global_scale", one_f32(2), {"expected 1", "2"});
  changed("mxfp4-bf16", "weight_scale", Tensor(DType::u8, {16, 8}), {"[16, 4]", "[16, 8]"});
}

TEST(CompressedTensors, MatricesMustFitTheFormat) {
  One x = one("mxfp6-bf16");
  x.replace("weight_packed", Tensor(DType::u8, {16, 95}));
  expect_error(x, ErrorCode::unsupported, {"p.q_proj", "[16, 126]", "group size 32"});
  One y = one("int4_g32_asym-int8_asym");
  y.at("weight").as<std::int8_t>()[5] = 8;
  expect_error(y, ErrorCode::bad_input, {"p.q_proj.weight", "value 8 at 5", "[-8, 7]"});
}

TEST(CompressedTensors, ConfigsThatAreRefused) {
  const auto changed = [](const char* recipe, const char* pointer, const Json& value, ErrorCode code,
                          const std::vector<std::string>& words) {
    SCOPED_TRACE(fmt::format("{} {}", recipe, pointer));
    One x = foreign(recipe);
    x.quantization()[Json::json_pointer(pointer)] = value;
    expect_error(x, code, words);
  };
  const auto bad = ErrorCode::bad_input, unsupported = ErrorCode::unsupported;
  const std::string group = "/config_groups/group_0/", weights = group + "weights/";
  const auto args = [&](const char* recipe, const char* key, const Json& value, ErrorCode code,
                        const std::vector<std::string>& words) {
    changed(recipe, (weights + key).c_str(), value, code, words);
  };
  const auto scheme = [&](const char* key, const Json& value, ErrorCode code, const std::vector<std::string>& words) {
    changed("fp8-fp8", (group + key).c_str(), value, code, words);
  };
  args("fp8-fp8", "private", 1, bad, {"group_0.weights", "'private'"});
  args("fp8-fp8", "num_bits", "8", bad, {"num_bits"});
  args("mxfp4-bf16", "num_bits", 0, bad, {"num_bits", "positive"});
  args("fp8-fp8", "num_bits", 16, unsupported, {"p.q_proj", "16-bit float"});
  args("fp8-fp8", "strategy", "attn_head", unsupported, {"attn_head"});
  args("fp8-fp8", "dynamic", true, bad, {"dynamic"});
  args("fp8-fp8", "group_size", 32, bad, {"group_size 32"});
  args("int4_g32-bf16", "group_size", 64, bad, {"weight_scale", "[16, 2]", "[16, 4]"});
  args("int4_g32-bf16", "num_bits", 8, bad, {"weight_packed", "[16, 32]"});
  args("int4_g32-bf16", "actorder", "sideways", bad, {"actorder", "sideways"});
  scheme("private", 1, bad, {"group_0", "'private'"});
  scheme("format", "pack-quantized", bad, {"weight_packed", "missing"});
  scheme("format", "marlin-24", unsupported, {"marlin-24"});
  scheme("weights", nullptr, unsupported, {"activations only"});
  scheme("output_activations", {{"num_bits", 8}}, unsupported, {"output_activations"});
  changed("fp8-fp8", "/sparsity_config", {{"format", "sparse-bitmask"}}, unsupported, {"sparsity"});
  changed("fp8-fp8", "/transform_config", {{"config_groups", {{"R1", 1}}}}, unsupported, {"transform"});
  changed("fp8-fp8", "/config_groups", {{"FP8", {"Linear"}}}, unsupported, {"presets"});
  // A second level of activation scales that is chosen at run time.
  changed("nvfp4-nvfp4_static", (group + "input_activations/dynamic").c_str(), true, unsupported,
          {"p.q_proj", "dynamic 4-bit float by tensor_group"});
}

TEST(CompressedTensors, ActivationOrder) {
  QuantizedModule reordered = make_module("p.q_proj", "int4_g32_asym-bf16", 16, 128);
  reordered.reordered = true;
  const QuantizedModule plain = make_module("p.k_proj", "int4_g32_asym-bf16", 16, 128);
  testing::expect_round_trip(compressed_tensors_dialect(), std::array{plain, reordered});
  // Columns in their own order say nothing; a group with too many columns is wrong.
  One x = one("int4_g32-bf16");
  Tensor index(DType::i32, {128});
  for (int j = 0; j < 128; ++j) index.as<std::int32_t>()[j] = j / 32;
  x.contents.add("p.q_proj.weight_g_idx", copy(index.view()));
  EXPECT_EQ(recipe_read(x), "int4_g32-bf16");
  index.as<std::int32_t>()[0] = 3;
  x.contents.replace("p.q_proj.weight_g_idx", std::move(index));
  expect_error(x, ErrorCode::bad_input, {"weight_g_idx", "group 3 has more than the declared 32 columns"});
}

TEST(CompressedTensors, NamedTargetsMustBeQuantized) {
  One x = foreign("fp8-fp8");
  x.contents.add("p.k_proj.weight", Tensor(DType::bf16, {16, 128}));
  EXPECT_EQ(recipe_read(x), "fp8-fp8");
  x.group()["targets"] = {"p.q_proj", "p.k_proj"};
  expect_error(x, ErrorCode::bad_input, {"p.k_proj.weight", "F8_E4M3", "BF16"});
  x.quantization()["ignore"] = {"p.k_proj"};
  EXPECT_EQ(recipe_read(x), "fp8-fp8");
}

TEST(CompressedTensors, NotesMustSayWhatTheConfigSays) {
  One x = one("fp8-fp8");
  std::string& note = x.contents.metadata[kRecipesKey];
  note = R"({"p.q_proj":"int8-int8"})";
  expect_error(x, ErrorCode::bad_input, {"p.q_proj", "8-bit float by channel", "int8-int8"});
  note = R"({"p.q_proj":"fp9-fp9"})";
  expect_error(x, ErrorCode::unsupported, {"p.q_proj", "fp9-fp9"});
  note = R"({"p.q_proj":1})";
  expect_error(x, ErrorCode::bad_input, {kRecipesKey, "p.q_proj"});
  note = R"({"p.q_proj":"fp8-fp8","other":"int8-int8"})";
  EXPECT_EQ(recipe_read(x), "fp8-fp8");
  for (const char* bits : {"12", "0123456789", "0123456z"}) {
    x.contents.metadata["lowp.tensor_scales"] = fmt::format(R"({{"p":"{}"}})", bits);
    expect_error(x, ErrorCode::bad_input, {"lowp.tensor_scales", "8 hex digits"});
  }
}

}  // namespace
}  // namespace lowp::checkpoint
