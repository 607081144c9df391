#include "lowp/quant/quantize_checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "lowp/base/error.h"
#include "lowp/checkpoint/gguf_write.h"
#include "lowp/checkpoint/model_config.h"
#include "lowp/checkpoint/output_folder.h"
#include "lowp/quant/plan.h"

namespace lowp::quant {
namespace fs = std::filesystem;
namespace {

using checkpoint::Checkpoint;
using checkpoint::Dialect;
using checkpoint::TensorEntry;

constexpr std::size_t kCopyChunk = std::size_t{8} << 20;

// The fused matrix that a layer belongs to: layers with equal keys share tensor-level scales.
std::string fused_key(const std::string& module) {
  static constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"q_proj", "qkv"},      {"k_proj", "qkv"}, {"v_proj", "qkv"}, {"gate_proj", "gate_up"},
      {"up_proj", "gate_up"}, {"w1", "w13"},     {"w3", "w13"}};
  const auto dot = module.rfind('.');
  const std::string last = module.substr(dot + 1);
  for (const auto& [part, whole] : kParts)
    if (last == part) return module.substr(0, dot + 1) + std::string(whole);
  return module;
}

bool has_tensor_level_scale(const formats::BlockFormat& format) {
  return format.tensor_scale ||
         (format.rule == formats::Rule::float8 && format.group_rows == 0 && format.group_cols == 0);
}

// A range of output that goes into one file.
struct Shard {
  std::vector<const Item*> items;
  std::uint64_t bytes = 0;
};

class Job {
 public:
  Job(QuantizeRequest request)
      : request_(std::move(request)),
        checkpoint_(checkpoint::resolve_model(request_.model)),
        from_(checkpoint::detect_dialect(checkpoint_)) {}

  QuantizeReport run() {
    check_input();
    plan_ = make_plan(checkpoint_, from_, request_);
    choose_dialect();
    for (const Layer& layer : plan_.layers) total_ += layer_bytes(layer);
    for (const Item& item : plan_.items)
      if (item.copy) total_ += item.copy->view().bytes.size();
    check_names();
    checkpoint::OutputFolder folder(request_.output, request_.overwrite);
    share_scales();
    write_tensors(folder.partial());
    write_config(folder.partial());
    copy_companions(folder.partial());
    folder.commit();
    report_.kept = plan_.kept;
    report_.skipped = plan_.skipped;
    report_.unmatched = plan_.unmatched;
    report_.warnings.insert(report_.warnings.end(), checkpoint_.warnings().begin(), checkpoint_.warnings().end());
    return std::move(report_);
  }

 private:
  void check_input() {
    keep_input_out_of_output();
    if (from_ && !request_.requantize)
      fail(ErrorCode::bad_input,
           "{}: is quantized already ({}); quantizing again loses accuracy, --requantize does it anyway",
           checkpoint_.path(), from_->name());
    if (!checkpoint_.config()) return;
    const std::string where = (folder_of_input() / "config.json").string();
    if (const auto config = checkpoint::read_model_config(*checkpoint_.config(), where)) {
      if (!from_) checkpoint::check_shapes(*config, checkpoint_);
    } else {
      report_.warnings.push_back(where + ": architecture not known to lowp; tensor shapes were not checked against it");
    }
  }

  // Replacing the output must not remove the model, nor the files that the model's folder links to.
  void keep_input_out_of_output() const {
    std::error_code ignored;
    if (!fs::exists(request_.output, ignored)) return;
    std::set<fs::path> folders = {fs::canonical(folder_of_input())};
    for (const checkpoint::StoredTensor& tensor : checkpoint_.tensors())
      folders.insert(fs::canonical(tensor.file->path()).parent_path());
    for (fs::path folder : folders)
      for (; folder.has_relative_path(); folder = folder.parent_path())
        if (fs::equivalent(request_.output, folder, ignored))
          fail(ErrorCode::usage, "{}: the output is the model's own folder or holds it", request_.output);
  }

  // The name of a quantized layer's tensor may be taken, by what is left of another quantization or by an expert stored
  // twice.
  void check_names() const {
    std::set<std::string> names;
    for (const Item& item : plan_.items)
      for (TensorEntry& entry : entries(item))
        if (const auto [name, added] = names.insert(std::move(entry.name)); !added)
          fail(ErrorCode::bad_input, "{}: tensor '{}' would be written twice: quantizing makes one of that name",
               checkpoint_.path(), *name);
  }

  fs::path folder_of_input() const {
    const fs::path path(checkpoint_.path());
    if (checkpoint_.is_folder()) return path;
    return path.has_parent_path() ? path.parent_path() : fs::path(".");
  }

