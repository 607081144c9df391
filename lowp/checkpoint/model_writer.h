// Writing a model folder made from another: shards, index, config.json, and the small files beside them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/output_folder.h"

namespace lowp::checkpoint {

/// Tensors that are made together and go into one file.
struct OutputItem {
  std::vector<TensorEntry> entries;                // names, types and shapes
  std::function<void(SafetensorsWriter&)> append;  // their bytes, in the order of entries
};

/// What is told of the bytes that have been read or written so far.
using AdvanceBytes = std::function<void(std::uint64_t bytes)>;

/// A tensor as it is. Pages that it is mapped from leave memory once they are written.
OutputItem copied(const StoredTensor& tensor, const AdvanceBytes& advance);

/// Appends bytes in pieces, calling `advance` after each; `file` is what they are mapped from, or nullptr.
void append_bytes(const std::string& name, std::span<const std::byte> bytes, const TensorFile* file,
                  SafetensorsWriter& writer, const AdvanceBytes& advance);

/// All that a folder consists of, but for the files that are copied.
struct OutputModel {
  std::vector<OutputItem> items;
  std::map<std::string, std::string> metadata;  // the same in every shard: readers keep only one of them
  std::optional<Json> config;
  std::map<std::string, Json> side_files;
  std::uint64_t shard_bytes = std::uint64_t{5} * 1000 * 1000 * 1000;
};

/// A folder in the making. It appears under its name when write() is done, or not at all.
class ModelWriter {
 public:
  /// Throws Error(usage) if the output is or holds the source's folder, Error(io) as OutputFolder.
  ModelWriter(const Checkpoint& source, const std::string& output, bool overwrite);

  /// Writes everything and puts the folder in place; returns the bytes of all safetensors files. Tokenizer, chat
  /// template and generation config are copied from the source's folder. Throws Error(bad_input) if two tensors have
  /// one name.
  std::uint64_t write(const OutputModel& model);

 private:
  const Checkpoint& source_;
  std::string folder_;  // of the source
  OutputFolder output_;
};

}  // namespace lowp::checkpoint
