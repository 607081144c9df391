#include "lowp/quant/plan.h"

#include <algorithm>
#include <set>

#include "lowp/base/error.h"
#include "lowp/checkpoint/model_config.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;
using checkpoint::kWeight;
using checkpoint::StoredTensor;

WeightSource matrix(std::string module, const checkpoint::MatrixSlice& slice) {
  WeightSource source;
  source.role = role_of(module);
  source.module = std::move(module);
  source.m = slice.n;
  source.k = slice.k;
  source.dtype = slice.tensor->entry.dtype;
  source.stored = slice;
  if (!is_high_precision(source.dtype))
    source.obstacle = fmt::format("is of type {}; F16, BF16 and F32 can be quantized", name(source.dtype));
  return source;
}

// Experts [experts, in, out] of a model that is not known to store them so (Llama 4): "" or what says so. Quantizing
// those along the wrong axis would be silent.
std::string transposed_experts(const Checkpoint& checkpoint, std::int64_t hidden_size) {
  if (!checkpoint.config()) return "";
  const Json& config = *checkpoint.config();
  const auto type = config.find("model_type"), hidden = config.find("hidden_size");
  const std::string text = type != config.end() && type->is_string() ? type->get<std::string>() : "";
  if (text.starts_with("llama4")) return text;
  return hidden == config.end() || *hidden == hidden_size ? "" : "by config.json's hidden_size";
}

// Why fused experts cannot be taken apart, or "".
std::string fused_obstacle(const StoredTensor& tensor, const Checkpoint& checkpoint) {
  const Shape& shape = tensor.entry.shape;
  const bool gate_up = tensor.entry.name.ends_with(".gate_up_proj"), columns = checkpoint::stacks_columns(checkpoint);
  if (!gate_up && !tensor.entry.name.ends_with(".down_proj"))
    return "is not a name of fused experts that lowp knows (gate_up_proj, down_proj)";
  const std::string why = columns ? "" : transposed_experts(checkpoint, gate_up ? shape[2] : shape[1]);
  if (!why.empty()) return fmt::format("fused experts stored as [experts, in, out] ({}) cannot be quantized yet", why);
  if (shape[0] == 0) return "holds no expert";
  if (const std::int64_t both = shape[columns ? 2 : 1]; gate_up && both % 2 != 0)
    return fmt::format("{} {} are not two matrices, gate and up", both, columns ? "columns" : "rows");
  return "";
}

// One matrix per expert and projection; if that cannot be, one that says why.
std::vector<WeightSource> fused_experts(const StoredTensor& tensor, const Checkpoint& checkpoint) {
  const std::int64_t rows = tensor.entry.shape[1], k = tensor.entry.shape[2];
  WeightSource whole = matrix(tensor.entry.name, {&tensor, rows, k, 0, k});
  if (whole.obstacle.empty()) whole.obstacle = fused_obstacle(tensor, checkpoint);
  if (!whole.obstacle.empty()) return {whole};
  std::vector<WeightSource> found;
  for (const auto& [module, slice] : checkpoint::stacked_matrices(tensor, checkpoint::stacks_columns(checkpoint)))
    found.push_back(matrix(module, slice));
  return found;
}

checkpoint::MatrixSlice whole_matrix(const StoredTensor& tensor) {
  return {&tensor, tensor.entry.shape[0], tensor.entry.shape[1], 0, tensor.entry.shape[1]};
}

// Integers beside fused experts are tables and shapes, not weights.
bool is_floating(DType type) { return name(type).starts_with('F') || type == DType::bf16; }

