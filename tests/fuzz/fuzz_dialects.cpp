// Foreign checkpoints: a config and a file of small tensors, made from the input, read by whichever dialect takes them.
// What is accepted must decode; what is not must be an Error.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/checkpoint/dialect.h"

namespace {

using namespace lowp;

// The input is lines: the first is config.json, every other one a tensor: "name dtype d0xd1 text", whose bytes are the
// text over and over.
struct Input {
  std::string config;
  std::vector<checkpoint::TensorEntry> entries;
  std::vector<std::string> fill;
};

constexpr std::size_t kMostBytes = 1 << 16;

Shape parse_shape(const std::string& text) {
  Shape shape;
  std::int64_t value = -1;
  for (const char c : text + "x") {
    if (c >= '0' && c <= '9') {
      value = std::max<std::int64_t>(value, 0) * 10 + (c - '0');
      if (value > 4096) return {0};
    } else if (value >= 0) {
      shape.push_back(value);
      value = -1;
    }
  }
  return shape;
}

Input parse(std::string_view text) {
  Input input;
  std::size_t total = 0;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (first) {
      input.config = line;
      first = false;
      continue;
    }
    const std::size_t a = line.find(' '), b = a == std::string::npos ? a : line.find(' ', a + 1);
    if (b == std::string::npos) continue;
    const std::size_t c = std::min(line.find(' ', b + 1), line.size());
    const auto type = find_dtype(line.substr(a + 1, b - a - 1));
    const Shape shape = parse_shape(line.substr(b + 1, c - b - 1));
    if (!type || shape.size() > 4 || info(*type).bits < 8) continue;
    std::size_t bytes = static_cast<std::size_t>(info(*type).bits) / 8;
    for (const std::int64_t size : shape) bytes = std::min(bytes * static_cast<std::size_t>(size), kMostBytes + 1);
    const std::string name = line.substr(0, a);
    const bool known = std::any_of(input.entries.begin(), input.entries.end(),
                                   [&](const checkpoint::TensorEntry& entry) { return entry.name == name; });
    const bool writable =
        !name.empty() && name.size() <= 1024 && name.find('\0') == name.npos && name != "__metadata__";
    if (!writable || known || (total += bytes) > kMostBytes) continue;
    input.entries.push_back({name, *type, shape});
    input.fill.push_back(line.substr(std::min(c + 1, line.size())));
  }
  return input;
}

// In memory where the system has such a folder.
const std::string& folder() {
  static const std::string path = [] {
    const char* base = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
    std::string name = std::string(base) + "/lowp-fuzz-" + std::to_string(::getpid());
    std::filesystem::create_directories(name);
    return name;
  }();
  return path;
}

struct Cleanup {
  ~Cleanup() {
    std::error_code ignored;
    std::filesystem::remove_all(folder(), ignored);
  }
} cleanup;

void write(const Input& input) {
  std::filesystem::remove(folder() + "/config.json");
  std::filesystem::remove(folder() + "/model.safetensors");
  FileWriter config(folder() + "/config.json");
  config.append(input.config);
  FileWriter out(folder() + "/model.safetensors");
  checkpoint::SafetensorsWriter writer(out, input.entries, {});
  for (std::size_t i = 0; i < input.entries.size(); ++i) {
    std::string bytes(byte_count(input.entries[i].dtype, input.entries[i].shape), '\0');
    for (std::size_t at = 0; at < bytes.size() && !input.fill[i].empty(); ++at)
      bytes[at] = input.fill[i][at % input.fill[i].size()];
    writer.append(input.entries[i].name, std::as_bytes(std::span(bytes.data(), bytes.size())));
  }
  writer.finish();
}

// Bytes of an I64 tensor.
std::string i64(std::initializer_list<char> values) {
  std::string bytes;
  for (const char value : values) bytes += value + std::string(7, '\0');
  return bytes;
}

}  // namespace

