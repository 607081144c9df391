#include "lowp/base/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace lowp {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, std::span<const std::string> names) {
  const std::string_view clipped = word.substr(0, 64);  // names are short; a huge word is near to none of them
  std::size_t best = clipped.size() / 3 + 3;
  std::string found;
  for (const std::string& name : names)
    if (const std::size_t distance = edit_distance(clipped, name); distance < best) {
      best = distance;
      found = name;
    }
  return found;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> names) {
  const std::string name = nearest_name(word, names);
  return name.empty() ? "" : " (did you mean '" + name + "'?)";
}

}  // namespace lowp
