#include "lowp/models/weights.h"

#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/kernels/kernel.h"
#include "lowp/ops/cast.h"

namespace lowp::models {

using checkpoint::StoredTensor;

namespace {

// What `what` is to be quantized by while loading.
void check_quantizes(const formats::Recipe& recipe, const std::string& what) {
  const bool calibrated = recipe.activation && recipe.activation->scope == formats::Scope::calibrated;
  if (recipe.weight.rule == formats::Rule::codebook || recipe.weight.hqq || calibrated)
    fail(ErrorCode::usage, "{} cannot be quantized by '{}' while loading: that takes {}", what, recipe.name,
         calibrated ? "calibration; use lowp quantize" : "an algorithm that iterates; use lowp quantize");
}

}  // namespace

WeightLoader::WeightLoader(const checkpoint::Checkpoint& checkpoint, const LoadOptions& options)
    : checkpoint_(checkpoint), dialect_(checkpoint::detect_dialect(checkpoint)), compute_(options.compute) {
  if (options.use_packed && !options.device.is_cuda() && !kernels::reference_backend())
    packed_ = PackedFile::open(packed_path(checkpoint), [&] { return packed_key(checkpoint, options); });
  if (dialect_)
    for (checkpoint::QuantizedModule& module : dialect_->modules(checkpoint))
      modules_.emplace(module.name, std::move(module));
  if (!options.recipe || options.recipe->keeps()) return;
  if (!modules_.empty())
    fail(ErrorCode::usage, "{} is quantized already ({}): it cannot be by '{}' while loading", checkpoint.path(),
         recipe(), options.recipe->name);
  check_quantizes(*options.recipe, "the model");
  recipe_ = options.recipe;
}

std::vector<float> WeightLoader::vector(const std::string& name, std::int64_t size) {
  const StoredTensor* tensor = checkpoint_.find(name);
  if (!tensor) fail(ErrorCode::bad_input, "{}: tensor '{}' is missing", checkpoint_.path(), name);
  if (tensor->entry.shape != Shape{size} || !is_high_precision(tensor->entry.dtype))
    fail(ErrorCode::bad_input, "{}: tensor '{}': expected F16, BF16 or F32 [{}], found {} {}", tensor->file->path(),
         name, size, lowp::name(tensor->entry.dtype), to_string(tensor->entry.shape));
  std::vector<float> values(static_cast<std::size_t>(size));
  load_f32(tensor->view(), 0, size, values.data());
  return values;
}

bool WeightLoader::has(const std::string& module) const {
  return modules_.contains(module) || checkpoint_.find(module + ".weight");
}

const checkpoint::QuantizedModule& WeightLoader::checked(const checkpoint::QuantizedModule& module, std::int64_t n,
                                                         std::int64_t k) const {
  if (module.m != n || module.k != k)
    fail(ErrorCode::bad_input, "{}: '{}': config.json says [{}, {}], the quantized weight is [{}, {}]",
         checkpoint_.path(), module.name, n, k, module.m, module.k);
  return module;
}

void WeightLoader::release() {
  for (const auto& [file, bytes] : lent_) file->release(bytes);
  lent_.clear();
}

// A stored weight, or the expert of a stack that `module` names.
checkpoint::MatrixSlice WeightLoader::slice(const std::string& module, std::int64_t n, std::int64_t k) const {
  if (const StoredTensor* tensor = checkpoint_.find(module + ".weight")) {
    if (tensor->entry.shape != Shape{n, k} || !is_high_precision(tensor->entry.dtype))
      fail(ErrorCode::bad_input, "{}: tensor '{}': expected F16, BF16 or F32 [{}, {}], found {} {}",
           tensor->file->path(), tensor->entry.name, n, k, lowp::name(tensor->entry.dtype),
           to_string(tensor->entry.shape));
    return {tensor, n, k, 0, k};
  }
  const auto found = checkpoint::find_stacked(checkpoint_, module);
  if (!found) fail(ErrorCode::bad_input, "{}: tensor '{}.weight' is missing", checkpoint_.path(), module);
  if (found->n != n || found->k != k)
    fail(ErrorCode::bad_input, "{}: tensor '{}' {}: config.json says that {} is [{}, {}]", found->tensor->file->path(),
         found->tensor->entry.name, to_string(found->tensor->entry.shape), module, n, k);
  return *found;
}

TensorView WeightLoader::load(const checkpoint::MatrixSlice& slice, Tensor& holder) {
  const TensorView view = slice.load(holder);
  lent_.emplace_back(slice.tensor->file, (slice.contiguous() ? view : slice.tensor->view()).bytes);
  return view;
}

TensorView WeightLoader::bias(const std::string& module, std::int64_t n, Tensor& holder) const {
  if (const StoredTensor* tensor = checkpoint_.find(module + ".bias")) {
    if (tensor->entry.shape == Shape{n} && is_high_precision(tensor->entry.dtype)) return tensor->view();
  } else if (const auto slice = checkpoint::find_stacked_bias(checkpoint_, module, n)) {
    const TensorView column = slice->load(holder);
    return {column.dtype, {n}, column.bytes};
  }
  fail(ErrorCode::bad_input, "{}: tensor '{}.bias' [{}] is missing or has another shape or type", checkpoint_.path(),
       module, n);
}

std::optional<ops::PackedWeight> WeightLoader::find_packed(const std::string& module, std::int64_t n,
                                                           std::int64_t k) const {
  return packed_ ? packed_->find(module, n, k) : std::nullopt;
}

ops::LinearWeight WeightLoader::linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) {
  return recipe_ ? quantize(module, module, n, k, bias, *recipe_) : read(module, module, n, k, bias);
}

