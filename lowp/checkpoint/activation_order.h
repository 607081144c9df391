// Activation order ("act-order", "desc_act"): columns are quantized in the order of their importance, and the files say
// for each column to which group it belongs (g_idx). In memory the columns stand in that order.
#pragma once

#include <string>

#include "lowp/tensor/tensor.h"

namespace lowp::checkpoint {

/// The column_order of a QuantizedMatrix for g_idx, I32 [k], the group of each column; empty if all columns are in
/// groups of neighbours (or, -1, not set). Throws Error(bad_input) naming `where` if a group does not have `group`
/// columns.
Tensor column_order(const TensorView& g_idx, int group, const std::string& where);

/// Throws Error(bad_input) naming `where` if this is not an order of its columns, ascending within groups.
void check_order(const Tensor& column_order, int group, const std::string& where);

/// The inverse, I32 [k]; an empty order is that of groups of neighbours.
Tensor group_index(const Tensor& column_order, std::int64_t k, int group);

/// Codes of a byte each, [m, k], from the order of the weight's columns into column_order, and back.
Tensor into_order(const Tensor& codes, const Tensor& column_order);
Tensor out_of_order(const Tensor& codes, const Tensor& column_order);

}  // namespace lowp::checkpoint
