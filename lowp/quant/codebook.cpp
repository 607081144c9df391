#include "lowp/quant/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lowp/base/error.h"

namespace lowp::quant {
namespace {

constexpr int kEntries = 16;
constexpr int kRounds = 200;
constexpr int kCheckEvery = 10;

// Values divided by the scale of their group.
std::vector<float> normalised(const TensorView& x, const formats::BlockFormat& format) {
  const std::int64_t count = element_count(x.shape), width = format.group_cols;
  std::vector<float> values(static_cast<std::size_t>(count));
  load_f32(x, 0, count, values.data());
  for (std::int64_t g = 0; g < count; g += width) {
    formats::GroupStats group;
    for (std::int64_t i = g; i < g + width; ++i) group.add(values[i]);
    const float scale = formats::choose_params(format, element_of(x.dtype), {}, group, 1.0f).scale;
    for (std::int64_t i = g; i < g + width; ++i) values[i] /= scale;
  }
  return values;
}

// The first value, then again and again the value farthest from all centroids so far.
std::vector<float> farthest_points(const std::vector<float>& values) {
  std::vector<float> distance(values.size(), std::numeric_limits<float>::infinity());
  std::vector<float> centroids;
  for (int i = 0; i < kEntries; ++i) {
    const auto farthest = std::max_element(distance.begin(), distance.end()) - distance.begin();
    const float c = values[static_cast<std::size_t>(farthest)];
    centroids.push_back(c);
    for (std::size_t j = 0; j < values.size(); ++j)
      distance[j] = std::min(distance[j], (values[j] - c) * (values[j] - c));
  }
  return centroids;
}

bool close(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::fabs(a[i] - b[i]) > 1e-8f + 1e-6f * std::fabs(b[i])) return false;
  return true;
}

}  // namespace

std::vector<float> fit_codebook(const TensorView& x, const formats::BlockFormat& format,
                                const ops::CastOptions& options) {
  if (const std::string wrong = formats::misfit(format, x.shape[0], x.shape[1]); !wrong.empty())
    fail(ErrorCode::unsupported, "{}: {}", options.name, wrong);
  ops::stats(x, options);  // refuses NaN and infinities
  std::vector<float> values = normalised(x, format);
  std::vector<float> centroids = farthest_points(values);

  // In one dimension the members of a centroid are an interval: with sorted values and prefix sums a round costs a few
  // binary searches instead of a pass over all values.
  std::sort(values.begin(), values.end());
  std::vector<double> prefix(values.size() + 1, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) prefix[i + 1] = prefix[i] + static_cast<double>(values[i]);

  for (int round = 0; round < kRounds; ++round) {
    std::vector<int> order(kEntries);
    for (int i = 0; i < kEntries; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return centroids[a] < centroids[b]; });
    std::vector<float> next = centroids;
    std::size_t begin = 0;
    for (int i = 0; i < kEntries; ++i) {
      std::size_t end = values.size();
      if (i + 1 < kEntries) {
        const double middle =
            (static_cast<double>(centroids[order[i]]) + static_cast<double>(centroids[order[i + 1]])) / 2;
        end = static_cast<std::size_t>(
            std::upper_bound(values.begin(), values.end(), middle, [](double m, float v) { return m < v; }) -
            values.begin());
        end = std::max(end, begin);
      }
      if (end > begin)
        next[order[i]] = static_cast<float>((prefix[end] - prefix[begin]) / static_cast<double>(end - begin));
      begin = end;
    }
    const bool settled = round % kCheckEvery == 0 && close(next, centroids);
    centroids = std::move(next);
    if (settled) break;
  }
  return centroids;
}

}  // namespace lowp::quant
