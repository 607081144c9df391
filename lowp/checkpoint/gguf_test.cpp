#include "lowp/checkpoint/gguf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/gguf_blocks.h"
#include "lowp/checkpoint/gguf_testing.h"
#include "lowp/checkpoint/gguf_tokenizer.h"
#include "lowp/formats/quantize.h"
#include "tests/temp_dir.h"

namespace lowp::checkpoint {
namespace {

using testing::GgufBytes;

const std::string kGolden = std::string(LOWP_SOURCE_DIR) + "/tests/golden/";

// ---- the container

TEST(Gguf, ReadsWhatTheFileSays) {
  GgufBytes file;
  file.header(2, 4)
      .text("general.architecture", "llama")
      .u32("general.alignment", 64)
      .key("list", 9)
      .number<std::uint32_t>(8)
      .number<std::uint64_t>(2)
      .string("a")
      .string("\xC3\xA9")
      .key("flag", 7)
      .number<std::uint8_t>(1)
      .tensor("a.weight", {32, 3}, 8, 0)
      .tensor("b.weight", {5}, 0, 128);
  std::string bytes = file.bytes();
  bytes.resize((bytes.size() + 63) / 64 * 64 + 128 + 20);
  const GgufHeader header = parse_gguf(std::as_bytes(std::span(bytes)), "f");
  EXPECT_EQ(header.metadata.text("general.architecture"), "llama");
  EXPECT_EQ(header.metadata.flag("flag"), true);
  EXPECT_EQ(header.metadata.array("list", GgufType::string)->at(1), "\xC3\xA9");
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].shape, (Shape{3, 32}));
  EXPECT_EQ(header.tensors[0].end - header.tensors[0].begin, 3u * 34);
  EXPECT_EQ(header.tensors[1].begin, 128u);
  EXPECT_EQ(header.data_offset % 64, 0u);
  EXPECT_THROW(header.metadata.count("flag"), Error);
  EXPECT_THROW(header.metadata.array("list", GgufType::f32), Error);
}

struct Refused {
  const char* what;
  GgufBytes file;
  const char* says;
};

GgufBytes begun(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
  return GgufBytes().header(tensors, values, version);
}

// One tensor that should not be, in a file that is right otherwise.
GgufBytes with_tensor(std::string_view name, std::initializer_list<std::int64_t> dims, std::uint32_t type,
                      std::uint64_t offset, std::size_t data) {
  return begun(1, 0).tensor(name, dims, type, offset).data(data);
}

