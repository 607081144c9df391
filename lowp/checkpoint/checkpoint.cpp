#include "lowp/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "lowp/base/env.h"
#include "lowp/base/error.h"
#include "lowp/checkpoint/gguf_tokenizer.h"

namespace lowp::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kConfigName = "config.json";

// Questions to the file system whose "no" includes "may not look".
bool has(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// True for a dangling link too: a file that was meant to be there is opened and fails, not silently done without.
bool has_entry(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool has_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// A name of letters, digits, '.', '-' and '_' that is not "." or "..": what the Hub accepts, and safe as one path
// component.
bool is_hub_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  };
  return !name.empty() && name != "." && name != ".." && std::all_of(name.begin(), name.end(), allowed);
}

fs::path hub_cache() {
  if (const std::string cache = env::get("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = env::get("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  const std::string cache = env::get("XDG_CACHE_HOME");
  return (cache.empty() ? fs::path(env::get("HOME")) / ".cache" : fs::path(cache)) / "huggingface/hub";
}

std::string resolve_in_cache(const std::string& org, const std::string& name) {
  const std::string model = org + "/" + name;
  const fs::path folder = hub_cache() / ("models--" + org + "--" + name);
  if (!has_folder(folder))
    fail(ErrorCode::io, "{}: no such file or folder, and not in the Hugging Face cache: no {}", model, folder.string());
  const fs::path ref = folder / "refs/main";
  if (!has(ref)) fail(ErrorCode::io, "{}: the Hugging Face cache has no main revision: no {}", model, ref.string());
  std::string revision = read_text(ref.string(), 4096);
  while (!revision.empty() && (revision.back() == '\n' || revision.back() == '\r' || revision.back() == ' '))
    revision.pop_back();
  if (!is_hub_name(revision))
    fail(ErrorCode::bad_input, "{}: expected the name of a snapshot, found {}", ref.string(), quote(revision));
  const fs::path snapshot = folder / "snapshots" / revision;
  if (!has_folder(snapshot))
    fail(ErrorCode::io, "{}: {} names a snapshot that is not there: no {}", model, ref.string(), snapshot.string());
  return snapshot.string();
}

// Tensor name -> file name, as model.safetensors.index.json has it.
using WeightMap = std::map<std::string, std::string>;

// Why a file name of an index is refused; empty if it is accepted. Only files beside the index are: a name must not
// lead out of the folder. Symlinks are followed, since the Hugging Face cache consists of them.
std::string_view file_name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name == "." || name == "..") return "is a folder";
  for (const char c : name) {
    if (c == '/' || c == '\\') return "contains a path separator";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return "contains a control character";
  }
  return "";
}

WeightMap read_weight_map(const fs::path& folder) {
  const std::string path = (folder / kIndexName).string();
  const Json root = read_json(path);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object())
    fail(ErrorCode::bad_input, "{}: expected an object with an object 'weight_map'", path);
  WeightMap map;
  std::set<std::string> checked;
  for (const auto& [tensor, file] : root["weight_map"].items()) {
    if (!file.is_string())
      fail(ErrorCode::bad_input, "{}: tensor {}: expected a file name, found {}", path, quote(tensor),
           quote(file.dump()));
    const auto& name = file.get_ref<const std::string&>();
    map.emplace(tensor, name);
    if (!checked.insert(name).second) continue;
    if (const auto fault = file_name_fault(name); !fault.empty())
      fail(ErrorCode::bad_input, "{}: tensor {}: the file name {} {}", path, quote(tensor), quote(name), fault);
    if (!has(folder / name))
      fail(ErrorCode::io, "{}: tensor {} is in {}, which is missing from {}", path, quote(tensor), quote(name),
           folder.string());
  }
  if (map.empty()) fail(ErrorCode::bad_input, "{}: 'weight_map' is empty", path);
  return map;
}

std::vector<std::string> files_of(const WeightMap& map) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) names.insert(file);
  return {names.begin(), names.end()};
}

std::optional<Json> read_config(const fs::path& folder) {
  const fs::path path = folder / kConfigName;
  if (!has_entry(path)) return std::nullopt;
  Json config = read_json(path.string());
  if (!config.is_object())
    fail(ErrorCode::bad_input, "{}: expected a JSON object, found {}", path.string(), quote(config.dump()));
  return config;
}

// Formats of other programs, adapters and training state that live in the same folder.
bool is_model_file(const std::string& name) {
  return name.ends_with(".safetensors") && !name.starts_with(".") && !name.starts_with("consolidated") &&
         !name.starts_with("adapter_model") && !name.starts_with("optimizer");
}

