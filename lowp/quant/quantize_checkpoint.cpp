#include "lowp/quant/quantize_checkpoint.h"

#include <algorithm>
#include <map>

#include "lowp/base/error.h"
#include "lowp/base/temporary_folder.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/checkpoint/model_writer.h"
#include "lowp/quant/plan.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;
using checkpoint::Dialect;
using checkpoint::TensorEntry;

bool has_tensor_level_scale(const formats::BlockFormat& format) {
  return format.tensor_scale ||
         (format.rule == formats::Rule::float8 && format.group_rows == 0 && format.group_cols == 0);
}

class QuantizeJob {
 public:
  QuantizeJob(QuantizeRequest request)
      : request_(std::move(request)),
        checkpoint_(checkpoint::resolve_model(request_.model)),
        from_(checkpoint::detect_dialect(checkpoint_)),
        inputs_(request_.calibrate, checkpoint_.path()) {}

  QuantizeReport run() {
    check_input();
    plan_ = make_plan(checkpoint_, from_, request_, inputs_);
    choose_dialect();
    for (const Layer& layer : plan_.layers)
      if (layer.algorithm == Algorithm::gptq && !inputs_.available())
        fail(ErrorCode::usage, "{}: gptq needs a calibration text (--calibrate FILE)", layer.module.name);
    for (const Layer& layer : plan_.layers) total_ += layer_bytes(layer);
    for (const Item& item : plan_.items)
      if (item.copy) total_ += item.copy->view().bytes.size();
    checkpoint::OutputModel model = output_model();
    checkpoint::ModelWriter writer(checkpoint_, request_.output, request_.overwrite);
    share_scales();
    report_.file_bytes = writer.write(model);
    report_.kept = plan_.kept;
    report_.skipped = plan_.skipped;
    report_.unmatched = plan_.unmatched;
    report_.warnings.insert(report_.warnings.end(), checkpoint_.warnings().begin(), checkpoint_.warnings().end());
    return std::move(report_);
  }

 private:
  void check_input() {
    if (from_ && !request_.requantize)
      fail(ErrorCode::bad_input,
           "{}: is quantized already ({}); quantizing again loses accuracy, --requantize does it anyway",
           checkpoint_.path(), from_->name());
    if (!checkpoint_.config()) return;
    const std::string where = checkpoint_.path() + ": config.json";
    if (const auto config = checkpoint::read_model_config(*checkpoint_.config(), where)) {
      if (!from_) checkpoint::check_shapes(*config, checkpoint_);
    } else {
      report_.warnings.push_back(where + ": architecture not known to lowp; tensor shapes were not checked against it");
    }
  }

  void choose_dialect() {
    std::vector<formats::Recipe> recipes;
    for (const Layer& layer : plan_.layers) recipes.push_back(layer.module.recipe);
    dialect_ =
        request_.dialect.empty() ? &checkpoint::default_dialect(recipes) : &checkpoint::find_dialect(request_.dialect);
    for (const Layer& layer : plan_.layers)
      if (const std::string wrong = dialect_->obstacle(layer.module); !wrong.empty())
        fail(ErrorCode::usage, "{}: dialect {} cannot hold recipe {}: {}", layer.module.name, dialect_->name(),
             layer.module.recipe.name, wrong);
    report_.dialect = plan_.layers.empty() ? "none" : dialect_->name();
  }

  static std::uint64_t layer_bytes(const Layer& layer) {
    return byte_count(layer.source.dtype, {layer.source.m, layer.source.k});
  }

  void advance(std::uint64_t bytes) {
    done_ += bytes;
    if (request_.progress) request_.progress(std::min(done_, total_), total_);
  }

  ops::CastOptions options(const Layer& layer, const TensorView& x) const {
    ops::CastOptions result;
    result.scaling = request_.scaling;
    result.shared = layer.shared;
    result.refuse_nonfinite = true;  // MX formats would poison the block of a NaN; in a checkpoint that is never wanted
    result.name =
        layer.source.stored ? layer.source.stored->tensor->file->path() + ": " + layer.module.name : layer.module.name;
    if (const checkpoint::TensorFile* file = layer.source.file()) {
      const std::size_t row = x.bytes.size() / static_cast<std::size_t>(layer.source.m);
      result.rows_read = [file, x, row](std::int64_t rows) {
        file->release(x.bytes.first(row * static_cast<std::size_t>(rows)));
      };
    }
    return result;
  }

