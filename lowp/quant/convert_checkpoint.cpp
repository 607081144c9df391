#include "lowp/quant/convert_checkpoint.h"

#include <algorithm>
#include <map>
#include <set>

#include "lowp/base/error.h"
#include "lowp/checkpoint/dialect_support.h"
#include "lowp/checkpoint/model_writer.h"
#include "lowp/quant/rules.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;
using checkpoint::Dialect;
using checkpoint::QuantizedModule;
using checkpoint::StoredTensor;

const Dialect& source_dialect(const Checkpoint& checkpoint) {
  if (const Dialect* dialect = checkpoint::detect_dialect(checkpoint)) return *dialect;
  fail(ErrorCode::bad_input,
       "{}: is not quantized, so there is nothing to convert; `lowp quantize` makes low precision", checkpoint.path());
}

class ConvertJob {
 public:
  explicit ConvertJob(const ConvertRequest& request)
      : request_(request),
        checkpoint_(checkpoint::resolve_model(request.model)),
        from_(source_dialect(checkpoint_)),
        to_(checkpoint::find_dialect(request.dialect)),
        modules_(from_.modules(checkpoint_)) {}

  ConvertReport run() {
    check_held();
    for (const StoredTensor& tensor : checkpoint_.tensors()) total_ += tensor.view().bytes.size();
    const checkpoint::OutputModel model = output_model();
    checkpoint::ModelWriter writer(checkpoint_, request_.output, request_.overwrite);
    ConvertReport report;
    report.file_bytes = writer.write(model);
    report.from = from_.name();
    report.to = to_.name();
    report.modules = modules_.size();
    report.kept = kept_;
    report.warnings = checkpoint_.warnings();
    if (cache_scales_)
      report.warnings.push_back(fmt::format(
          "{} scales of keys and values are copied under their names, but {}'s config does not declare them",
          cache_scales_, to_.name()));
    return report;
  }

 private:
  // All reasons at once, each with the first modules that it is about.
  void check_held() const {
    if (modules_.empty())
      fail(ErrorCode::bad_input, "{}: is declared to be {}, but no layer is quantized", checkpoint_.path(),
           from_.name());
    std::map<std::string, std::vector<std::string>> reasons;
    for (const QuantizedModule& module : modules_)
      if (const std::string wrong = to_.obstacle(module); !wrong.empty())
        reasons[fmt::format("{}: {}", module.recipe.name, wrong)].push_back(module.name);
    if (reasons.empty()) return;
    std::string text;
    for (const auto& [reason, names] : reasons)
      text += fmt::format("{}{} ({}{})", text.empty() ? "" : "; ", reason, names.front(),
                          names.size() > 1 ? fmt::format(" and {} more", names.size() - 1) : "");
    fail(ErrorCode::unsupported, "{}: dialect {} cannot hold what {} holds: {}", checkpoint_.path(), to_.name(),
         from_.name(), text);
  }

  // Modules of one unit stand where the first tensor of any of them stood.
  checkpoint::OutputModel output_model() {
    std::map<std::string, std::vector<const QuantizedModule*>> units;
    std::map<std::string, std::vector<std::string>> units_of;  // by source tensor
    for (const QuantizedModule& module : modules_) {
      const std::string unit = to_.unit(module);
      units[unit].push_back(&module);
      for (const std::string& tensor : from_.sources(checkpoint_, module)) {
        auto& list = units_of[tensor];
        if (std::find(list.begin(), list.end(), unit) == list.end()) list.push_back(unit);
      }
    }
    checkpoint::OutputModel model;
    model.shard_bytes = request_.shard_bytes;
    std::vector<std::string> plain;
    std::set<std::string> written;
    for (const StoredTensor& tensor : checkpoint_.tensors()) {
      const auto quantized = units_of.find(tensor.entry.name);
      if (quantized == units_of.end()) {
        note_kept(tensor);
        plain.push_back(tensor.entry.name);
        model.items.push_back(checkpoint::copied(tensor, [this](auto bytes) { advance(bytes); }));
        continue;
      }
      for (const std::string& unit : quantized->second)
        if (written.insert(unit).second) model.items.push_back(unit_item(units.at(unit)));
    }
    if (has_embedding_ && !has_head_) kept_.emplace_back("lm_head");  // tied
    model.config = checkpoint_.config().value_or(Json::object());
    checkpoint::erase_quantization_config(*model.config);
    (*model.config)["quantization_config"] = to_.config(modules_, kept_);
    model.metadata = to_.metadata(modules_, plain);
    model.side_files = to_.side_files(modules_, kept_);
    return model;
  }