// The files of a folder without an index, in the order of their names.
std::vector<std::string> list_files(const fs::path& folder) {
  if (has_entry(folder / kSingleName)) return {kSingleName};
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (is_model_file(name) && !has_folder(entry->path())) names.push_back(std::move(name));
  }
  if (error) fail(ErrorCode::io, "{}: cannot list: {}", folder.string(), error.message());
  if (names.empty())
    fail(ErrorCode::io, "{}: no {}, no {} and no other model file *.safetensors", folder.string(), kIndexName,
         kSingleName);
  std::sort(names.begin(), names.end());
  return names;
}

// "'a', 'b', 'c' and 4 more".
std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + quote(names[i]);
  return names.size() > kShown ? fmt::format("{} and {} more", text, names.size() - kShown) : text;
}

// Tensors of one file that the index does not take from it.
struct Ignored {
  std::vector<std::string> unlisted, elsewhere;

  void report(const std::string& file, std::vector<std::string>& warnings) const {
    if (!unlisted.empty())
      warnings.push_back(fmt::format("{}: ignored {} tensors that the index does not list: {}", file, unlisted.size(),
                                     some_of(unlisted)));
    if (!elsewhere.empty())
      warnings.push_back(fmt::format("{}: ignored {} tensors that the index assigns to another file: {}", file,
                                     elsewhere.size(), some_of(elsewhere)));
  }
};

}  // namespace

std::string resolve_model(const std::string& model) {
  if (has(model)) return model;
  const auto slash = std::min(model.find('/'), model.size());
  const std::string org = model.substr(0, slash), name = model.substr(std::min(slash + 1, model.size()));
  if (is_hub_name(org) && is_hub_name(name)) return resolve_in_cache(org, name);
  fail(ErrorCode::io, "{}: no such file or folder, and not an org/name of the Hugging Face cache", model);
}

Checkpoint::Checkpoint(const std::string& path) : path_(path), is_folder_(has_folder(path)) {
  if (is_folder_ || !is_gguf(path)) {
    open_safetensors();
    return;
  }
  gguf_ = std::make_unique<GgufModel>(open_gguf(path));
  for (const auto& file : gguf_->files)
    for (const TensorEntry& entry : file->entries()) add(entry, *file);
  config_ = gguf_->config;
}

std::string Checkpoint::folder() const { return is_folder_ ? path_ : fs::path(path_).parent_path().string(); }

void Checkpoint::add(const TensorEntry& entry, const TensorFile& file) {
  const auto [place, added] = index_.emplace(entry.name, tensors_.size());
  if (!added)
    fail(ErrorCode::bad_input, "{}: tensor {} is in {} too, and there is no {} to choose", file.path(),
         quote(entry.name), tensors_[place->second].file->path(), kIndexName);
  tensors_.push_back({entry, &file});
}

void Checkpoint::open_safetensors() {
  const fs::path folder = this->folder();
  const bool indexed = is_folder_ && has_entry(folder / kIndexName);
  const WeightMap map = indexed ? read_weight_map(folder) : WeightMap{};
  const std::vector<std::string> names = indexed      ? files_of(map)
                                         : is_folder_ ? list_files(folder)
                                                      : std::vector{fs::path(path_).filename().string()};
  for (const std::string& name : names) {
    const auto& file = files_.emplace_back(std::make_unique<SafetensorsFile>((folder / name).string()));
    Ignored ignored;
    for (const TensorEntry& entry : file->header().tensors) {
      const auto listed = map.find(entry.name);
      if (indexed && listed == map.end()) {
        ignored.unlisted.push_back(entry.name);
      } else if (indexed && listed->second != name) {
        ignored.elsewhere.push_back(entry.name);
      } else {
        add(entry, *file);
      }
    }
    ignored.report(name, warnings_);
    metadata_.insert(file->header().metadata.begin(), file->header().metadata.end());
  }
  for (const auto& [tensor, name] : map)
    if (!index_.contains(tensor))
      fail(ErrorCode::bad_input, "{}: tensor {} is not in {}, where the index says it is",
           (folder / kIndexName).string(), quote(tensor), quote(name));
  config_ = read_config(folder);
}

std::optional<Json> Checkpoint::companion(const std::string& name) const {
  if (gguf_) {
    if (name == "tokenizer.json") return tokenizer_from_gguf(gguf_->metadata());
    if (name == "tokenizer_config.json") return tokenizer_config_from_gguf(gguf_->metadata());
    return std::nullopt;
  }
  const fs::path path = fs::path(folder()) / name;
  if (!has_entry(path)) return std::nullopt;
  return read_json(path.string());
}

const StoredTensor* Checkpoint::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace lowp::checkpoint