// The flaws behind the published advisories on GGUF readers: counts, lengths, products and offsets that are believed.
TEST(Gguf, RefusesWhatIsNotTrue) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  const Refused cases[] = {
      {"no magic", GgufBytes().string("not a model"), "does not begin with 'GGUF'"},
      {"nothing", GgufBytes(), "the magic"},
      {"version 1", begun(0, 0, 1), "version 1"},
      {"big-endian", begun(0, 0, 0x03000000), "big-endian"},
      {"tensor count", begun(std::uint64_t{1} << 60, 0).data(64), "tensors"},
      {"value count", begun(0, ~std::uint64_t{0}).data(64), "metadata values"},
      {"key length", begun(0, 1).number<std::uint64_t>(std::uint64_t{1} << 61).data(64), "a metadata key"},
      {"string length", begun(0, 1).key("k", 8).number<std::uint64_t>(~std::uint64_t{0}).data(64), "'k'"},
      {"string beyond the end", begun(0, 1).key("k", 8).number<std::uint64_t>(1000).data(64), "'k'"},
      {"empty key", begun(0, 1).u32("", 1).data(8), "empty"},
      {"key twice", begun(0, 2).u32("k", 1).u32("k", 1), "twice"},
      {"unknown value type", begun(0, 1).key("k", 13).number<std::uint64_t>(0), "no value type"},
      {"array of arrays", begun(0, 1).key("k", 9).number<std::uint32_t>(9).number<std::uint64_t>(1).data(64),
       "array of arrays"},
      {"unknown element type", begun(0, 1).key("k", 9).number<std::uint32_t>(77).number<std::uint64_t>(1).data(64),
       "no value type"},
      {"array length", begun(0, 1).key("k", 9).number<std::uint32_t>(10).number<std::uint64_t>(kHuge).data(64),
       "an array of"},
      {"a bool of 2", begun(0, 1).key("k", 7).number<std::uint8_t>(2).data(8), "expected a bool"},
      {"text that is not UTF-8", begun(0, 1).text("k", "\xFF").data(8), "UTF-8"},
      {"alignment 3", begun(0, 1).u32("general.alignment", 3), "power of two"},
      {"alignment 0", begun(0, 1).u32("general.alignment", 0), "power of two"},
      {"alignment of another type", begun(0, 1).text("general.alignment", "32"), "power of two"},
      {"name too long", with_tensor(std::string(64, 'a'), {32}, 0, 0, 128), "64 bytes"},
      {"no name", with_tensor("", {32}, 0, 0, 128), "empty"},
      {"no dimension", with_tensor("a", {}, 0, 0, 128), "0 dimensions"},
      {"five dimensions", with_tensor("a", {1, 1, 1, 1, 1}, 0, 0, 128), "5 dimensions"},
      {"negative size", with_tensor("a", {-1}, 0, 0, 128), "-1"},
      {"size 0", with_tensor("a", {0, 4}, 0, 0, 128), "is 0"},
      {"product overflow", with_tensor("a", {kHuge, 4}, 0, 0, 128), "2^63"},
      {"bytes overflow", with_tensor("a", {kHuge}, 0, 0, 128), "ends beyond"},
      {"removed type", with_tensor("a", {32}, 4, 0, 128), "ggml type 4"},
      {"type without blocks here", with_tensor("a", {256}, 16, 0, 128), "ggml type 16"},
      {"part of a block", with_tensor("a", {33}, 8, 0, 128), "a block of Q8_0"},
      {"offset with a hole", with_tensor("a", {32}, 0, 32, 160), "expected the offset 0"},
      {"offset beyond", with_tensor("a", {32}, 0, ~std::uint64_t{31}, 128), "expected the offset 0"},
      {"data cut short", with_tensor("a", {32}, 0, 0, 127), "ends beyond"},
      {"data too long", with_tensor("a", {32}, 0, 0, 1000), "after the last tensor"},
      {"a name twice", begun(2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).data(64), "there twice"},
      {"overlap", begun(2, 0).tensor("a", {8}, 0, 0).tensor("b", {8}, 0, 0).data(64), "expected the offset 32"},
  };
  for (const Refused& refused : cases) try {
      parse_gguf(refused.file.span(), "f.gguf");
      ADD_FAILURE() << refused.what;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(refused.says), std::string::npos)
          << refused.what << ": " << error.what();
      EXPECT_EQ(std::string(error.what()).find("f.gguf"), 0u) << error.what();
    }
}

TEST(Gguf, EveryShorterFileIsRefused) {
  const std::string bytes = read_text(kGolden + "gguf_llama.gguf").substr(0, 4096);
  for (std::size_t size = 0; size < bytes.size(); size += 1 + size / 64)
    EXPECT_THROW(parse_gguf(std::as_bytes(std::span(bytes.data(), size)), "f"), Error) << size;
}

// ---- the blocks

class Blocks : public ::testing::TestWithParam<std::string> {
 protected:
  MappedFile file{kGolden + "gguf_blocks.gguf"};
  GgufHeader header = parse_gguf(file.bytes(), "gguf_blocks.gguf");
  SafetensorsFile expected{kGolden + "gguf_blocks.safetensors"};

  const GgufTensor& tensor() const {
    return *std::find_if(header.tensors.begin(), header.tensors.end(), [](auto& t) { return t.name == GetParam(); });
  }
  TensorView rows() const {
    const GgufTensor& t = tensor();
    const auto bytes = static_cast<std::int64_t>(t.end - t.begin);
    return {DType::u8,
            {t.shape[0], bytes / t.shape[0]},
            file.bytes().subspan(header.data_offset + t.begin, t.end - t.begin)};
  }
  QuantizedMatrix unpacked() const {
    return unpack_blocks(*find_block_type(GetParam()), rows(), tensor().shape[1], GetParam());
  }
};

// The values of a matrix by the formulas of its format, independent of the kernels above this layer.
float value(const QuantizedMatrix& x, std::int64_t i) {
  const std::int64_t group = i / x.format.group_cols;
  formats::GroupParams p;
  p.scale = x.scale.dtype() == DType::f32 ? x.scale.as<float>()[group]
                                          : formats::decode(x.format.scale, x.scale.as<std::uint8_t>()[group]);
  if (!x.zero_point.empty()) p.zero_point = x.zero_point.as<float>()[group];
  if (!x.codebook.empty()) return x.codebook.as<float>()[x.codes.as<std::uint8_t>()[i]] * p.scale;
  std::uint32_t code = x.codes.as<std::uint8_t>()[x.format.two_codes_a_byte() ? i / 2 : i];
  if (x.format.two_codes_a_byte()) code = code >> (i % 2 * 4) & 15;
  return formats::decode_element(x.format, formats::Elem::f32, p, 1, code);
}

