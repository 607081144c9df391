// Which layer gets which format when only so many bits may be spent. Pure arithmetic.
#pragma once

#include <cstddef>
#include <vector>

namespace lowp::report {

/// A format for a part of a model: what it costs and what it harms.
struct Option {
  double bits = 0;  // of the whole part
  double loss = 0;  // KL that it alone causes
};

/// One option for each part, the sum of losses least or nearly so while the sum of bits is at most `budget`: on the
/// lower convex hulls of (bits, loss), the steps that save most loss for a bit come first, as far as they fit. Every
/// part takes at least its cheapest option, even beyond the budget. Parts without options are an error of the caller.
std::vector<std::size_t> allocate_bits(const std::vector<std::vector<Option>>& parts, double budget);

}  // namespace lowp::report
