// What quantize_checkpoint() will do: which tensors become which layers, in which order they are written.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/expert_stack.h"
#include "lowp/quant/quantize_checkpoint.h"

namespace lowp::quant {

/// A weight [m, k] of a checkpoint: a tensor, a slice of a fused expert tensor, or a quantized module to be decoded.
struct WeightSource {
  std::string module;  // without ".weight"
  Role role = Role::linear;
  std::int64_t m = 0, k = 0;
  DType dtype = DType::bf16;
  std::optional<checkpoint::MatrixSlice> stored;  // nullopt: decode `quantized`
  checkpoint::QuantizedModule quantized;
  std::string obstacle;  // why no format can hold it, or ""

  /// The file that has the values one row after the other; nullptr if they have to be gathered or decoded.
  const checkpoint::TensorFile* file() const { return stored && stored->contiguous() ? stored->tensor->file : nullptr; }
  /// The values; `holder` owns them unless file() has them.
  TensorView load(const checkpoint::Checkpoint& checkpoint, const checkpoint::Dialect* dialect, Tensor& holder) const;
};

/// A weight with its recipe.
struct Layer {
  WeightSource source;
  checkpoint::QuantizedModule module;
  Algorithm algorithm = Algorithm::absmax;
  std::optional<formats::GroupStats> shared;  // statistics of all layers that share the tensor-level scale
};

/// One unit of output, in order: a tensor copied as it is, a layer, or a decoded weight written in high precision.
struct Item {
  const checkpoint::StoredTensor* copy = nullptr;
  std::optional<std::size_t> layer;
  std::optional<WeightSource> plain;
};

struct Plan {
  std::vector<Layer> layers;
  std::vector<Item> items;
  bool untie_head = false;  // a tied head gets weights of its own
  std::vector<std::string> kept, skipped, unmatched;
};

/// Throws Error(unsupported) naming the layer that does not fit its recipe (unless allow_skip), Error(usage) naming the
/// one that misses calibration data. `from` is the dialect of a quantized input or nullptr.
Plan make_plan(const checkpoint::Checkpoint& checkpoint, const checkpoint::Dialect* from, QuantizeRequest& request,
               CalibratedInputs& inputs);

}  // namespace lowp::quant