std::vector<std::string> fuzz_seeds() {
  const auto quantization = [](const std::string& fields) { return "{\"quantization_config\":{" + fields + "}}\n"; };
  return {
      quantization(R"("quant_method":"gptq","bits":4,"group_size":8,"sym":false,"desc_act":true)") +
          "p.qweight I32 2x8 abcd\np.qzeros I32 2x1 wxyz\np.scales F16 2x8 ab\np.g_idx I32 16\n",
      quantization(R"("quant_method":"gptq","bits":4,"group_size":-1,"sym":false,"dynamic":{"+:p":{"bits":8}})") +
          "p.qweight I32 2x8 abcd\np.qzeros I32 1x2 wxyz\np.scales BF16 1x8 ab\n",
      quantization(R"("quant_method":"awq","bits":4,"group_size":8,"version":"gemm")") +
          "p.qweight I32 16x1 abcd\np.qzeros I32 2x1 wxyz\np.scales F16 2x8 ab\n",
      quantization(R"("quant_method":"modelopt","quant_algo":"NVFP4","group_size":16)") +
          "p.weight U8 4x16 abc\np.weight_scale F8_E4M3 4x2 88\np.weight_scale_2 F32 1 abc?\np.input_scale F32 1 "
          "abc?\n",
      quantization(
          R"("quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{"p":{"quant_algo":"W4A16_AWQ","group_size":2}})") +
          "p.weight U8 2x4 abc\np.weight_scale BF16 4x2 88\np.pre_quant_scale BF16 4 ab\n",
      quantization(R"("quant_method":"fp8","weight_block_size":[128,128],"activation_scheme":"dynamic")") +
          "p.weight F8_E4M3 8x128 abc\np.weight_scale_inv BF16 1x1 ab\n",
      quantization(R"("quant_method":"fp8","activation_scheme":"static")") +
          "p.weight F8_E4M3 8x16 abc\np.weight_scale F32 1 abc?\np.input_scale F32 1 abc?\n",
      quantization(R"("quant_method":"fbgemm_fp8")") + "p.weight F8_E4M3 4x4 abc\np.weight_scale F32 4x1 abc?\n",
      quantization(R"("quant_method":"mxfp4")") +
          "l.experts.gate_up_proj_blocks U8 2x4x1x16 abc\nl.experts.gate_up_proj_scales U8 2x4x1 z\n",
      quantization(R"("quant_method":"bitsandbytes")") +
          "p.weight U8 64x1 abc\np.weight.absmax U8 2 ab\np.weight.quant_map F32 16 abc?\n"
          "p.weight.nested_absmax F32 1 abc?\np.weight.nested_quant_map F32 256 abc?\n"
          "p.weight.quant_state.bitsandbytes__nf4 U8 54 {\"blocksize\":64,\"shape\":[2,64],\"nested_blocksize\":256}\n",
      quantization(R"("quant_method":"hqq")") +
          "p.W_q U8 2x4 abc\np.scale F16 4x1 ab\np.zero F16 4x1 ab\np.nbits U8 1 \4\np.group_size U8 1 \4\n"
          "p.axis U8 1 \1\np.packing U8 7 4bit_u8\np.shape I64 2 " +
          i64({4, 4}) + "\n",
      R"({"quantization":{"group_size":8,"bits":4,"q":{"bits":3}}})"
      "\np.weight U32 2x1 abcd\np.scales F16 2x1 ab\np.biases F16 2x1 ab\n",
      R"({"quantization":{"group_size":32,"bits":4,"mode":"mxfp4"}})"
      "\np.weight U32 1x4 abcd\np.scales U8 1x1 z\n",
      quantization(
          R"("quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":4,"strategy":"group","group_size":8,"actorder":"group"}}})") +
          "p.weight_packed I32 4x2 abcd\np.weight_scale BF16 4x2 ab\np.weight_g_idx I32 16\np.weight_shape I64 2 " +
          i64({4, 16}) + "\n",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input input = parse({reinterpret_cast<const char*>(data), size});
  try {
    write(input);
    const checkpoint::Checkpoint checkpoint(folder());
    if (const checkpoint::Dialect* dialect = checkpoint::detect_dialect(checkpoint))
      for (const checkpoint::QuantizedModule& module : dialect->modules(checkpoint)) {
        const QuantizedMatrix weight = dialect->decode(checkpoint, module);
        LOWP_CHECK(weight.m == module.m && weight.k == module.k, "{}: [{}, {}]", module.name, weight.m, weight.k);
        for (const std::string& name : dialect->sources(checkpoint, module))
          LOWP_CHECK(checkpoint.find(name), "{}: source {}", module.name, name);
      }
  } catch (const Error&) {
  }
  return 0;
}
