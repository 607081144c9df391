// A dialect: how quantized weights are spelled on disk. One file per dialect; the list is in dialects.cpp.  <- ADD A
// DIALECT
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/formats/recipe.h"
#include "lowp/tensor/quantized.h"

namespace lowp::checkpoint {

/// What follows a module's name in the name of its matrix.
inline constexpr std::string_view kWeight = ".weight";

/// A Linear whose weight is quantized.
struct QuantizedModule {
  std::string name;  // without kWeight: "model.layers.0.self_attn.q_proj"
  formats::Recipe recipe;
  std::int64_t m = 0, k = 0;                  // of the weight
  formats::Elem input = formats::Elem::bf16;  // dtype of the original weight
  std::optional<float> activation_scale;      // Scope::calibrated: the multiplier (amax/448, amax/2688, amax/127.5)
  bool reordered = false;                     // the weight has a column_order
  bool pre_scaled = false;                    // the weight has a pre_scale
};

/// What Dialect::write_file() has written.
struct FileReport {
  std::uint64_t file_bytes = 0;
  std::uint64_t modules = 0;  // quantized ones
};

/// Writes and reads one dialect. Objects are stateless constants.
class Dialect {
 public:
  virtual ~Dialect() = default;

  virtual std::string name() const = 0;

  /// False: lowp reads this dialect only (see ReadOnlyDialect).
  virtual bool writes() const { return true; }

  /// "" if the dialect can hold weights and activations of this recipe exactly, else the reason why not.
  virtual std::string refusal(const formats::Recipe& recipe) const = 0;

  /// "" if the dialect can hold this module exactly, else the reason why not: its recipe, its shape, its name. By
  /// default what refusal() says, and that columns are in order and inputs are not smoothed.
  virtual std::string obstacle(const QuantizedModule& module) const;

  /// Names, types and shapes of the tensors that stand for a module (offsets are not filled in).
  virtual std::vector<TensorEntry> layout(const QuantizedModule& module) const = 0;

  /// Their contents, in the order of layout().
  virtual std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight) const = 0;

  /// Modules with equal keys share tensors and are written together (experts that are stacked in one tensor). By
  /// default each module is by itself; a dialect that stacks overrides this and the two functions below, which take all
  /// modules of a unit.
  virtual std::string unit(const QuantizedModule& module) const { return module.name; }
  virtual std::vector<TensorEntry> unit_layout(std::span<const QuantizedModule> modules) const;
  virtual std::vector<Tensor> unit_encode(std::span<const QuantizedModule> modules,
                                          std::span<const QuantizedMatrix> weights) const;

  /// config.json's "quantization_config". `kept` are the Linears left in high precision.
  virtual Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept) const = 0;

  /// Further JSON files of the folder, by name, for readers that look there rather than in config.json.
  virtual std::map<std::string, Json> side_files(std::span<const QuantizedModule> modules,
                                                 std::span<const std::string> kept) const;

  /// What goes into "__metadata__" of the file(s) that hold these modules, beside "format": "pt". `plain` are the names
  /// of the unquantized tensors of the file. Nothing, unless a dialect notes something there.
  virtual std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules,
                                                      std::span<const std::string> plain) const;

  /// Whether a model in this dialect is one file with an order, shapes and metadata of its own, which write_file()
  /// makes; layout() and encode() then say only what its blocks are.
  virtual bool is_file() const { return false; }

  /// Of such a dialect: throws Error(usage) for a name that no file of it has, Error(io) if `path` exists and may not
  /// be replaced.
  virtual void check_output(const std::string& path, bool overwrite) const;

  /// Of such a dialect: writes a checkpoint of any dialect to `path`, which appears when it is complete. Throws Error.
  virtual FileReport write_file(const Checkpoint& checkpoint, const std::string& path,
                                const std::function<void(std::uint64_t done, std::uint64_t total)>& progress) const;

  /// Whether a checkpoint is in this dialect, by its config and its tensors.
  virtual bool recognizes(const Checkpoint& checkpoint) const = 0;

  /// The quantized modules of a checkpoint in this dialect. Throws Error(bad_input) where tensors and declared scheme
  /// differ, naming both; Error(unsupported) for a scheme that lowp has no format for.
  virtual std::vector<QuantizedModule> modules(const Checkpoint& checkpoint) const = 0;

  /// The weight of a module that modules() returned.
  virtual QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module) const = 0;

  /// Names of the checkpoint's tensors that a module is read from: they are not tensors of their own. Modules that are
  /// stacked name the same ones. By default those of layout() that are there.
  virtual std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const;
};

/// What is read but never written.
class ReadOnlyDialect : public Dialect {
 public:
  bool writes() const final { return false; }
  std::string refusal(const formats::Recipe&) const final;
  std::vector<TensorEntry> layout(const QuantizedModule&) const final;
  std::vector<Tensor> encode(const QuantizedModule&, const QuantizedMatrix&) const final;
  Json config(std::span<const QuantizedModule>, std::span<const std::string>) const final;
  std::map<std::string, std::string> metadata(std::span<const QuantizedModule>,
                                              std::span<const std::string>) const final;
  std::vector<std::string> sources(const Checkpoint& checkpoint, const QuantizedModule& module) const override = 0;
};

/// All dialects, in order of detection.
std::span<const Dialect* const> dialects();

/// Names of those that lowp writes: "compressed-tensors, torchao, ...".
std::string dialect_list();

/// One that lowp writes, by name; throws Error(usage) naming the nearest.
const Dialect& find_dialect(const std::string& name);

/// The dialect of a checkpoint, or nullptr if it is not quantized. Throws Error(unsupported) naming the quant_method if
/// the config declares a quantization that no dialect recognizes.
const Dialect* detect_dialect(const Checkpoint& checkpoint);

/// The one that `lowp quantize` takes when none is asked for: the first of compressed-tensors, torchao and lowp that
/// can hold all recipes.
const Dialect& default_dialect(std::span<const formats::Recipe> recipes);

const Dialect& awq_dialect();
const Dialect& bitsandbytes_dialect();
const Dialect& compressed_tensors_dialect();
const Dialect& fp8_block_dialect();
const Dialect& gpt_oss_dialect();
const Dialect& gptq_dialect();
const Dialect& hqq_dialect();
const Dialect& mlx_dialect();
const Dialect& modelopt_dialect();
const Dialect& torchao_dialect();
const Dialect& gguf_dialect();
const Dialect& lowp_dialect();

}  // namespace lowp::checkpoint
