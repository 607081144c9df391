// A GGUF model, seen as the Hugging Face checkpoint that it was made from.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lowp/base/file.h"
#include "lowp/checkpoint/gguf_architectures.h"
#include "lowp/checkpoint/tensor_file.h"

namespace lowp::checkpoint {

/// Whether the file begins as GGUF does. Throws Error(io).
bool is_gguf(const std::string& path);

/// One file of a model. Its entries have Hugging Face names, stacked experts one entry each; view() undoes what
/// llama.cpp's converter does to values: the order of rows in q and k of Llama, the 1 added to Gemma's norms.
class GgufFile final : public TensorFile {
 public:
  /// Throws Error(io), or what parse_gguf() throws.
  explicit GgufFile(const std::string& path);

  const std::string& path() const override { return file_.path(); }
  /// Empty: what GGUF calls metadata is typed, and in header().
  const std::map<std::string, std::string>& metadata() const override { return no_text_; }
  TensorView view(const TensorEntry& entry) const override;
  void release(std::span<const std::byte> part) const override;

  const GgufHeader& header() const { return header_; }
  /// Bytes of a tensor as the file has them.
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;
  /// Fills entries(), once it is known what the model is.
  void name_entries(const GgufArchitecture& architecture, std::int64_t head_dim, std::int64_t experts);
  const std::vector<TensorEntry>& entries() const { return entries_; }

 private:
  enum class Change { rows_in_halves, minus_one };
  void add_entry(const GgufArchitecture& architecture, const std::string& name, const GgufTensor& tensor);
  std::span<const std::byte> raw(const TensorEntry& entry) const;

  MappedFile file_;
  GgufHeader header_;
  std::map<std::string, std::string> no_text_;
  std::int64_t head_dim_ = 0;
  std::vector<TensorEntry> entries_;
  std::map<std::string, Change> changes_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Tensor> changed_;  // made when first asked for, and kept: views point into them
};

/// All files of a model, and the JSON files that stand beside a checkpoint of Hugging Face.
struct GgufModel {
  std::vector<std::unique_ptr<GgufFile>> files;
  Json config;
  const GgufMetadata& metadata() const { return files.front()->header().metadata; }
};

/// Opens PREFIX.gguf, or PREFIX-00001-of-0000N.gguf with the files that belong to it. Throws Error(io) for a missing
/// one, Error(bad_input) for files that do not fit together, Error(unsupported) for an architecture or a tensor without
/// a Hugging Face name.
GgufModel open_gguf(const std::string& path);

}  // namespace lowp::checkpoint
