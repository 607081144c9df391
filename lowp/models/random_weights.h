// Weights without a checkpoint, for measuring: always the same, and made at memory speed.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "lowp/models/weights.h"

namespace lowp::models {

/// Normal values of standard deviation 0.02 from one table, which each matrix and row enters elsewhere; norms and
/// attention sinks are 1. Linears are in the recipe; routers and, unless the options say otherwise, the head stay bf16.
class RandomWeights final : public WeightSource {
 public:
  /// `repeat`: layers and experts are all as the first, and of the others only shapes are given (see
  /// ops::LinearWeight), for devices that copy faster than the host makes them.
  RandomWeights(const formats::Recipe& recipe, bool repeat);

  std::vector<float> vector(const std::string& name, std::int64_t size) override;
  ops::LinearWeight linear(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override;
  ops::LinearWeight router(const std::string& module, std::int64_t n, std::int64_t k, bool bias) override;
  ops::LinearWeight head(const std::string& module, std::int64_t n, std::int64_t k,
                         const LoadOptions& options) override;
  bool has(const std::string&) const override { return true; }
  TensorView embedding(const std::string& module, std::int64_t n, std::int64_t k, Tensor& holder) override;
  std::uint64_t linear_bytes() const override { return linear_bytes_; }
  std::string recipe() const override { return recipe_.name; }
  std::string where() const override { return "random weights"; }

 private:
  Tensor values(const std::string& module, std::int64_t n, std::int64_t k) const;
  ops::LinearWeight quantized(const std::string& module, std::int64_t n, std::int64_t k, const formats::Recipe& recipe);

  formats::Recipe recipe_;
  const bool repeat_;
  std::set<std::string> made_;
  std::vector<std::uint16_t> table_;  // bf16
  std::uint64_t linear_bytes_ = 0;
};

}  // namespace lowp::models
