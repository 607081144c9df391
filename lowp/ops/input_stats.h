// What calibration remembers of the inputs of a Linear: enough to weigh errors of its weight.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lowp::ops {

/// Of all rows x [rows, k] that were added.
struct InputStats {
  std::int64_t rows = 0;
  std::vector<float> amax;     // [k], largest magnitude of each column
  std::vector<double> square;  // [k], sum of squares of each column
  std::vector<float> gram;     // [k, k], the sum of x^T x, or empty: not wanted

  /// Adds rows x [rows, k]; the first call decides k. `with_gram` must be the same in every call.
  void add(std::span<const float> x, std::int64_t k, bool with_gram);

  float largest() const;
  /// Mean square of each column [k].
  std::vector<float> mean_square() const;
};

}  // namespace lowp::ops
