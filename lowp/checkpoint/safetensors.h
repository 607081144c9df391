// safetensors: a strict, mapped reader and a streaming writer.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lowp/base/file.h"
#include "lowp/checkpoint/tensor_file.h"

namespace lowp::checkpoint {

/// What the header of a safetensors file says.
struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;             // in file order
  std::map<std::string, std::string> metadata;  // "__metadata__"
  std::uint64_t data_offset = 0;                // of the data buffer in the file
};

/// Parses and validates all rules of checkpoint-formats 1.3. `bytes` is the whole file, `where` names it in messages.
/// Throws Error(bad_input) naming file, tensor, expected and found.
SafetensorsHeader parse_safetensors(std::span<const std::byte> bytes, const std::string& where);

/// A mapped file with its header.
class SafetensorsFile final : public TensorFile {
 public:
  /// Throws Error(io) or Error(bad_input).
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const override { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const override { return header_.metadata; }
  const SafetensorsHeader& header() const { return header_; }
  /// nullptr if there is no such tensor.
  const TensorEntry* find(const std::string& name) const;
  TensorView view(const TensorEntry& entry) const override;
  void release(std::span<const std::byte> part) const override { file_.release(part); }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t> index_;
};

/// Writes one safetensors file: all tensors are announced first, then their bytes follow in the order given. The data
/// buffer starts at a multiple of 64. Throws Error(io).
class SafetensorsWriter {
 public:
  /// begin/end of the entries are filled in by the writer. "format": "pt" is always added to the metadata.
  SafetensorsWriter(FileWriter& out, std::vector<TensorEntry> tensors, std::map<std::string, std::string> metadata);

  /// Appends bytes of the next announced tensor; may be called in pieces. LOWP_CHECKs order and size.
  void append(const std::string& tensor, std::span<const std::byte> bytes);
  /// All announced bytes must have been written.
  void finish();

 private:
  FileWriter& out_;
  std::vector<TensorEntry> tensors_;
  std::size_t next_ = 0;
  std::uint64_t written_ = 0;  // of tensors_[next_]
};

}  // namespace lowp::checkpoint