  void note_kept(const StoredTensor& tensor) {
    for (const char* part : {".k_scale", ".v_scale", ".q_scale", ".kv_scale"})
      cache_scales_ += tensor.entry.name.ends_with(part);
    constexpr std::string_view kWeight = ".weight";
    if (!tensor.entry.name.ends_with(kWeight) || tensor.entry.shape.size() != 2) return;
    const std::string module = tensor.entry.name.substr(0, tensor.entry.name.size() - kWeight.size());
    const Role role = role_of(module);
    has_embedding_ = has_embedding_ || is_token_embedding(module);
    has_head_ = has_head_ || role == Role::head;
    if (role != Role::embedding) kept_.push_back(module);
  }

  checkpoint::OutputItem unit_item(const std::vector<const QuantizedModule*>& unit) {
    std::vector<QuantizedModule> modules;
    for (const QuantizedModule* module : unit) {
      modules.push_back(*module);
      has_head_ = has_head_ || role_of(module->name) == Role::head;
    }
    std::vector<checkpoint::TensorEntry> entries = to_.unit_layout(modules);
    return {entries, [this, modules, entries](checkpoint::SafetensorsWriter& writer) {
              std::vector<QuantizedMatrix> weights;
              for (const QuantizedModule& module : modules) weights.push_back(from_.decode(checkpoint_, module));
              const std::vector<Tensor> tensors = to_.unit_encode(modules, weights);
              for (std::size_t i = 0; i < entries.size(); ++i) writer.append(entries[i].name, tensors[i].bytes());
              for (const QuantizedModule& module : modules) release(module);
            }};
  }

  // A stacked source counts once.
  void release(const QuantizedModule& module) {
    for (const std::string& name : from_.sources(checkpoint_, module)) {
      const StoredTensor& tensor = *checkpoint_.find(name);
      tensor.file->release(tensor.view().bytes);
      if (released_.insert(name).second) advance(tensor.view().bytes.size());
    }
  }

  void advance(std::uint64_t bytes) {
    done_ += bytes;
    if (request_.progress) request_.progress(std::min(done_, total_), total_);
  }

  const ConvertRequest& request_;
  Checkpoint checkpoint_;
  const Dialect& from_;
  const Dialect& to_;
  std::vector<QuantizedModule> modules_;
  std::vector<std::string> kept_;
  bool has_embedding_ = false, has_head_ = false;  // with weights of their own
  std::uint64_t cache_scales_ = 0;
  std::set<std::string> released_;
  std::uint64_t done_ = 0, total_ = 0;
};

ConvertReport convert_to_file(const Dialect& to, const ConvertRequest& request) {
  const Checkpoint checkpoint(checkpoint::resolve_model(request.model));
  const Dialect& from = source_dialect(checkpoint);
  to.check_output(request.output, request.overwrite);
  const checkpoint::FileReport written = to.write_file(checkpoint, request.output, request.progress);
  return {.from = from.name(),
          .to = request.dialect,
          .modules = written.modules,
          .kept = {},
          .file_bytes = written.file_bytes,
          .warnings = checkpoint.warnings()};
}

}  // namespace

ConvertReport convert_checkpoint(const ConvertRequest& request) {
  const Dialect& to = checkpoint::find_dialect(request.dialect);
  return to.is_file() ? convert_to_file(to, request) : ConvertJob(request).run();
}

}  // namespace lowp::quant
