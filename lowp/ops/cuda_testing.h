// What tests of CUDA kernels share: a device, and vectors that go there and come back.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::ops {

using Bf16Values = std::vector<std::uint16_t>;

inline std::uint16_t to_bf16(float x) {
  return static_cast<std::uint16_t>(float_bits(formats::round_to(formats::Elem::bf16, x)) >> 16);
}
inline float from_bf16(std::uint16_t x) { return bits_float(static_cast<std::uint32_t>(x) << 16); }

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << kernels::cuda::why_none() << ")";
    kernels::cuda::use_device(0);
    stream.emplace();
  }
  kernels::cuda::StreamHandle handle() const { return stream->handle(); }

  Bf16Values random(std::int64_t count, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    Bf16Values values(static_cast<std::size_t>(count));
    for (auto& v : values) v = to_bf16(normal(rng));
    return values;
  }

  /// A copy on the device, until the test ends.
  template <typename T>
  T* upload(const std::vector<T>& values) {
    auto& memory = memories.emplace_back(std::max<std::size_t>(values.size() * sizeof(T), 16));
    kernels::cuda::copy(memory.template as<>(), values.data(), values.size() * sizeof(T), handle());
    stream->synchronize();
    return memory.template as<T>();
  }
  /// Room on the device, every byte set.
  template <typename T>
  T* room(std::int64_t count, int byte = 0xFF) {
    auto& memory = memories.emplace_back(std::max<std::size_t>(static_cast<std::size_t>(count) * sizeof(T), 16));
    kernels::cuda::fill(memory.template as<>(), byte, memory.size(), handle());
    return memory.template as<T>();
  }
  template <typename T>
  std::vector<T> download(const T* from, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    kernels::cuda::copy(values.data(), from, values.size() * sizeof(T), handle());
    stream->synchronize();
    return values;
  }

  std::mt19937 rng{7};
  std::optional<kernels::cuda::Stream> stream;
  std::deque<kernels::cuda::Memory> memories;
};

}  // namespace lowp::ops