  // First pass over the layers that share a tensor-level scale.
  void share_scales() {
    if (request_.sharing == ScaleSharing::per_matrix) return;
    std::map<std::string, std::vector<Layer*>> groups;
    for (Layer& layer : plan_.layers)
      if (has_tensor_level_scale(layer.module.recipe.weight))
        groups[fused_name(layer.module.name) + " " + layer.module.recipe.name].push_back(&layer);
    for (auto& [key, layers] : groups) {
      if (layers.size() < 2) continue;
      formats::GroupStats all;
      for (const Layer* layer : layers) {
        Tensor holder;
        const TensorView x = layer->source.load(checkpoint_, from_, holder);
        all.merge(ops::stats(x, options(*layer, x)));
      }
      for (Layer* layer : layers) layer->shared = all;
    }
  }

  // Layers of one unit of the dialect are written where the first of them stands.
  checkpoint::OutputModel output_model() {
    checkpoint::OutputModel model;
    model.shard_bytes = request_.shard_bytes;
    std::map<std::string, std::size_t> place;  // of a unit in units
    std::vector<std::vector<std::size_t>> units;
    for (std::size_t i = 0; i < plan_.layers.size(); ++i) {
      const auto [at, added] = place.emplace(dialect_->unit(plan_.layers[i].module), units.size());
      if (added) units.emplace_back();
      units[at->second].push_back(i);
    }
    std::vector<std::string> plain;
    for (const Item& item : plan_.items) {
      if (item.layer) {
        const std::vector<std::size_t>& unit = units[place.at(dialect_->unit(plan_.layers[*item.layer].module))];
        if (unit.front() == *item.layer) model.items.push_back(layers_item(unit));
        continue;
      }
      model.items.push_back(item.copy ? checkpoint::copied(*item.copy, [this](auto bytes) { advance(bytes); })
                                      : plain_item(*item.plain));
      plain.push_back(model.items.back().entries[0].name);
    }
    model.config = config();
    if (plan_.layers.empty()) return model;
    const std::vector<checkpoint::QuantizedModule> modules = quantized_modules();
    model.metadata = dialect_->metadata(modules, plain);
    model.side_files = dialect_->side_files(modules, plan_.kept);
    return model;
  }

  std::vector<checkpoint::QuantizedModule> quantized_modules() const {
    std::vector<checkpoint::QuantizedModule> modules;
    for (const Layer& layer : plan_.layers) modules.push_back(layer.module);
    return modules;
  }

  checkpoint::OutputItem plain_item(const WeightSource& source) {
    return {{{source.module + ".weight", source.dtype, {source.m, source.k}}},
            [this, &source](checkpoint::SafetensorsWriter& writer) {
              Tensor holder;
              const TensorView x = source.load(checkpoint_, from_, holder);
              checkpoint::append_bytes(source.module + ".weight", x.bytes, source.file(), writer,
                                       [this](auto bytes) { advance(bytes); });
            }};
  }

  checkpoint::OutputItem layers_item(const std::vector<std::size_t>& unit) {
    std::vector<checkpoint::QuantizedModule> modules;
    for (const std::size_t i : unit) modules.push_back(plan_.layers[i].module);
    std::vector<TensorEntry> entries = dialect_->unit_layout(modules);
    return {entries, [this, unit, modules, entries](checkpoint::SafetensorsWriter& writer) {
              std::vector<QuantizedMatrix> weights;
              for (const std::size_t i : unit) weights.push_back(quantize_layer(plan_.layers[i]));
              const std::vector<Tensor> tensors = dialect_->unit_encode(modules, weights);
              for (std::size_t i = 0; i < entries.size(); ++i) writer.append(entries[i].name, tensors[i].bytes());
            }};
  }

  // Statistics of the layer's inputs, as far as its algorithm wants them and there are any.
  std::shared_ptr<const ops::InputStats> inputs_of(const Layer& layer) {
    const bool gptq = layer.algorithm == Algorithm::gptq;
    if (!inputs_.available() || !(gptq || layer.algorithm == Algorithm::mse)) return nullptr;
    if (!gptq) return inputs_.find(layer.module.name);
    std::vector<std::pair<std::string, std::int64_t>> upcoming;
    for (const Layer* other = &layer; other != plan_.layers.data() + plan_.layers.size(); ++other)
      if (other->algorithm == Algorithm::gptq) upcoming.emplace_back(other->module.name, other->module.k);
    return inputs_.with_gram(layer.module.name, upcoming);
  }

