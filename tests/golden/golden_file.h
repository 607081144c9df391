// The golden file: torchao's bytes by name. Made by tools/golden/make_casts.py.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/checkpoint/safetensors.h"

namespace lowp::golden {

inline const checkpoint::SafetensorsFile& file() {
  static const checkpoint::SafetensorsFile golden(LOWP_SOURCE_DIR "/tests/golden/casts.safetensors");
  return golden;
}

inline TensorView tensor(const std::string& name) {
  const auto* entry = file().find(name);
  EXPECT_NE(entry, nullptr) << name;
  return entry ? file().view(*entry) : TensorView{};
}

/// out/<format>[@<mode>]/<kind>/<dtype>
struct Case {
  std::string format, mode, kind, dtype;
  std::map<std::string, TensorView> fields;

  std::string name() const { return format + (mode.empty() ? "" : "@" + mode) + "/" + kind + "/" + dtype; }
  TensorView input() const { return tensor("in/" + kind + "/" + dtype); }
};

inline std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

inline std::vector<Case> cases() {
  std::map<std::string, Case> found;
  for (const auto& entry : file().header().tensors) {
    const auto parts = split(entry.name, '/');
    if (parts[0] != "out") continue;
    const auto words = split(parts[1], '@');
    Case& c = found[parts[1] + "/" + parts[2] + "/" + parts[3]];
    c = {words[0], words.size() > 1 ? words[1] : "", parts[2], parts[3], std::move(c.fields)};
    c.fields[parts[4]] = file().view(entry);
  }
  std::vector<Case> all;
  for (auto& [key, c] : found) all.push_back(std::move(c));
  return all;
}

/// Empty if equal, else the first difference.
inline std::string difference(std::span<const std::byte> expected, std::span<const std::byte> found) {
  if (expected.size() != found.size()) return fmt::format("{} bytes expected, {} found", expected.size(), found.size());
  std::size_t count = 0, first = 0;
  for (std::size_t i = expected.size(); i-- > 0;)
    if (expected[i] != found[i]) {
      ++count;
      first = i;
    }
  if (count == 0) return "";
  return fmt::format("{} of {} bytes differ, first at {}: expected {:#04x}, found {:#04x}", count, expected.size(),
                     first, static_cast<int>(expected[first]), static_cast<int>(found[first]));
}

}  // namespace lowp::golden
