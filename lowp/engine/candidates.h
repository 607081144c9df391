// The ids that may come next, found without sorting or copying the vocabulary.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "lowp/engine/request.h"

namespace lowp::engine {

/// The logit of an id that cannot come next.
inline constexpr float kNever = -std::numeric_limits<float>::infinity();

/// A row of logits and the largest of each block of it: most blocks have no likely id and are passed over.
class LogitRow {
 public:
  /// Refers to `logits`, which must outlive it.
  explicit LogitRow(std::span<const float> logits);

  /// NaN if any logit is; -inf of none.
  float largest() const { return largest_; }
  /// The id of the largest, the lowest of equals.
  std::int32_t likeliest() const;
  /// The ids of the `k` largest, likeliest first; of equals the lower id comes first. All if there are fewer.
  std::vector<std::int32_t> likeliest(std::size_t k) const;

  /// One id by temperature (above 0), top-k, top-p and min-p; `u` in [0, 1) decides. Probabilities are right to 1e-5,
  /// what is less likely than e^-87 beside the likeliest does not come. largest() must be finite.
  std::int32_t draw(const Sampling& sampling, double u) const;

 private:
  struct Candidate {
    std::int32_t id;
    double weight;  // its probability beside that of the likeliest
  };
  static bool likelier(const Candidate& a, const Candidate& b) {
    return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
  }
  static double total(std::span<const Candidate> candidates);
  static void keep_share(std::vector<Candidate>& all, double weight);
  static std::int32_t draw_from(std::span<const Candidate> from, double u);

  std::vector<std::int32_t> at_least(float least) const;
  std::vector<Candidate> weigh(std::span<const std::int32_t> ids, double temperature) const;
  std::vector<float> block_weights(double temperature) const;
  std::vector<Candidate> nucleus(double temperature, double share) const;
  std::int32_t draw_from_all(double temperature, double u) const;

  std::span<const float> logits_;
  std::vector<float> maxima_;  // of each kLogitBlock of them
  float largest_;
};

}  // namespace lowp::engine
