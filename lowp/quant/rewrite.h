// A float checkpoint into one that computes the same with other weights: scales and rotations that cancel.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lowp/checkpoint/checkpoint.h"

namespace lowp::quant {

/// What happens to one tensor of floats, in this order. A vector is a matrix of one row, or of one column for
/// `rotate_rows`.
struct Rewrite {
  std::string source;          // the tensor that it is made from; "": the one of its own name
  std::vector<float> columns;  // column c is multiplied by columns[c], or empty
  std::vector<float> rows;     // row r is multiplied by rows[r], or empty
  bool adds_one = false;       // of a norm that multiplies by 1 + weight: this sum is what is multiplied
  int rotate_columns = 0;      // each row is rotated in blocks of so many columns (see rotate()), 0: it is not
  int rotate_rows = 0;         // each column likewise
  bool ones = false;           // every value becomes 1, whatever it was
};

struct Rewriting {
  std::map<std::string, Rewrite> tensors;  // by the name they are written under; the others stay
  bool untie_head = false;                 // lm_head.weight is among them and was not there before
};

/// Multiplies each block of x by an orthogonal matrix: random signs (the same every time), then the Hadamard matrix
/// over the root of the block size, a power of two that divides x's size.
void rotate(std::span<float> x, int block);

/// Writes the checkpoint with these changes to a new folder `output`; tensors keep their dtypes. Throws
/// Error(unsupported) naming a tensor to be changed that is not of floats.
void write_rewritten(const checkpoint::Checkpoint& checkpoint, const Rewriting& rewriting, const std::string& output);

}  // namespace lowp::quant