// The matrices of a stored tensor: one for a 2-D weight, one per expert and projection for fused experts, none
// otherwise.
std::vector<WeightSource> matrices(const StoredTensor& tensor, const Checkpoint& checkpoint) {
  const checkpoint::TensorEntry& entry = tensor.entry;
  if (entry.shape.size() == 2 && entry.name.ends_with(kWeight))  // of integers: a matrix with an obstacle
    return {matrix(entry.name.substr(0, entry.name.size() - kWeight.size()), whole_matrix(tensor))};
  if (entry.shape.size() == 3 && entry.name.find(".experts.") != std::string::npos && is_floating(entry.dtype))
    return fused_experts(tensor, checkpoint);
  return {};
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const checkpoint::Dialect* from, QuantizeRequest& request,
          CalibratedInputs& inputs)
      : checkpoint_(checkpoint), from_(from), request_(request), inputs_(inputs) {}

  Plan run() {
    std::set<std::string> consumed;  // tensors that stand for quantized modules of the input
    if (from_) add_quantized_modules(consumed);
    const StoredTensor* embedding = nullptr;
    for (const StoredTensor& tensor : checkpoint_.tensors()) {
      if (consumed.contains(tensor.entry.name)) continue;
      const std::vector<WeightSource> found = matrices(tensor, checkpoint_);
      for (const WeightSource& source : found) {
        if (is_token_embedding(source.module)) embedding = &tensor;
        has_head_ = has_head_ || source.role == Role::head;
      }
      add_tensor(tensor, found);
    }
    if (embedding && !has_head_) add_tied_head(*embedding);
    // Whatever config.json says of a head that is stored beside the embedding, the two are no longer the same.
    if (has_head_)
      plan_.untie_head = std::any_of(plan_.layers.begin(), plan_.layers.end(), [](const Layer& layer) {
        return layer.source.role == Role::head || layer.source.role == Role::embedding;
      });
    plan_.unmatched = request_.rules.unmatched();
    return std::move(plan_);
  }

 private:
  // The layer of a source, or nullopt if it is kept (and listed).
  std::optional<Layer> decide(const WeightSource& source) {
    const std::optional<Choice> choice = request_.rules.choose(source.module, source.role);
    if (!choice) return std::nullopt;
    const std::string wrong =
        source.obstacle.empty() ? formats::misfit(choice->recipe.weight, source.m, source.k) : source.obstacle;
    if (!wrong.empty()) {
      if (!request_.allow_skip)
        fail(ErrorCode::unsupported, "{}: {} [{}, {}]: {}; --allow-skip keeps such layers as they are",
             source.stored ? source.stored->tensor->file->path() : checkpoint_.path(), source.module, source.m,
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
  float calibrated_scale(const std::string& module, const formats::Recipe& recipe) {
    const auto stats = inputs_.available() ? inputs_.find(module) : nullptr;
    if (!stats)
      fail(ErrorCode::usage,
           "{}: recipe {} needs the activation's scale from a calibration text that reaches this layer (--calibrate "
           "FILE)",
           module, recipe.name);
    const formats::BlockFormat& format = recipe.activation->format;
    const float amax = stats->largest();
    if (format.tensor_scale) return formats::nvfp4_tensor_scale(amax);
    return formats::choose_params(format, formats::Elem::bf16, {}, {-amax, amax, true, false}, 1).scale;
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
      if (auto layer = decide(source))
        layers.push_back(std::move(*layer));
      else
        kept.push_back(&source);
    }
    for (const WeightSource* source : kept) keep(*source);
    if (layers.empty()) {
      plan_.items.push_back({&tensor, std::nullopt, std::nullopt});
      return;
    }
    for (const WeightSource* source : kept)
      plan_.items.push_back({nullptr, std::nullopt, *source});  // of fused experts
    for (Layer& layer : layers) add_layer(std::move(layer));
  }

  // lm_head without weights of its own, used with the embedding's: it gets its own only if its recipe differs.
  void add_tied_head(const StoredTensor& embedding) {
    WeightSource head = matrix("lm_head", whole_matrix(embedding));
    std::optional<Layer> layer = decide(head);
    const auto embedded = std::find_if(plan_.layers.begin(), plan_.layers.end(), [&](const Layer& l) {
      return l.source.stored && l.source.stored->tensor == &embedding;
    });
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
      for (std::string& tensor : from_->sources(checkpoint_, module)) consumed.insert(std::move(tensor));
      WeightSource source;
      source.module = module.name;
      source.role = role_of(module.name);
      source.m = module.m;
      source.k = module.k;
      source.dtype = module.input == formats::Elem::f32   ? DType::f32
                     : module.input == formats::Elem::f16 ? DType::f16
                                                          : DType::bf16;
      source.quantized = module;
      has_head_ = has_head_ || source.role == Role::head;
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
  CalibratedInputs& inputs_;
  bool has_head_ = false;  // with weights of its own
  Plan plan_;
};

}  // namespace

TensorView WeightSource::load(const Checkpoint& checkpoint, const checkpoint::Dialect* dialect, Tensor& holder) const {
  if (stored) return stored->load(holder);
  holder = ops::dequantize(dialect->decode(checkpoint, quantized), dtype);
  return holder.view();
}

Plan make_plan(const Checkpoint& checkpoint, const checkpoint::Dialect* from, QuantizeRequest& request,
               CalibratedInputs& inputs) {
  return Planner(checkpoint, from, request, inputs).run();
}

}  // namespace lowp::quant
