// gpt-oss: the experts of a layer in MXFP4, stacked: "gate_up_proj_blocks" U8 [experts, 2 * inner, hidden / 32, 16]
// with gate and up in alternate rows, "down_proj_blocks", and "_scales" U8 (checkpoint-formats 4).
#include <algorithm>
#include <map>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/expert_stack.h"
#include "lowp/formats/recipes.h"

namespace lowp::checkpoint {
namespace {

constexpr std::int64_t kBlock = 32;  // values that share a scale; 16 bytes
constexpr std::string_view kBlocks = "_blocks", kScales = "_scales";
constexpr const char* kRecipe = "mxfp4-bf16";

// "model.layers.0.mlp.experts.3.gate_proj" is one of the matrices in "model.layers.0.mlp.experts.gate_up_proj".
struct Place {
  std::string stack;  // name without "_blocks"
  std::int64_t expert = 0;
  std::int64_t first = 0, every = 1;  // rows of the expert's matrix: first, first + every, ...
};

std::optional<Place> place_of(const std::string& module) {
  const auto parsed = parse_expert(module);
  if (!parsed) return std::nullopt;
  if (parsed->part == "down_proj") return Place{parsed->block + parsed->part, parsed->expert};
  if (parsed->part != "gate_proj" && parsed->part != "up_proj") return std::nullopt;
  return Place{parsed->block + "gate_up_proj", parsed->expert, parsed->part == "up_proj", 2};
}

// Bytes of a row of codes and of scales.
struct RowBytes {
  std::int64_t codes, scales;
  explicit RowBytes(std::int64_t k) : codes(k / 2), scales(k / kBlock) {}
};

// copy(row in the stack, row of the matrix) for all rows of a module.
template <typename Copy>
void for_rows(const Place& place, const QuantizedModule& module, const Copy& copy) {
  for (std::int64_t r = 0; r < module.m; ++r)
    copy(place.expert * module.m * place.every + r * place.every + place.first, r);
}

class GptOss final : public Dialect {
 public:
  std::string name() const override { return "gpt-oss"; }

  std::string refusal(const formats::Recipe& recipe) const override {
    return recipe.keeps() || recipe.name == kRecipe ? "" : fmt::format("gpt-oss has {} for experts only", kRecipe);
  }

  std::string obstacle(const QuantizedModule& module) const override {
    if (const std::string why = Dialect::obstacle(module); !why.empty()) return why;
    return place_of(module.name) ? "" : "gpt-oss has low precision in experts only (gate_proj, up_proj, down_proj)";
  }

  std::string unit(const QuantizedModule& module) const override {
    const auto place = place_of(module.name);
    return place ? place->stack : module.name;
  }

  // Of one expert's share; what is written is unit_layout().
  std::vector<TensorEntry> layout(const QuantizedModule& module) const override {
    return {{module.name + std::string(kBlocks), DType::u8, {module.m, module.k / kBlock, kBlock / 2}},
            {module.name + std::string(kScales), DType::u8, {module.m, module.k / kBlock}}};
  }

  std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const override {
    std::vector<Tensor> tensors;
    for (const TensorEntry& entry : layout(module))
      tensors.push_back(
          copy((tensors.empty() ? weight.codes : weight.scale).view()).reinterpret(entry.dtype, entry.shape));
    return tensors;
  }

  std::vector<TensorEntry> unit_layout(std::span<const QuantizedModule> modules) const override {
    const QuantizedModule& one = modules[0];
    const Place place = *place_of(one.name);
    const auto count = static_cast<std::int64_t>(modules.size());
    check_complete(modules, place);
    const std::int64_t experts = count / place.every, rows = one.m * place.every;
    return {{place.stack + std::string(kBlocks), DType::u8, {experts, rows, one.k / kBlock, kBlock / 2}},
            {place.stack + std::string(kScales), DType::u8, {experts, rows, one.k / kBlock}}};
  }

  std::vector<Tensor> unit_encode(std::span<const QuantizedModule> modules,
                                  std::span<const QuantizedMatrix> weights) const override {
    std::vector<Tensor> stacks;
    for (const TensorEntry& entry : unit_layout(modules)) stacks.emplace_back(entry.dtype, entry.shape);
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const RowBytes bytes(modules[i].k);
      const auto copy_row = [](const Tensor& from, std::int64_t row, Tensor& to, std::int64_t at, std::int64_t size) {
        std::copy_n(from.as<std::uint8_t>() + row * size, size, to.as<std::uint8_t>() + at * size);
      };
      for_rows(*place_of(modules[i].name), modules[i], [&](std::int64_t at, std::int64_t row) {
        copy_row(weights[i].codes, row, stacks[0], at, bytes.codes);
        copy_row(weights[i].scale, row, stacks[1], at, bytes.scales);
      });
    }
    return stacks;
  }

