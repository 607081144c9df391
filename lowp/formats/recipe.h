// A recipe: what becomes of one Linear's weight and of its input. The named recipes are in formats/recipes.cpp.
#pragma once

#include <optional>
#include <string>

#include "lowp/formats/block.h"

namespace lowp::formats {

/// Over which values the row- or tensor-level scale of an activation is taken.
enum class Scope : std::uint8_t {
  token,       // each token by itself: what a sequence gets does not depend on its batch
  tensor,      // all tokens of one forward call, as torchao's PerTensor: not batch-invariant
  calibrated,  // fixed beforehand
};

struct Activation {
  BlockFormat format;  // nvfp4 for the words nvfp4, nvfp4_tensor and nvfp4_static; fp8 for fp8, ...
  Scope scope = Scope::token;
  std::string word;  // as it stands in the recipe's name, e.g. "nvfp4_tensor"
};

struct Recipe {
  std::string name;  // "<weight>-<activation>"; "bf16" leaves the layer as it is
  BlockFormat weight;
  std::optional<Activation> activation;  // nullopt: weight-only
  bool keeps() const { return weight.rule == Rule::plain; }
};

}  // namespace lowp::formats
