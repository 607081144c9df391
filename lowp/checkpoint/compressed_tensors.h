// The tensors of compressed-tensors: what the halves of the dialect, writing and reading, share.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lowp/checkpoint/compressed_tensors_schema.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/packing.h"

namespace lowp::checkpoint::compressed_tensors {

/// Key of "__metadata__" with the exact values of global scales, which the file holds as reciprocals: JSON text
/// {"tensor": "bits of the f32 in hex"}.
inline constexpr const char* kTensorScalesKey = "lowp.tensor_scales";

/// The scheme of a module whose recipe has one.
Scheme scheme_of(const QuantizedModule& module);

/// The schema has one kind of nvfp4, with a second level; the format without one has a global scale of 1.
constexpr bool has_global_scale(const Args& args) { return args.strategy == Strategy::tensor_group; }

/// Shape of "weight_scale": one value for the whole tensor is [1], not [1, 1].
Shape scale_shape(const formats::BlockFormat& format, std::int64_t m, std::int64_t k);

// --- compressed_tensors_write.cpp

std::vector<TensorEntry> layout(const QuantizedModule& module);
std::vector<Tensor> encode(const QuantizedModule& module, const QuantizedMatrix& weight);
Json config(std::span<const QuantizedModule> modules, std::span<const std::string> kept);
std::map<std::string, std::string> metadata(std::span<const QuantizedModule> modules);

// --- compressed_tensors_read.cpp

std::vector<QuantizedModule> modules(const Checkpoint& checkpoint);
QuantizedMatrix decode(const Checkpoint& checkpoint, const QuantizedModule& module);

}  // namespace lowp::checkpoint::compressed_tensors
