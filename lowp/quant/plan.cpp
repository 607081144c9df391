#include "lowp/quant/plan.h"

#include <algorithm>
#include <array>
#include <set>

#include "lowp/base/error.h"
#include "lowp/checkpoint/model_config.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;
using checkpoint::StoredTensor;

constexpr std::string_view kWeight = ".weight";
constexpr std::array<std::string_view, 5> kEmbeddings = {"embed_tokens", "wte", "wpe", "tok_embeddings", "word_embeddings"};
constexpr std::array<std::string_view, 2> kHeads = {"lm_head", "embed_out"};

std::string_view last_part(std::string_view module) { return module.substr(module.rfind('.') + 1); }

Role role_of(std::string_view module) {
  const std::string_view last = last_part(module);
  if (std::find(kEmbeddings.begin(), kEmbeddings.end(), last) != kEmbeddings.end()) return Role::embedding;
  if (std::find(kHeads.begin(), kHeads.end(), last) != kHeads.end()) return Role::head;
  // Routers: mlp.gate, block_sparse_moe.gate, mlp.router, shared_expert_gate.
  if (last == "gate" || last == "router" || last == "shared_expert_gate") return Role::router;
  return Role::linear;
}

WeightSource matrix(const StoredTensor& tensor, std::string module, std::int64_t m, std::int64_t k, std::int64_t first_row) {
  WeightSource source;
  source.role = role_of(module);
  source.module = std::move(module);
  source.m = m;
  source.k = k;
  source.dtype = tensor.entry.dtype;
  source.stored = &tensor;
  source.offset = byte_count(source.dtype, {first_row, k});
  return source;
}