  void choose_dialect() {
    std::vector<formats::Recipe> recipes;
    for (const Layer& layer : plan_.layers) recipes.push_back(layer.module.recipe);
    dialect_ =
        request_.dialect.empty() ? &checkpoint::default_dialect(recipes) : &checkpoint::find_dialect(request_.dialect);
    for (const Layer& layer : plan_.layers)
      if (const std::string wrong = dialect_->refusal(layer.module.recipe); !wrong.empty())
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
        layer.source.stored ? layer.source.stored->file->path() + ": " + layer.module.name : layer.module.name;
    if (layer.source.stored) {
      const checkpoint::TensorFile* file = layer.source.stored->file;
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
        groups[fused_key(layer.module.name) + " " + layer.module.recipe.name].push_back(&layer);
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

  std::vector<TensorEntry> entries(const Item& item) const {
    if (item.copy) return {{item.copy->entry.name, item.copy->entry.dtype, item.copy->entry.shape}};
    if (item.plain) return {{item.plain->module + ".weight", item.plain->dtype, {item.plain->m, item.plain->k}}};
    return dialect_->layout(plan_.layers[*item.layer].module);
  }

  std::vector<Shard> shards() const {
    std::vector<Shard> result(1);
    for (const Item& item : plan_.items) {
      std::uint64_t bytes = 0;
      for (const TensorEntry& entry : entries(item)) bytes += byte_count(entry.dtype, entry.shape);
      if (!result.back().items.empty() && result.back().bytes + bytes > request_.shard_bytes) result.emplace_back();
      result.back().items.push_back(&item);
      result.back().bytes += bytes;
    }
    return result;
  }

  void write_tensors(const fs::path& folder) {
    const std::vector<Shard> files = shards();
    Json weight_map = Json::object();
    auto& map = weight_map.get_ref<Json::object_t&>();  // adding through [] would search for every name
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < files.size(); ++i) {
      const std::string file = files.size() == 1 ? "model.safetensors"
                                                 : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
      write_shard(files[i], (folder / file).string());
      for (const Item* item : files[i].items)
        for (const TensorEntry& entry : entries(*item)) map.emplace_back(entry.name, file);
      total += files[i].bytes;
    }
    if (files.size() == 1) return;
    checkpoint_index(folder, {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}});
  }

  static void checkpoint_index(const fs::path& folder, const Json& index) {
    write_json(folder / "model.safetensors.index.json", index);
  }

  static void write_json(const fs::path& path, const Json& json) {
    FileWriter out(path.string());
    out.append(json.dump(2) + "\n");
    out.close();
  }

  void write_shard(const Shard& shard, const std::string& path) {
    std::vector<TensorEntry> announced;
    for (const Item* item : shard.items)
      for (TensorEntry& entry : entries(*item)) announced.push_back(std::move(entry));
    FileWriter out(path);
    checkpoint::SafetensorsWriter writer(out, std::move(announced), metadata());
    for (const Item* item : shard.items) {
      if (item->copy)
        copy_tensor(*item->copy, writer);
      else if (item->plain)
        write_plain(*item->plain, writer);
      else
        write_layer(plan_.layers[*item->layer], writer);
    }
    writer.finish();
    report_.file_bytes += out.size();
    out.close();
  }

  // The same in every file: readers of sharded checkpoints keep only one of them.
  std::map<std::string, std::string> metadata() const {
    if (plan_.layers.empty()) return {};
    std::vector<std::string> plain;
    for (const Item& item : plan_.items)
      if (!item.layer)
        for (const TensorEntry& entry : entries(item)) plain.push_back(entry.name);
    return dialect_->metadata(quantized_modules(), plain);
  }

  std::vector<checkpoint::QuantizedModule> quantized_modules() const {
    std::vector<checkpoint::QuantizedModule> modules;
    for (const Layer& layer : plan_.layers) modules.push_back(layer.module);
    return modules;
  }

  void copy_tensor(const checkpoint::StoredTensor& tensor, checkpoint::SafetensorsWriter& writer) {
    append(tensor.entry.name, tensor.view().bytes, tensor.file, writer);
  }

  // In pieces; pages that are mapped from a file leave memory once they are written.
  void append(const std::string& name, std::span<const std::byte> bytes, const checkpoint::TensorFile* file,
              checkpoint::SafetensorsWriter& writer) {
    while (!bytes.empty()) {
      const auto chunk = bytes.first(std::min(bytes.size(), kCopyChunk));
      writer.append(name, chunk);
      if (file) file->release(chunk);
      bytes = bytes.subspan(chunk.size());
      advance(chunk.size());
    }
  }