  Json config(std::span<const QuantizedModule>, std::span<const std::string> kept) const override {
    return {{"quant_method", "mxfp4"}, {"modules_to_not_convert", std::vector<std::string>(kept.begin(), kept.end())}};
  }

  bool recognizes(const Checkpoint& checkpoint) const override { return quant_method(checkpoint) == "mxfp4"; }

  std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const override {
    std::vector<QuantizedModule> result;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      if (!tensor.entry.name.ends_with(kBlocks)) continue;
      const std::string stack = tensor.entry.name.substr(0, tensor.entry.name.size() - kBlocks.size());
      const bool gate_up = stack.ends_with(".gate_up_proj");
      if (stack.find(kExperts) == std::string::npos || (!gate_up && !stack.ends_with(".down_proj")))
        fail(ErrorCode::unsupported, "{}: tensor {}: expected experts.gate_up_proj or experts.down_proj of {}",
             tensor.file->path(), quote(tensor.entry.name), name());
      const Shape shape = required(checkpoint, tensor.entry.name, DType::u8, {-1, -1, -1, kBlock / 2}, kRecipe).shape;
      required(checkpoint, stack + std::string(kScales), DType::u8, {shape[0], shape[1], shape[2]}, kRecipe);
      if (tensor.view().bytes.empty() || (gate_up && shape[1] % 2 != 0))
        fail(ErrorCode::bad_input, "{}: tensor {} {}: no experts, or rows that are not gate and up in turn",
             tensor.file->path(), quote(tensor.entry.name), to_string(shape));
      const std::string block = stack.substr(0, stack.rfind('.') + 1);
      for (std::int64_t e = 0; e < shape[0]; ++e)
        for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
          if (gate_up == (std::string_view(part) == "down_proj")) continue;
          QuantizedModule& module = result.emplace_back();
          module.name = fmt::format("{}{}.{}", block, e, part);
          module.recipe = formats::recipe(kRecipe);
          module.m = gate_up ? shape[1] / 2 : shape[1];
          module.k = shape[2] * kBlock;
          module.input = model_element(checkpoint);
        }
    }
    return result;
  }

  QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const override {
    const Place place = *place_of(module.name);
    const TensorView codes = checkpoint.find(place.stack + std::string(kBlocks))->view();
    const TensorView scales = checkpoint.find(place.stack + std::string(kScales))->view();
    QuantizedMatrix weight = begin_matrix(module);
    weight.codes = Tensor(DType::u8, {module.m, module.k / 2});
    weight.scale = Tensor(DType::f8_e8m0, {module.m, module.k / kBlock});
    const RowBytes bytes(module.k);
    for_rows(place, module, [&](std::int64_t at, std::int64_t row) {
      std::copy_n(codes.as<std::uint8_t>() + at * bytes.codes, bytes.codes,
                  weight.codes.as<std::uint8_t>() + row * bytes.codes);
      std::copy_n(scales.as<std::uint8_t>() + at * bytes.scales, bytes.scales,
                  weight.scale.as<std::uint8_t>() + row * bytes.scales);
    });
    return weight;
  }

  std::vector<std::string> sources(const Checkpoint&, const QuantizedModule& module) const override {
    const Place place = *place_of(module.name);
    return {place.stack + std::string(kBlocks), place.stack + std::string(kScales)};
  }

 private:
  // Every expert from 0 on, with gate and up, all of one shape.
  static void check_complete(std::span<const QuantizedModule> modules, const Place& place) {
    const auto count = static_cast<std::int64_t>(modules.size());
    std::vector<bool> seen(modules.size());
    for (const QuantizedModule& module : modules) {
      const Place here = *place_of(module.name);
      const std::int64_t at = here.expert * here.every + here.first;
      if (module.m != modules[0].m || module.k != modules[0].k || at >= count || seen[static_cast<std::size_t>(at)])
        fail(ErrorCode::unsupported,
             "gpt-oss stacks all experts of a layer in one tensor, but {} has {} matrices of which {} [{}, {}] is not "
             "one of a whole stack",
             place.stack, count, module.name, module.m, module.k);
      seen[static_cast<std::size_t>(at)] = true;
    }
    if (count % place.every != 0)
      fail(ErrorCode::unsupported, "gpt-oss: {} has {} matrices, not gate and up for each expert", place.stack, count);
  }
};

}  // namespace

const Dialect& gpt_oss_dialect() {
  static const GptOss dialect;
  return dialect;
}

}  // namespace lowp::checkpoint