TEST_P(Blocks, ValuesAreThoseOfTheGgufPackage) {
  const TensorView wanted = expected.view(*expected.find(GetParam()));
  const QuantizedMatrix x = unpacked();
  for (std::int64_t i = 0; i < element_count(wanted.shape); ++i)
    ASSERT_EQ(value(x, i), wanted.as<float>()[i]) << GetParam() << " " << i;
}

TEST_P(Blocks, PackedAgainTheyHaveTheSameValues) {
  const BlockType& type = *find_block_type(GetParam());
  if (!type.writable) return;
  const QuantizedMatrix x = unpacked();
  const Tensor packed = pack_blocks(type, x, "x");
  const QuantizedMatrix again = unpack_blocks(type, packed.view(), x.k, "x");
  for (std::int64_t i = 0; i < x.m * x.k; ++i) ASSERT_EQ(value(again, i), value(x, i)) << i;
  // Random scales of super-blocks have other factors than quantizers give them.
  const bool same = std::equal(packed.bytes().begin(), packed.bytes().end(), rows().bytes.begin());
  if (x.format.super_cols == 0 && GetParam() != "NVFP4") EXPECT_TRUE(same);
}

INSTANTIATE_TEST_SUITE_P(Types, Blocks,
                         ::testing::Values("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                                           "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
                         [](const auto& instance) { return instance.param; });

// checkpoint-formats, appendix A: x[i] = ((37 i) mod 101 - 50) / 8 through ggml's reference quantizers, some values.
TEST(GgufBlocks, VectorsOfGgml) {
  const auto bytes = [](std::string_view hex) {
    std::string out;
    for (std::size_t i = 0; i < hex.size(); i += 2)
      out += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
    return out;
  };
  const std::pair<const char*, const char*> vectors[] = {
      {"Q4_0", "403ae046acf258bd1379df358be046acf268"},
      {"Q8_0", "4d2a81df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc"},
      {"MXFP4", "7f6fdb257ec946fea267ec146fda357eb0"}};
  for (const auto& [name, hex] : vectors) {
    const std::string block = bytes(hex);
    const TensorView rows{DType::u8, {1, static_cast<std::int64_t>(block.size())}, std::as_bytes(std::span(block))};
    const QuantizedMatrix x = unpack_blocks(*find_block_type(name), rows, 32, name);
    for (int i = 0; i < 32; ++i) {
      const float original = static_cast<float>((37 * i) % 101 - 50) / 8;
      EXPECT_NEAR(value(x, i), original, std::string_view(name) == "Q8_0" ? 0.03 : 1.1) << name << " " << i;
    }
  }
}

TEST(GgufBlocks, SuperBlocksOfLargestMultiplesComeBackByteForByte) {
  // What quantizers write: the largest multiple is as large as it can be, here at one group of each block.
  for (const auto& [name, at, top] : {std::tuple{"Q4_K", 4, 63}, {"Q6_K", 192, -128}}) {
    std::string block(static_cast<std::size_t>(find_ggml_type(name)->bytes), '\0');
    for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i * 29 + 7);
    const auto half = [&](std::size_t offset, std::uint16_t bits) { std::memcpy(&block[offset], &bits, 2); };
    if (top == 63) {
      half(0, 0x2E66), half(2, 0x2D12);
      block[4] = block[8] = static_cast<char>(0xFF);
    } else {
      half(208, 0x2E66);
      block[192 + 5] = static_cast<char>(top);
    }
    const TensorView rows{DType::u8, {1, static_cast<std::int64_t>(block.size())}, std::as_bytes(std::span(block))};
    const BlockType& type = *find_block_type(name);
    const Tensor again = pack_blocks(type, unpack_blocks(type, rows, 256, name), name);
    EXPECT_EQ(std::memcmp(again.bytes().data(), block.data(), block.size()), 0) << name << at;
  }
}

TEST(GgufBlocks, RefusesWhatItCannotHold) {
  QuantizedMatrix x;
  x.format = formats::block_format("int4_g32");
  x.m = 1;
  x.k = 32;
  x.codes = Tensor(DType::i8, {1, 32});
  x.scale = Tensor(DType::f32, {1, 1});
  *x.scale.as<float>() = 1e-30f;
  EXPECT_THROW(pack_blocks(*find_block_type("Q4_0"), x, "layer"), Error);
  // A ternary digit of 3.
  const std::string block(66, '\xFF');
  EXPECT_THROW(
      unpack_blocks(*find_block_type("TQ2_0"), {DType::u8, {1, 66}, std::as_bytes(std::span(block))}, 256, "t"), Error);
}

// ---- the model

