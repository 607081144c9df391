// Which device computes.
#pragma once

#include <string>
#include <string_view>

namespace lowp::ops {

struct Device {
  int cuda = -1;  // index of a CUDA device, -1: the CPU

  bool is_cuda() const { return cuda >= 0; }
  /// "cpu" or "cuda:0".
  std::string name() const;
};

/// `auto` (the first GPU, or the CPU if there is none), `cpu`, `cuda` or `cuda:N`. Throws Error(usage) naming what
/// there is, and why there is no GPU.
Device choose_device(std::string_view text);

}  // namespace lowp::ops