// The matrices of a stored tensor: one for a 2-D weight, one per expert and projection for fused experts, none otherwise.
std::vector<WeightSource> matrices(const StoredTensor& tensor, const Checkpoint& checkpoint) {
  const checkpoint::TensorEntry& entry = tensor.entry;
  if (!is_high_precision(entry.dtype)) return {};
  std::vector<WeightSource> found;
  if (entry.shape.size() == 2 && entry.name.ends_with(kWeight)) {
    found.push_back(matrix(tensor, entry.name.substr(0, entry.name.size() - kWeight.size()), entry.shape[0], entry.shape[1], 0));
  } else if (entry.shape.size() == 3 && entry.name.find(".experts.") != std::string::npos) {
    const bool gate_up = entry.name.ends_with(".gate_up_proj"), down = entry.name.ends_with(".down_proj");
    if (!gate_up && !down) return {};
    const std::int64_t experts = entry.shape[0], rows = entry.shape[1], k = entry.shape[2];
    // Some models (gpt-oss, Llama 4) store experts as [experts, in, out]; quantizing those along the wrong axis would be silent.
    if (const auto& config = checkpoint.config()) {
      const auto hidden = config->find("hidden_size");
      const bool along_k = hidden == config->end() || *hidden == (gate_up ? k : rows);
      const std::string type = config->value("model_type", "");
      if (!along_k || type == "gpt_oss" || type.starts_with("llama4"))
        fail(ErrorCode::unsupported, "{}: tensor '{}' {}: fused experts stored as [experts, in, out] ({}) cannot be quantized yet",
             tensor.file->path(), entry.name, to_string(entry.shape), type.empty() ? "by config.json's hidden_size" : type);
    }
    const std::string base = entry.name.substr(0, entry.name.rfind('.') + 1);
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::string expert = fmt::format("{}{}.", base, e);
      if (down) {
        found.push_back(matrix(tensor, expert + "down_proj", rows, k, e * rows));
      } else {
        found.push_back(matrix(tensor, expert + "gate_proj", rows / 2, k, e * rows));
        found.push_back(matrix(tensor, expert + "up_proj", rows / 2, k, e * rows + rows / 2));
      }
    }
  }
  return found;
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const checkpoint::Dialect* from, QuantizeRequest& request)
      : checkpoint_(checkpoint), from_(from), request_(request) {}

  Plan run() {
    std::set<std::string> consumed;  // tensors that stand for quantized modules of the input
    if (from_) add_quantized_modules(consumed);
    const StoredTensor* embedding = nullptr;
    bool has_head = false;
    for (const StoredTensor& tensor : checkpoint_.tensors()) {
      if (consumed.contains(tensor.entry.name)) continue;
      const std::vector<WeightSource> found = matrices(tensor, checkpoint_);
      for (const WeightSource& source : found) {
        if (source.role == Role::embedding && last_part(source.module) == "embed_tokens") embedding = &tensor;
        has_head = has_head || source.role == Role::head;
      }
      add_tensor(tensor, found);
    }
    if (embedding && !has_head) add_tied_head(*embedding);
    plan_.unmatched = request_.rules.unmatched();
    return std::move(plan_);
  }

 private:
  // The layer of a source, or nullopt if it is kept (and listed).
  std::optional<Layer> decide(const WeightSource& source) {
    const std::optional<Choice> choice = request_.rules.choose(source.module, source.role);
    if (!choice) return std::nullopt;
    const std::string wrong = formats::misfit(choice->recipe.weight, source.m, source.k);
    if (!wrong.empty()) {
      if (!request_.allow_skip)
        fail(ErrorCode::unsupported, "{} [{}, {}]: {}; --allow-skip keeps such layers in high precision", source.module, source.m,
             source.k, wrong);
      plan_.skipped.push_back(source.module + ": " + wrong);
      return std::nullopt;
    }
    Layer layer{source, {}, choice->algorithm, std::nullopt};
    layer.module = {source.module, choice->recipe, source.m, source.k, element_of(source.dtype), std::nullopt};
    if (choice->recipe.activation && choice->recipe.activation->scope == formats::Scope::calibrated)
      layer.module.activation_scale = calibrated_scale(source.module, choice->recipe);
    return layer;
  }

  // The scale that the activation format takes from the calibrated largest magnitude.
  float calibrated_scale(const std::string& module, const formats::Recipe& recipe) const {
    const auto at = request_.activation_amax.find(module);
    if (at == request_.activation_amax.end())
      fail(ErrorCode::usage, "{}: recipe {} needs the activation's scale from a calibration text that reaches this layer (--calibrate FILE)", module,
           recipe.name);
    const formats::BlockFormat& format = recipe.activation->format;
    if (format.tensor_scale) return formats::nvfp4_tensor_scale(at->second);
    const formats::GroupStats stats{-at->second, at->second, true, false};
    return formats::choose_params(format, formats::Elem::bf16, {}, stats, 1).scale;
  }

  void keep(const WeightSource& source) {
    if (source.role != Role::embedding) plan_.kept.push_back(source.module);
  }

  void add_layer(Layer layer) {
    plan_.items.push_back({nullptr, plan_.layers.size(), std::nullopt});
    plan_.layers.push_back(std::move(layer));
  }

  void add_tensor(const StoredTensor& tensor, const std::vector<WeightSource>& sources) {
    std::vector<Layer> layers;
    std::vector<const WeightSource*> kept;
    for (const WeightSource& source : sources) {
      if (auto layer = decide(source)) layers.push_back(std::move(*layer));
      else kept.push_back(&source);
    }
    for (const WeightSource* source : kept) keep(*source);
    if (layers.empty()) {
      plan_.items.push_back({&tensor, std::nullopt, std::nullopt});
      return;
    }
    for (const WeightSource* source : kept) plan_.items.push_back({nullptr, std::nullopt, *source});  // of fused experts
    for (Layer& layer : layers) add_layer(std::move(layer));
  }

  // lm_head without weights of its own, used with the embedding's: it gets its own only if its recipe differs.
  void add_tied_head(const StoredTensor& embedding) {
    WeightSource head = matrix(embedding, "lm_head", embedding.entry.shape[0], embedding.entry.shape[1], 0);
    std::optional<Layer> layer = decide(head);
    const auto embedded = std::find_if(plan_.layers.begin(), plan_.layers.end(), [&](const Layer& l) { return l.source.stored == &embedding; });
    if (!layer) {
      if (embedded == plan_.layers.end()) {
        keep(head);
        return;
      }
      plan_.untie_head = true;  // the embedding is quantized, the head is not
      plan_.items.push_back({nullptr, std::nullopt, head});
      keep(head);
      return;
    }
    if (embedded != plan_.layers.end() && embedded->module.recipe.name == layer->module.recipe.name &&
        embedded->algorithm == layer->algorithm)
      return;
    plan_.untie_head = true;
    add_layer(std::move(*layer));
  }

  void add_quantized_modules(std::set<std::string>& consumed) {
    for (const checkpoint::QuantizedModule& module : from_->modules(checkpoint_)) {
      for (const checkpoint::TensorEntry& entry : from_->layout(module)) consumed.insert(entry.name);
      WeightSource source;
      source.module = module.name;
      source.role = role_of(module.name);
      source.m = module.m;
      source.k = module.k;
      source.dtype = module.input == formats::Elem::f32 ? DType::f32 : module.input == formats::Elem::f16 ? DType::f16 : DType::bf16;
      source.quantized = module;
      if (auto layer = decide(source)) {
        add_layer(std::move(*layer));
      } else {
        keep(source);
        plan_.items.push_back({nullptr, std::nullopt, source});
      }
    }
  }

  const Checkpoint& checkpoint_;
  const checkpoint::Dialect* from_;
  QuantizeRequest& request_;
  Plan plan_;
};

}  // namespace

TensorView WeightSource::load(const Checkpoint& checkpoint, const checkpoint::Dialect* dialect, Tensor& holder) const {
  if (stored) {
    const TensorView whole = stored->view();
    return {dtype, {m, k}, whole.bytes.subspan(offset, byte_count(dtype, {m, k}))};
  }
  holder = ops::dequantize(dialect->decode(checkpoint, quantized), dtype);
  return holder.view();
}

Plan make_plan(const Checkpoint& checkpoint, const checkpoint::Dialect* from, QuantizeRequest& request) {
  return Planner(checkpoint, from, request).run();
}

}  // namespace lowp::quant
