// The schema of compressed-tensors: how a recipe is spelled in config.json and what a config says about a module.
// Internal to the dialect; the tensors are in compressed_tensors.h.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/base/match.h"
#include "lowp/formats/recipe.h"

namespace lowp::checkpoint::compressed_tensors {

enum class Strategy : std::uint8_t { tensor, channel, group, tensor_group, block, token };

/// Whether parameters are in the file or chosen at run time; local: the tensor's are in the file, the groups' are not.
enum class Dynamic : std::uint8_t { no, yes, local };

/// Stored type of the scales; floating is any of f16, bf16 and f32, whichever the tensor has.
enum class ScaleType : std::uint8_t { floating, e8m0, e4m3 };

/// "QuantizationArgs": what the schema says about one operand, as far as it decides values.
struct Args {
  int num_bits = 8;
  bool is_float = false;
  bool symmetric = true;
  Strategy strategy = Strategy::tensor;
  int group_size = 0;  // columns that share a scale: group, tensor_group and block
  int block_rows = 0;  // rows that share one: block
  Dynamic dynamic = Dynamic::no;
  ScaleType scale = ScaleType::floating;

  bool operator==(const Args&) const = default;
};

/// A config group without its targets.
struct Scheme {
  Args weights;
  std::optional<Args> input;
  std::string format;      // "pack-quantized", ...; "" if the config leaves it open
  bool reordered = false;  // actorder "group": "weight_g_idx" says which columns a group has
};

/// Which tensor holds the codes of a format.
enum class Storage : std::uint8_t {
  bytes,   // "weight" F8_E4M3 or I8
  words,   // "weight_packed" I32: integers in offset binary, a bit stream for each row
  stream,  // "weight_packed" U8: floats of 4 and 6 bits, a bit stream for each row
};
/// nullopt if the format is not one that lowp reads.
std::optional<Storage> storage_of(const std::string& format);

/// The scheme of a recipe, or why it has none.
struct Spelling {
  Scheme scheme;
  std::string refusal;
};
Spelling spell(const formats::Recipe& recipe);

/// The recipe that a scheme stands for. Several formats may share a spelling (int8 and int8_channel): `scales` is the
/// stored type of the weight scales and breaks the tie. nullopt if lowp has no format with these parameters.
std::optional<formats::Recipe> nearest_recipe(const Scheme& scheme, formats::Elem scales);

/// A config group.
Json to_json(const Scheme& scheme, const std::vector<std::string>& targets);

/// A "quantization_config", checked and ready to be asked about modules.
class Config {
 public:
  /// `where` names the file in messages. Throws Error(bad_input) for what the schema forbids and Error(unsupported) for
  /// what lowp cannot do (sparsity, transforms, quantized outputs).
  Config(const Json& json, std::string where);

  /// The scheme of a module; nullptr if it is ignored or no group targets it. Precedence as in the package: exact
  /// names, then regular expressions in the order of their text, then class names.
  const Scheme* find(const std::string& module) const;

  /// "is in ignore" or "is targeted by no config group": why find() is nullptr.
  std::string why_not(const std::string& module) const;

  /// Targets that are spelled in full, module or class names.
  const std::map<std::string, std::size_t>& names() const { return names_; }

 private:
  bool ignores(const std::string& module) const;

  std::vector<Scheme> schemes_;
  std::map<std::string, std::size_t> names_;                   // target -> scheme
  std::vector<std::pair<NamePattern, std::size_t>> patterns_;  // "re:" targets
  std::vector<std::string> ignored_names_;                     // sorted
  std::vector<NamePattern> ignored_patterns_;
};

/// "a 4-bit int weight by group of 128 with dynamic 8-bit float input by token": a scheme in words, for messages.
std::string describe(const Scheme& scheme);

}  // namespace lowp::checkpoint::compressed_tensors