ops::LinearWeight WeightLoader::router(const std::string& module, std::int64_t n, std::int64_t k, bool bias) {
  return read(module, module, n, k, bias);
}

// `packed`: its name among packed weights.
ops::LinearWeight WeightLoader::read(const std::string& module, const std::string& packed, std::int64_t n,
                                     std::int64_t k, bool bias) {
  release();
  ops::LinearWeight made;
  if (bias) made.bias = this->bias(module, n, made.bias_holder);
  if (const auto at = modules_.find(module); at != modules_.end()) {
    const checkpoint::QuantizedModule& quantized = checked(at->second, n, k);
    for (const std::string& name : dialect_->sources(checkpoint_, quantized)) {
      const StoredTensor& tensor = *checkpoint_.find(name);
      lent_.emplace_back(tensor.file, tensor.view().bytes);
      if (counted_.insert(name).second) linear_bytes_ += tensor.view().bytes.size();
    }
    made.recipe = quantized.recipe;
    made.activation_scale = quantized.activation_scale;
    if (auto found = find_packed(packed, n, k))
      made.weight = std::move(*found);
    else
      made.weight = dialect_->decode(checkpoint_, quantized);
    return made;
  }
  const checkpoint::MatrixSlice values = slice(module, n, k);
  linear_bytes_ += byte_count(values.tensor->entry.dtype, {n, k});
  if (auto found = find_packed(packed, n, k))
    made.weight = std::move(*found);
  else
    made.weight = load(values, made.holder);
  return made;
}

ops::LinearWeight WeightLoader::head(const std::string& module, std::int64_t n, std::int64_t k,
                                     const LoadOptions& options) {
  std::optional<formats::Recipe> recipe = options.head_as_others ? recipe_ : options.head;
  if (options.head_as_others && !modules_.empty()) {
    recipe = modules_.begin()->second.recipe;
    for (const auto& [name, other] : modules_)
      if (other.recipe.name != recipe->name)
        fail(ErrorCode::usage, "{}: the head cannot be as the other layers, which differ: {}", checkpoint_.path(),
             this->recipe());
  }
  if (!recipe || recipe->keeps() || modules_.contains(module)) return read(module, kPackedHead, n, k, false);
  check_quantizes(*recipe, "the head");
  return quantize(module, kPackedHead, n, k, false, *recipe);
}

ops::LinearWeight WeightLoader::quantize(const std::string& module, const std::string& packed, std::int64_t n,
                                         std::int64_t k, bool bias, const formats::Recipe& recipe) {
  release();
  ops::LinearWeight made;
  made.recipe = recipe;
  if (bias) made.bias = this->bias(module, n, made.bias_holder);
  if (auto found = find_packed(packed, n, k)) {
    linear_bytes_ += found->matrix.memory();
    made.weight = std::move(*found);
    return made;
  }
  Tensor holder;
  ops::CastOptions cast;
  cast.name = module + ".weight";
  QuantizedMatrix quantized = ops::quantize(load(slice(module, n, k), holder), recipe.weight, cast);
  linear_bytes_ += static_cast<std::uint64_t>(ceil_div<std::int64_t>(n * k * info(recipe.weight.element).bits, 8)) +
                   quantized.scale.bytes().size() + quantized.zero_point.bytes().size();
  made.weight = std::move(quantized);
  return made;
}

TensorView WeightLoader::embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) {
  if (const auto at = modules_.find(module); at != modules_.end()) {
    holder = ops::dequantize(dialect_->decode(checkpoint_, checked(at->second, n, k)),
                             compute_ == formats::Elem::f32 ? DType::f32 : DType::bf16);
    return holder.view();
  }
  return load(slice(module, n, k), holder);
}

std::string WeightLoader::recipe() const {
  if (recipe_) return recipe_->name;
  std::set<std::string> names;
  for (const auto& [name, module] : modules_) names.insert(module.recipe.name);
  if (names.empty()) return "bf16";
  if (names.size() == 1) return *names.begin();
  return fmt::format("mixed ({})", fmt::join(names, ", "));
}

std::vector<float> read_norm(const Config& config, WeightSource& source, const std::string& name, std::int64_t size) {
  std::vector<float> weight = source.vector(name + ".weight", size);
  if (config.norm_adds_one)
    for (float& value : weight) value += 1;
  return weight;
}

ops::LinearWeight read_head(const Config& config, WeightSource& source, const LoadOptions& options) {
  const bool own = source.has("lm_head");
  if (!own && !config.tie_word_embeddings)
    fail(ErrorCode::bad_input,
         "{}: tensor 'lm_head.weight' is missing and config.json's tie_word_embeddings is not true", source.where());
  return source.head(own ? "lm_head" : "model.embed_tokens", config.vocab_size, config.hidden_size, options);
}

void tell_progress(const Config& config, const LoadOptions& options, std::int64_t parts) {
  if (options.progress)
    options.progress(static_cast<double>(parts) / static_cast<double>(config.num_hidden_layers + 2));
}

bool is_sparse(const Config& config, std::int64_t layer) {
  const auto& dense = config.mlp_only_layers;
  return config.num_experts > 0 && std::find(dense.begin(), dense.end(), layer) == dense.end() &&
         (layer + 1) % config.decoder_sparse_step == 0;
}

}  // namespace lowp::models
