// What GPTQ and AWQ share: integers with parameters for groups of columns, everything stored as [in, out].
#pragma once

#include <string>

#include "lowp/checkpoint/dialect.h"

namespace lowp::checkpoint::transposed_ints {

/// The format of B-bit integers with groups of `group` columns (0: a whole row).
std::string format_name(int bits, int group, bool symmetric);

/// "" if a recipe is weight-only integers with parameters in the dtype of the model, else why `dialect` cannot hold it.
std::string refusal(const formats::Recipe& recipe, const std::string& dialect);

/// A module with the shape [n, k] of its qweight, a recipe for its scheme, and the dtype of its scales. Throws
/// Error(bad_input) if scales and qzeros are not what the scheme asks for, naming both, or the group does not divide k.
QuantizedModule module(const Checkpoint& checkpoint, const std::string& name, int bits, int group, std::int64_t n,
                       std::int64_t k);

/// The scheme in words, for messages: "4 bits in groups of 128".
std::string describe(int bits, int group);

/// Modules that have a "qweight", in the order of the file.
std::vector<std::string> names(const Checkpoint& checkpoint);

/// Columns of a group: all of them for a whole row.
int group_of(const QuantizedModule& module);

/// Scales [groups, n] of the dtype of the model as f32 [n, groups], and back.
Tensor decode_scales(const Checkpoint& checkpoint, const QuantizedModule& module);
Tensor encode_scales(const QuantizedModule& module, const QuantizedMatrix& weight);

/// A matrix with everything but its codes and zero points.
QuantizedMatrix matrix(const Checkpoint& checkpoint, const QuantizedModule& module);

}  // namespace lowp::checkpoint::transposed_ints
