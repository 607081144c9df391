// A model's weights as the CPU's kernels read them, in a file beside the model: it is mapped instead of packed again.
//
// The file is safetensors under another name (readers of the model do not take it for a part of it). `__metadata__` has
// "lowp_packed": {"key": ..., "modules": {NAME: fields of PackedMatrix}}; the tensors are NAME.data, NAME.row_scale,
// NAME.row_sum, NAME.pre_scale, NAME.bytes and NAME.words. The head is the module "head".
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/models/model.h"
#include "lowp/ops/linear.h"

namespace lowp::models {

inline constexpr const char* kPackedHead = "head";

/// Where the packed weights of a model stand: MODEL/packed.lowp, or MODEL.packed.lowp of a single file.
std::string packed_path(const checkpoint::Checkpoint& checkpoint);

/// What packed weights depend on: config.json, names, shapes and samples of the bytes of all tensors; compute, recipe,
/// head, the kernels' arithmetic, and the version of the layout.
std::string packed_key(const checkpoint::Checkpoint& checkpoint, const LoadOptions& options);

/// Fields of a PackedMatrix without its memory, from a module's JSON. Throws Error(bad_input) naming `where`, field and
/// value unless kernels can read what they say.
kernels::cpu::PackedMatrix parse_packed_fields(const Json& fields, const std::string& where);

class PackedFile {
 public:
  /// nullptr if there is no file at `path`, or one of another key, which is made only if there is a file: it reads from
  /// all tensors of the model. Throws Error(bad_input) for a file that is damaged.
  static std::unique_ptr<PackedFile> open(const std::string& path, const std::function<std::string()>& key);

  /// The module's weight [n, k], or nullopt if the file has none. Its memory is the mapped file, which it keeps. Throws
  /// Error(bad_input).
  std::optional<ops::PackedWeight> find(const std::string& module, std::int64_t n, std::int64_t k) const;

 private:
  PackedFile() = default;
  std::shared_ptr<checkpoint::SafetensorsFile> file_;
  std::map<std::string, Json> modules_;
};

/// Writes what is packed of these Linears; returns the file's bytes. Throws Error(io).
std::uint64_t write_packed(const std::string& path, const std::string& key,
                           std::span<const std::pair<std::string, const ops::Linear*>> linears);

}  // namespace lowp::models