  QuantizedMatrix quantize_layer(const Layer& layer) {
    Tensor holder;
    const TensorView x = layer.source.load(checkpoint_, from_, holder);
    const ops::CastOptions cast = options(layer, x);
    Algorithm algorithm = layer.algorithm;
    const auto inputs = inputs_of(layer);
    if (!inputs && inputs_.available() && algorithm == Algorithm::gptq) {
      report_.warnings.push_back(layer.module.name + ": the calibration text does not reach it: mse in place of gptq");
      algorithm = Algorithm::mse;
    }
    QuantizedMatrix weight = quantize(x, layer.module.recipe.weight, algorithm, cast, inputs.get());
    LayerReport row{layer.module.name, layer.module.recipe.name, layer.source.m, layer.source.k};
    for (const TensorEntry& entry : dialect_->layout(layer.module))
      if (entry.dtype != DType::i64) row.bytes += byte_count(entry.dtype, entry.shape);  // I64 holds shapes
    const auto count = static_cast<std::uint64_t>(layer.source.m) * static_cast<std::uint64_t>(layer.source.k);
    row.bits_per_weight = 8.0 * static_cast<double>(row.bytes) / static_cast<double>(count);
    row.sqnr = ops::sqnr(x, weight, cast);
    report_.quantized_weights += count;
    report_.quantized_bytes += row.bytes;
    report_.layers.push_back(std::move(row));
    advance(layer_bytes(layer));
    return weight;
  }

  std::optional<Json> config() const {
    if (!checkpoint_.config() && plan_.layers.empty()) return std::nullopt;
    Json config = checkpoint_.config().value_or(Json::object());
    checkpoint::erase_quantization_config(config);
    if (plan_.untie_head) config["tie_word_embeddings"] = false;
    if (!plan_.layers.empty()) config["quantization_config"] = dialect_->config(quantized_modules(), plan_.kept);
    return config;
  }

  QuantizeRequest request_;
  Checkpoint checkpoint_;
  const Dialect* from_;
  CalibratedInputs inputs_;
  const Dialect* dialect_ = nullptr;
  Plan plan_;
  QuantizeReport report_;
  std::uint64_t done_ = 0, total_ = 0;
};

// A dialect of one file, whose tensors have another order and shape: the checkpoint is quantized beside it, then
// written.
QuantizeReport quantize_to_file(const Dialect& dialect, QuantizeRequest request) {
  const std::string output = request.output;
  dialect.check_output(output, request.overwrite);
  const TemporaryFolder folder(output, ".quantized");
  request.output = folder.path();
  request.dialect = checkpoint::lowp_dialect().name();
  QuantizeReport report = QuantizeJob(std::move(request)).run();
  report.file_bytes = dialect.write_file(Checkpoint(folder.path()), output, {}).file_bytes;
  report.dialect = dialect.name();
  return report;
}

QuantizeReport quantize_prepared(QuantizeRequest request) {
  if (request.dialect.empty()) return QuantizeJob(std::move(request)).run();
  const Dialect& dialect = checkpoint::find_dialect(request.dialect);
  return dialect.is_file() ? quantize_to_file(dialect, std::move(request)) : QuantizeJob(std::move(request)).run();
}

// The format that the rules give a module's weight.
FormatOf format_by(const Rules& rules) {
  return [&rules](const std::string& module) -> std::optional<formats::BlockFormat> {
    const auto choice = rules.peek(module, role_of(module));
    return choice ? std::optional(choice->recipe.weight) : std::nullopt;
  };
}

}  // namespace

QuantizeReport quantize_checkpoint(QuantizeRequest request) {
  if (request.preparation == Preparation::none) return quantize_prepared(std::move(request));
  const TemporaryFolder folder(request.output, ".prepared");
  bool untied = false;
  {
    const Checkpoint checkpoint(checkpoint::resolve_model(request.model));
    if (const Dialect* from = checkpoint::detect_dialect(checkpoint))
      fail(ErrorCode::unsupported, "{}: is quantized ({}); only float models can be rewritten before quantizing",
           checkpoint.path(), from->name());
    CalibratedInputs inputs(request.calibrate, checkpoint.path());
    const Rewriting rewriting = prepare(request.preparation, checkpoint, inputs, format_by(request.rules));
    untied = rewriting.untie_head;
    write_rewritten(checkpoint, rewriting, folder.path());
  }
  request.model = folder.path();
  QuantizeReport report = quantize_prepared(std::move(request));
  if (untied) report.warnings.push_back("lm_head was tied to the embedding; rotated, it has weights of its own");
  return report;
}

}  // namespace lowp::quant