  void write_plain(const WeightSource& source, checkpoint::SafetensorsWriter& writer) {
    Tensor holder;
    const TensorView x = source.load(checkpoint_, from_, holder);
    append(source.module + ".weight", x.bytes, source.stored ? source.stored->file : nullptr, writer);
  }

  void write_layer(const Layer& layer, checkpoint::SafetensorsWriter& writer) {
    Tensor holder;
    const TensorView x = layer.source.load(checkpoint_, from_, holder);
    const ops::CastOptions cast = options(layer, x);
    const QuantizedMatrix weight = quantize(x, layer.module.recipe.weight, layer.algorithm, cast);
    LayerReport row{layer.module.name, layer.module.recipe.name, layer.source.m, layer.source.k};
    const std::vector<TensorEntry> layout = dialect_->layout(layer.module);
    const std::vector<Tensor> tensors = dialect_->encode(layer.module, weight);
    for (std::size_t i = 0; i < layout.size(); ++i) {
      writer.append(layout[i].name, tensors[i].bytes());
      if (layout[i].dtype != DType::i64) row.bytes += tensors[i].bytes().size();  // I64 holds shapes
    }
    const auto count = static_cast<std::uint64_t>(layer.source.m) * static_cast<std::uint64_t>(layer.source.k);
    row.bits_per_weight = 8.0 * static_cast<double>(row.bytes) / static_cast<double>(count);
    row.sqnr = ops::sqnr(x, weight, cast);
    report_.quantized_weights += count;
    report_.quantized_bytes += row.bytes;
    report_.layers.push_back(std::move(row));
    advance(layer_bytes(layer));
  }

  void write_config(const fs::path& folder) {
    if (!checkpoint_.config() && plan_.layers.empty()) return;
    Json config = checkpoint_.config().value_or(Json::object());
    config.erase("quantization_config");
    config.erase("compression_config");
    if (plan_.untie_head) config["tie_word_embeddings"] = false;
    if (!plan_.layers.empty()) config["quantization_config"] = dialect_->config(quantized_modules(), plan_.kept);
    write_json(folder / "config.json", config);
  }

  // Tokenizer, chat template, generation config: everything small beside the weights that is not code.
  void copy_companions(const fs::path& folder) {
    if (!checkpoint_.is_folder()) return;
    static constexpr std::string_view kEndings[] = {".json", ".jinja", ".txt", ".model"};
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_of_input())) {
      const std::string name = entry.path().filename().string();
      const bool wanted =
          std::any_of(std::begin(kEndings), std::end(kEndings), [&](std::string_view e) { return name.ends_with(e); });
      if (!wanted || !entry.is_regular_file() || name == "config.json" || name == "hf_quant_config.json" ||
          name.ends_with(".safetensors.index.json"))
        continue;
      FileWriter out((folder / name).string());
      out.append(read_text(entry.path().string(), std::size_t{1} << 30));
      out.close();
    }
  }

  QuantizeRequest request_;
  Checkpoint checkpoint_;
  const Dialect* from_;
  const Dialect* dialect_ = nullptr;
  Plan plan_;
  QuantizeReport report_;
  std::uint64_t done_ = 0, total_ = 0;
};

// A folder that goes when the object goes.
struct TemporaryFolder {
  std::string path;
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

// GGUF is one file whose tensors have another order and shape: the checkpoint is quantized beside it, then written.
QuantizeReport quantize_to_gguf(QuantizeRequest request) {
  const std::string output = request.output;
  if (!output.ends_with(".gguf")) fail(ErrorCode::usage, "{}: a GGUF file's name ends in .gguf", output);
  if (fs::exists(output) && !request.overwrite) fail(ErrorCode::io, "{}: exists already", output);
  const TemporaryFolder folder{fmt::format("{}.quantized-{}", output, ::getpid())};
  request.output = folder.path;
  request.dialect = checkpoint::lowp_dialect().name();
  QuantizeReport report = Job(std::move(request)).run();
  report.file_bytes = checkpoint::write_gguf(Checkpoint(folder.path), output).file_bytes;
  report.dialect = checkpoint::gguf_dialect().name();
  return report;
}

}  // namespace

QuantizeReport quantize_checkpoint(QuantizeRequest request) {
  if (request.dialect == checkpoint::gguf_dialect().name()) return quantize_to_gguf(std::move(request));
  return Job(std::move(request)).run();
}

}  // namespace lowp::quant
