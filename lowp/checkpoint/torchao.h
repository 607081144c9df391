// torchao's safetensors layout, seen from inside: which tensor subclass stands for a recipe, and how it is described in
// JSON. The dialect itself is in torchao.cpp.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lowp/checkpoint/dialect.h"

namespace lowp::checkpoint::torchao {

/// The tensor subclasses that can be saved and that lowp has formats for.
enum class Subclass : std::uint8_t { float8, int8, intx, int4, mx, nvfp4 };

/// As torchao calls it: "Float8Tensor".
std::string_view name(Subclass subclass);
std::optional<Subclass> find_subclass(std::string_view name);

/// One scale for a row (of weights: an output channel; of activations: a token), or one for all.
constexpr bool per_row(const formats::BlockSpec& format) { return format.group_rows == 1 && format.group_cols == 0; }
constexpr bool per_tensor(const formats::BlockSpec& format) { return format.group_rows == 0 && format.group_cols == 0; }

/// The subclass whose dequantize() gives the values of a weight format.
std::optional<Subclass> subclass_of(const formats::BlockFormat& format);

/// "" or why torchao cannot hold weights and activations of this recipe.
std::string refusal(const formats::Recipe& recipe);

/// The tensors of a module under torchao's names: "<module>._weight_<field>". Throws Error(unsupported) for a shape
/// that the subclass cannot have.
std::vector<TensorEntry> layout(const QuantizedModule& module);

/// "<module>._weight_<field>".
std::string tensor_name(const std::string& module, std::string_view field);

/// What "__metadata__" holds for the weight of a module: class, attributes and the names of its tensors.
Json describe(const QuantizedModule& module);

/// The torchao config whose quantize_() gives this recipe, as config_to_dict() of torchao 0.18 writes it.
Json config(const formats::Recipe& recipe);

/// A weight as its description and its tensors tell it, without our notes.
struct Described {
  Subclass subclass = Subclass::float8;
  QuantizedModule module;
  bool tiled_scales = false;  // in tiles of 128 x 4, as block-scaled matrix instructions want them
};

/// Reads the description of "<module>.weight". Throws Error(bad_input) where it and the tensors differ,
/// Error(unsupported) for what lowp has no recipe for.
Described read(const Checkpoint& checkpoint, const std::string& module, const Json& description);

}  // namespace lowp::checkpoint::torchao
