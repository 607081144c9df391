// A checkpoint: named tensors in one or several safetensors files, with the JSON files beside them, or a GGUF model
// seen as such.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/checkpoint/gguf_file.h"
#include "lowp/checkpoint/safetensors.h"

namespace lowp::checkpoint {

/// Resolves MODEL: a folder, a .safetensors or .gguf file, or org/name in the local Hugging Face cache (HF_HUB_CACHE,
/// HF_HOME/hub,
/// ~/.cache/huggingface/hub; the snapshot that refs/main names). Throws Error(io) saying where it looked.
std::string resolve_model(const std::string& model);

/// A tensor and the file it lives in.
struct StoredTensor {
  TensorEntry entry;
  const TensorFile* file = nullptr;

  TensorView view() const { return file->view(entry); }
};

/// Opens all files of a model. With model.safetensors.index.json the weight_map decides (names validated, missing files
/// and tensors are errors, unlisted tensors are reported in warnings()); else model.safetensors; else every
/// *.safetensors but consolidated*, adapter_model*, optimizer*. A file that begins as GGUF does is opened as
/// open_gguf() does. Throws Error(io) or Error(bad_input).
class Checkpoint {
 public:
  explicit Checkpoint(const std::string& path);  // a folder or a file, already resolved

  const std::string& path() const { return path_; }
  bool is_folder() const { return is_folder_; }
  /// Sorted by file, then by place in the file.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(const std::string& name) const;
  /// config.json beside the tensors; nullopt if there is none.
  const std::optional<Json>& config() const { return config_; }
  /// Another JSON file beside the tensors ("tokenizer.json"), or what GGUF's metadata has in its place; nullopt if
  /// there is none. Throws Error.
  std::optional<Json> companion(const std::string& name) const;
  /// The model as the GGUF files have it; nullptr if it is not in GGUF.
  const GgufModel* gguf() const { return gguf_.get(); }
  /// "__metadata__" of all files, merged; the first file wins.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::string path_;
  bool is_folder_ = false;
  void open_safetensors();
  void add(const TensorEntry& entry, const TensorFile& file);
  std::string folder() const;

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::unique_ptr<GgufModel> gguf_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t> index_;
  std::optional<Json> config_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> warnings_;
};

}  // namespace lowp::checkpoint
