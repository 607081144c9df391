// What every dialect needs: tensors of a checkpoint looked up with their type and shape checked, and our notes.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"
#include "lowp/checkpoint/dialect.h"

namespace lowp::checkpoint {

/// The key of "__metadata__" under which a dialect notes the exact recipe of each module: the JSON
/// text {"module": "recipe"}.
inline constexpr const char* kRecipesKey = "lowp.recipes";

/// The three types that hold values and parameters in high precision.
inline constexpr DType kHighPrecision[] = {DType::bf16, DType::f16, DType::f32};

/// A tensor that must be there with one of these types and this shape; -1 in `expected` stands for any size. Throws
/// Error(bad_input) naming file, tensor, expected, found and `scheme`, what is expected because of (such as a recipe).
TensorView required(const Checkpoint& checkpoint, const std::string& name, std::span<const DType> allowed,
                    const Shape& expected, const std::string& scheme = "");
TensorView required(const Checkpoint& checkpoint, const std::string& name, DType allowed, const Shape& expected,
                    const std::string& scheme = "");

/// Value of a tensor with exactly one f16, bf16 or f32 element, of any rank. Errors as required().
float required_one(const Checkpoint& checkpoint, const std::string& name);

/// The file that holds a tensor, or the checkpoint's path if there is no such tensor: where a message points.
std::string file_of(const Checkpoint& checkpoint, const std::string& tensor);

/// An owning copy, byte for byte.
Tensor copy(const TensorView& view);

/// An owning copy with f16, bf16 and f32 widened to f32, which is exact.
Tensor copy_as_f32(const TensorView& view);

/// An owning copy of f32 values rounded to f16, bf16 or f32. Exact for the parameters of formats with
/// scale_in_input_dtype.
Tensor copy_rounded(const Tensor& values, DType type);

/// An F32 tensor with one value.
Tensor one_f32(float value, Shape shape = {1});

/// The type that has exactly the bits of an element: U8/I8 for integers of up to 8 bits, F8_E4M3, BF16, ...; U8 for
/// floats of less than 8 bits. What QuantizedMatrix::codes has.
DType dtype_of(formats::Elem element);

/// Type of the model's weights before quantization, by config.json ("dtype", "torch_dtype"); bf16 if it does not say.
formats::Elem model_element(const Checkpoint& checkpoint);

/// The most common of the values of modules, strings; the first on ties.
template <typename Value>
std::string most_common(std::span<const QuantizedModule> modules, const Value& value) {
  std::map<std::string, std::size_t> counts;
  for (const QuantizedModule& module : modules) ++counts[value(module)];
  std::string best;
  for (const QuantizedModule& module : modules)
    if (best.empty() || counts[value(module)] > counts[best]) best = value(module);
  return best;
}

/// A JSON file beside the tensors, in which some dialects say more than in config.json. Throws Error(bad_input) if it
/// is not an object.
bool has_side_file(const Checkpoint& checkpoint, const std::string& name);
Json side_file(const Checkpoint& checkpoint, const std::string& name);

/// What lowp noted about the modules under kRecipesKey; empty if there is no note. Throws Error(bad_input).
std::map<std::string, std::string> recipe_notes(const Checkpoint& checkpoint);

/// The note for these modules, as recipe_notes() reads it.
std::string recipe_note(std::span<const QuantizedModule> modules);

/// config.json's "quantization_config", also as "compression_config" or inside "text_config"; nullptr if there is none.
const Json* quantization_config(const Checkpoint& checkpoint);

/// Takes every description of a quantization out of a config.json.
void erase_quantization_config(Json& config);

/// Its "quant_method", or "".
std::string quant_method(const Checkpoint& checkpoint);

/// Whether auto-round wrote it with a "packing_format" that ends with this ("awq", "gptq"): it has no layout of its
/// own.
bool is_auto_round(const Checkpoint& checkpoint, std::string_view packing);

/// What a module's matrix is before its tensors are read: format, shape, and the dtype it was made from.
QuantizedMatrix begin_matrix(const QuantizedModule& module);

}  // namespace lowp::checkpoint
