#include "lowp/quant/codebook.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"

namespace lowp::quant {
namespace {

constexpr int kEntries = 16;
constexpr int kCodebookRounds = 200;
constexpr int kCheckEvery = 10;

// Values divided by the scale of their group.
std::vector<float> normalised(const TensorView& x, const formats::BlockFormat& format) {
  const std::int64_t count = element_count(x.shape), width = format.group_cols;
  std::vector<float> values(static_cast<std::size_t>(count));
  parallel_for(count / width, 256, [&](std::int64_t begin, std::int64_t end) {
    load_f32(x, begin * width, (end - begin) * width, values.data() + begin * width);
    for (std::int64_t g = begin * width; g < end * width; g += width) {
      formats::GroupStats group;
      for (std::int64_t i = g; i < g + width; ++i) group.add(values[i]);
      const float scale = formats::choose_params(format, element_of(x.dtype), {}, group, 1.0f).scale;
      for (std::int64_t i = g; i < g + width; ++i) values[i] /= scale;
    }
  });
  return values;
}

// The first value, then again and again the value farthest from all centroids so far; the first of several.
std::vector<float> farthest_points(const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<float> distance(values.size(), std::numeric_limits<float>::infinity());
  std::vector<float> centroids = {values[0]};
  while (centroids.size() < kEntries) {
    const float c = centroids.back();
    float largest = -1;
    std::int64_t where = 0;
    std::mutex mutex;
    parallel_for(count, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
      float most = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        const float d = (values[i] - c) * (values[i] - c);
        distance[i] = d < distance[i] ? d : distance[i];
        most = distance[i] > most ? distance[i] : most;
      }
      const std::int64_t first = std::find(distance.begin() + begin, distance.begin() + end, most) - distance.begin();
      const std::lock_guard lock(mutex);
      if (most > largest || (most == largest && first < where)) {
        largest = most;
        where = first;
      }
    });
    centroids.push_back(values[static_cast<std::size_t>(where)]);
  }
  return centroids;
}

// Ascending, by three passes over 11 bits of a code that has the order of the values.
void sort(std::vector<float>& values) {
  constexpr int kBits = 11;
  constexpr std::size_t kBuckets = std::size_t{1} << kBits;
  std::vector<std::uint32_t> codes(values.size()), other(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t u = float_bits(values[i]);
    codes[i] = u & 0x80000000u ? ~u : u | 0x80000000u;
  }
  for (int shift = 0; shift < 32; shift += kBits) {
    std::array<std::size_t, kBuckets + 1> start{};
    for (const std::uint32_t code : codes) ++start[(code >> shift) % kBuckets + 1];
    for (std::size_t b = 0; b < kBuckets; ++b) start[b + 1] += start[b];
    for (const std::uint32_t code : codes) other[start[(code >> shift) % kBuckets]++] = code;
    codes.swap(other);
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = bits_float(codes[i] & 0x80000000u ? codes[i] & 0x7FFFFFFFu : ~codes[i]);
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
  sort(values);
  std::vector<double> prefix(values.size() + 1, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) prefix[i + 1] = prefix[i] + static_cast<double>(values[i]);

  for (int round = 0; round < kCodebookRounds; ++round) {
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
