#include "lowp/checkpoint/model_writer.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "lowp/base/error.h"

namespace lowp::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kCopyChunk = std::size_t{8} << 20;

fs::path folder_of(const Checkpoint& checkpoint) {
  const fs::path path(checkpoint.path());
  if (checkpoint.is_folder()) return path;
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Replacing the output must not remove the source, nor the files that its folder links to.
const std::string& kept_apart(const std::string& output, const Checkpoint& source) {
  std::error_code ignored;
  if (!fs::exists(output, ignored)) return output;
  std::set<fs::path> folders = {fs::canonical(folder_of(source))};
  for (const StoredTensor& tensor : source.tensors()) folders.insert(fs::canonical(tensor.file->path()).parent_path());
  for (fs::path folder : folders)
    for (; folder.has_relative_path(); folder = folder.parent_path())
      if (fs::equivalent(output, folder, ignored))
        fail(ErrorCode::usage, "{}: the output is the model's own folder or holds it", output);
  return output;
}

// A name may be taken: by what is left of another quantization, or by an expert stored twice.
void check_names(const std::vector<OutputItem>& items, const std::string& source) {
  std::set<std::string> names;
  for (const OutputItem& item : items)
    for (const TensorEntry& entry : item.entries)
      if (!names.insert(entry.name).second)
        fail(ErrorCode::bad_input, "{}: tensor '{}' would be written twice: quantizing makes one of that name", source,
             entry.name);
}

struct Shard {
  std::vector<const OutputItem*> items;
  std::uint64_t bytes = 0;
};

std::vector<Shard> shards(const OutputModel& model) {
  std::vector<Shard> result(1);
  for (const OutputItem& item : model.items) {
    std::uint64_t bytes = 0;
    for (const TensorEntry& entry : item.entries) bytes += byte_count(entry.dtype, entry.shape);
    if (!result.back().items.empty() && result.back().bytes + bytes > model.shard_bytes) result.emplace_back();
    result.back().items.push_back(&item);
    result.back().bytes += bytes;
  }
  return result;
}

void write_json(const fs::path& path, const Json& json) {
  FileWriter out(path.string());
  out.append(json.dump(2) + "\n");
  out.close();
}

std::uint64_t write_shard(const Shard& shard, const std::map<std::string, std::string>& metadata,
                          const std::string& path) {
  std::vector<TensorEntry> announced;
  for (const OutputItem* item : shard.items)
    announced.insert(announced.end(), item->entries.begin(), item->entries.end());
  FileWriter out(path);
  SafetensorsWriter writer(out, std::move(announced), metadata);
  for (const OutputItem* item : shard.items) item->append(writer);
  writer.finish();
  const std::uint64_t size = out.size();
  out.close();
  return size;
}

// Tokenizer, chat template, generation config: everything small beside the weights that is not code.
void copy_companions(const fs::path& from, const fs::path& to) {
  static constexpr std::string_view kEndings[] = {".json", ".jinja", ".txt", ".model"};
  static constexpr std::string_view kOfTheWeights[] = {"config.json", "hf_quant_config.json", "quantize_config.json"};
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    const bool wanted =
        std::any_of(std::begin(kEndings), std::end(kEndings), [&](std::string_view e) { return name.ends_with(e); });
    const bool made_here =
        std::find(std::begin(kOfTheWeights), std::end(kOfTheWeights), name) != std::end(kOfTheWeights);
    if (wanted && !made_here && entry.is_symlink() && !entry.exists())
      fail(ErrorCode::bad_input, "{}: a link to {}, which is not there", entry.path().string(),
           fs::read_symlink(entry.path()).string());
    if (!wanted || made_here || !entry.is_regular_file() || name.ends_with(".safetensors.index.json")) continue;
    FileWriter out((to / name).string());
    out.append(read_text(entry.path().string(), std::size_t{1} << 30));
    out.close();
  }
}

}  // namespace

void append_bytes(const std::string& name, std::span<const std::byte> bytes, const TensorFile* file,
                  SafetensorsWriter& writer, const AdvanceBytes& advance) {
  while (!bytes.empty()) {
    const auto chunk = bytes.first(std::min(bytes.size(), kCopyChunk));
    writer.append(name, chunk);
    if (file) file->release(chunk);
    bytes = bytes.subspan(chunk.size());
    advance(chunk.size());
  }
}

OutputItem copied(const StoredTensor& tensor, const AdvanceBytes& advance) {
  return {{{tensor.entry.name, tensor.entry.dtype, tensor.entry.shape}}, [&tensor, advance](SafetensorsWriter& writer) {
            append_bytes(tensor.entry.name, tensor.view().bytes, tensor.file, writer, advance);
          }};
}

ModelWriter::ModelWriter(const Checkpoint& source, const std::string& output, bool overwrite)
    : source_(source), folder_(folder_of(source).string()), output_(kept_apart(output, source), overwrite) {}

std::uint64_t ModelWriter::write(const OutputModel& model) {
  check_names(model.items, source_.path());
  const fs::path folder = output_.partial();
  const std::vector<Shard> files = shards(model);
  Json weight_map = Json::object();
  auto& map = weight_map.get_ref<Json::object_t&>();  // adding through [] would search for every name
  std::uint64_t tensor_bytes = 0, file_bytes = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string file =
        files.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    file_bytes += write_shard(files[i], model.metadata, (folder / file).string());
    for (const OutputItem* item : files[i].items)
      for (const TensorEntry& entry : item->entries) map.emplace_back(entry.name, file);
    tensor_bytes += files[i].bytes;
  }
  if (files.size() > 1)
    write_json(folder / "model.safetensors.index.json",
               {{"metadata", {{"total_size", tensor_bytes}}}, {"weight_map", weight_map}});
  if (model.config) write_json(folder / "config.json", *model.config);
  if (source_.is_folder()) copy_companions(folder_, folder);
  if (source_.gguf())
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      if (const auto made = source_.companion(name)) write_json(folder / name, *made);
  for (const auto& [name, json] : model.side_files) write_json(folder / name, json);
  output_.commit();
  return file_bytes;
}

}  // namespace lowp::checkpoint
