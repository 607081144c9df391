// parse_gguf refuses any bytes with Error, or every tensor it returns lies in the file, with the size that its type and
// shape say; what follows from metadata and tensors is refused with Error or made.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/checkpoint/gguf_blocks.h"
#include "lowp/checkpoint/gguf_config.h"
#include "lowp/checkpoint/gguf_testing.h"
#include "lowp/checkpoint/gguf_tokenizer.h"

namespace {

using namespace lowp::checkpoint;
using lowp::checkpoint::testing::GgufBytes;

void require(bool condition) {
  if (!condition) std::abort();
}

template <typename Body>
void refused_or_done(const Body& body) {
  try {
    body();
  } catch (const lowp::Error&) {
  }
}

void check_tensors(const GgufHeader& header, std::span<const std::byte> file) {
  std::uint64_t end = 0;
  for (const GgufTensor& tensor : header.tensors) {
    require(!tensor.name.empty() && tensor.name.size() < 64 && !tensor.shape.empty() && tensor.shape.size() <= 4);
    require(tensor.begin == lowp::round_up(end, header.alignment) && tensor.begin <= tensor.end);
    end = tensor.end;
    require(header.data_offset + end <= file.size());
    const BlockType* type = find_block_type(tensor.type->name);
    if (!type || tensor.shape.size() > 2) continue;
    const std::int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
    const auto bytes = static_cast<std::int64_t>(tensor.end - tensor.begin);
    refused_or_done([&] {
      const auto matrix = unpack_blocks(*type,
                                        {lowp::DType::u8,
                                         {rows, bytes / rows},
                                         file.subspan(header.data_offset + tensor.begin, tensor.end - tensor.begin)},
                                        tensor.shape.back(), "fuzz");
      if (type->writable) pack_blocks(*type, matrix, "fuzz");
    });
  }
}

GgufBytes model(const char* architecture) {
  const std::string prefix = std::string(architecture) + ".";
  GgufBytes file;
  file.header(1, 12).text("general.architecture", architecture);
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length"})
    file.u32(prefix + key, 8);
  file.u32(prefix + "attention.head_count", 2).u32(prefix + "attention.sliding_window", 4);
  file.key(prefix + "attention.layer_norm_rms_epsilon", 6).number(1e-5f);
  file.text(prefix + "rope.scaling.type", "linear").key(prefix + "rope.scaling.factor", 6).number(2.0f);
  return file;
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  std::vector<std::string> seeds = {GgufBytes().header(0, 0).bytes()};
  for (const char* architecture : {"llama", "gemma3"})
    seeds.push_back(model(architecture)
                        .text("tokenizer.ggml.model", "gpt2")
                        .text("tokenizer.ggml.pre", "qwen2")
                        .tensor("token_embd.weight", {256}, 12, 0)
                        .data(144)
                        .bytes());
  GgufBytes tokens;
  tokens.header(1, 4).text("tokenizer.ggml.model", "llama");
  tokens.key("tokenizer.ggml.tokens", 9).number<std::uint32_t>(8).number<std::uint64_t>(3);
  tokens.string("a").string("b").string("ab");
  tokens.key("tokenizer.ggml.scores", 9).number<std::uint32_t>(6).number<std::uint64_t>(3);
  tokens.number(0.f).number(-1.f).number(-2.f);
  tokens.key("tokenizer.ggml.token_type", 9).number<std::uint32_t>(5).number<std::uint64_t>(3);
  tokens.number(1).number(1).number(1);
  for (const std::uint32_t type : {2u, 6u, 10u, 11u, 14u, 20u, 23u, 34u, 35u, 39u, 40u})
    seeds.push_back(
        GgufBytes(tokens)
            .tensor("x", {256}, type, 0)
            .data(static_cast<std::size_t>(256 / find_ggml_type(type)->values * find_ggml_type(type)->bytes))
            .bytes());
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  refused_or_done([&] {
    const GgufHeader header = parse_gguf(file, "fuzz");
    GgufTensorFacts facts;
    facts.vocab_size = 8;
    check_tensors(header, file);
    refused_or_done([&] { tokenizer_from_gguf(header.metadata); });
    refused_or_done([&] { tokenizer_config_from_gguf(header.metadata); });
    for (const bool experts : {false, true})
      if (const auto* a = find_gguf_architecture(header.metadata.text("general.architecture").value_or(""), experts))
        refused_or_done([&] { config_from_gguf(header.metadata, *a, facts); });
  });
  return 0;
}