TEST(Gguf, IsSeenAsTheCheckpointItWasMadeFrom) {
  const Checkpoint model(kGolden + "gguf_llama.gguf");
  const Json& config = *model.config();
  EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(config["hidden_size"], 32);
  EXPECT_EQ(config["rms_norm_eps"], 1e-5);
  EXPECT_EQ(config["tie_word_embeddings"], false);
  ASSERT_TRUE(model.find("model.layers.1.self_attn.q_proj.weight"));
  EXPECT_EQ(model.find("model.layers.1.self_attn.q_proj.weight")->entry.shape, (Shape{32, 32}));
  EXPECT_EQ(model.find("model.layers.0.mlp.down_proj.weight")->entry.shape, (Shape{32, 64}));
  EXPECT_TRUE(model.find("lm_head.weight"));
}

TEST(Gguf, RefusesModelsItDoesNotKnow) {
  const TempDir folder;
  const auto refused = [&](const GgufBytes& file, const char* says) {
    const std::string path = folder.write("m.gguf", file.bytes());
    try {
      Checkpoint model(path);
      ADD_FAILURE() << says;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  };
  refused(begun(0, 0).data(0), "general.architecture is missing");
  refused(begun(0, 1).text("general.architecture", "mamba").data(0), "'mamba'");
  refused(begun(0, 1).u32("general.architecture", 3).data(0), "expected a string");
  refused(begun(0, 1).text("general.architecture", "llama").data(0), "token_embd.weight");
  const auto llama = [](std::uint64_t tensors) {
    GgufBytes file = begun(tensors, 8).text("general.architecture", "llama");
    for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length"})
      file.u32(std::string("llama.") + key, 8);
    file.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 2);
    return file.key("llama.attention.layer_norm_rms_epsilon", 6).number(1e-5f);
  };
  refused(llama(2).tensor("token_embd.weight", {8, 4}, 0, 0).tensor("blk.0.attn_x.weight", {8}, 0, 128).data(160),
          "'blk.0.attn_x.weight' is not one that lowp knows");
  refused(llama(2).tensor("token_embd.weight", {8, 4}, 0, 0).tensor("blk.0.attn_q.weight", {8, 3}, 0, 128).data(224),
          "3 rows are not heads of 4");
}

TEST(Gguf, TokenizerFromScores) {
  GgufMetadata metadata("m");
  const auto add = [&](const char* key, GgufType type, GgufType element, Json value) {
    metadata.add(key, {type, element, std::move(value)});
  };
  const auto u32 = GgufType::u32;
  add("tokenizer.ggml.model", GgufType::string, u32, "llama");
  add("tokenizer.ggml.tokens", GgufType::array, GgufType::string, {"<unk>", "<s>", "a", "b", "ab", "aba"});
  add("tokenizer.ggml.scores", GgufType::array, GgufType::f32, {0, 0, -10, -11, -1, -2});
  add("tokenizer.ggml.token_type", GgufType::array, GgufType::i32, {2, 3, 1, 1, 1, 1});
  add("tokenizer.ggml.unknown_token_id", u32, u32, 0);
  add("tokenizer.ggml.bos_token_id", u32, u32, 1);
  const Json tokenizer = tokenizer_from_gguf(metadata);
  EXPECT_EQ(tokenizer["model"]["merges"].dump(), R"([["a","b"],["ab","a"]])");
  EXPECT_EQ(tokenizer["added_tokens"].size(), 2u);
  EXPECT_EQ(tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  std::map<std::string, GgufValue, std::less<>> back;
  tokenizer_to_gguf(tokenizer, tokenizer_config_from_gguf(metadata), {{"vocab_size", 7}}, "m", back);
  EXPECT_EQ(back.at("tokenizer.ggml.tokens").value.dump(), R"(["<unk>","<s>","a","b","ab","aba","[PAD6]"])");
  EXPECT_EQ(back.at("tokenizer.ggml.add_bos_token").value, true);
  EXPECT_EQ(back.at("tokenizer.ggml.add_eos_token").value, false);
  EXPECT_EQ(back.at("tokenizer.ggml.bos_token_id").value, 1);

  GgufMetadata wrong("m");
  wrong.add("tokenizer.ggml.model", {GgufType::string, u32, "llama"});
  EXPECT_THROW(tokenizer_from_gguf(wrong), Error);
  wrong.add("tokenizer.ggml.tokens", {GgufType::array, GgufType::string, {"a", "b"}});
  wrong.add("tokenizer.ggml.scores", {GgufType::array, GgufType::f32, {1}});
  EXPECT_THROW(tokenizer_from_gguf(wrong), Error);
}

}  // namespace
}  // namespace lowp::checkpoint
