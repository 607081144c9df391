#include "bench/cuda_device.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/gemm_cublas.h"
#include "lowp/kernels/cuda/read.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index)
      : info_(cuda::devices().at(static_cast<std::size_t>(index))),
        limits_{{Limit::Of::bytes, "copy", "copying device memory, as many bytes as the kernel moves in all"},
                {Limit::Of::bytes, "graph_copy", "as many copies in one graph as the kernel has calls there"},
                {Limit::Of::bytes, "read", "reading device memory"}} {
    cuda::use_device(index);
    if (cuda::why_no_cublas().empty())
      for (const Elem type : {Elem::bf16, Elem::e4m3, Elem::int8})
        limits_.push_back({Limit::Of::flop, limit_of(type),
                           fmt::format("cuBLASLt's product of {} on a cube of 8192, sustained", formats::name(type))});
    flush_ = cuda::Memory(static_cast<std::size_t>(2 * info_.l2_bytes));
  }

  std::string name() const override { return "cuda:" + std::to_string(info_.index); }
  std::string description() const override { return info_.name; }
  std::span<const Limit> limits() const override { return limits_; }

  double probe(std::string_view limit, std::uint64_t bytes) override {
    if (limit == "read") return probe_read();
    for (const Elem type : {Elem::bf16, Elem::e4m3, Elem::int8})
      if (limit == limit_of(type)) return probe_product(type);
    const bool graph = limit == "graph_copy";
    LOWP_CHECK(graph || limit == "copy", "no limit {}", limit);
    const std::size_t half = bytes ? bytes / 2 : std::size_t{1} << 28;
    if (from_.size() != half) {
      from_ = {};
      to_ = {};
      from_ = cuda::Memory(half);
      to_ = cuda::Memory(half);
      fill_with_noise(from_);
    }
    if (graph) {
      const std::size_t each = half / kGraphCalls / 256 * 256;
      cuda::Graph copies;
      copies.record(cuda_stream(), [&] {
        for (std::size_t i = 0; i < kGraphCalls; ++i)
          cuda::copy(to_.as<std::byte>() + i * each, from_.as<std::byte>() + i * each, each, cuda_stream().handle());
      });
      return 2 * static_cast<double>(each) * kGraphCalls / seconds([&] { copies.launch(cuda_stream()); });
    }
    return 2 * static_cast<double>(half) /
           seconds([&] { cuda::copy(to_.as<>(), from_.as<>(), half, cuda_stream().handle()); });
  }

  double seconds(const std::function<void()>& run) override {
    // What the last run left in the cache is pushed out, and the launch waits behind it for nothing.
    cuda::fill(flush_.as<>(), 1, flush_.size(), cuda_stream().handle());
    start_.record(cuda_stream());
    run();
    end_.record(cuda_stream());
    return end_.seconds_since(start_);
  }

 private:
  double probe_read() {
    if (read_.size() == 0) {
      read_ = cuda::Memory(std::size_t{1} << 30);
      fill_with_noise(read_);
    }
    return static_cast<double>(read_.size()) / seconds([&] {
             cuda::read_all(read_.as<>(), read_.size(), flush_.as<std::uint32_t>(), cuda_stream().handle());
           });
  }

  // Once: it takes half a second.
  double probe_product(Elem type) {
    double& rate = product_rates_[limit_of(type)];
    if (rate > 0) return rate;
    constexpr std::int64_t kSize = 8192;
    const auto bytes = static_cast<std::size_t>(kSize * kSize);
    const cuda::Memory a(bytes * 2), b(bytes * 2), y(bytes * 4), workspace(cuda::CublasProduct::workspace_bytes());
    fill_with_noise(a, type);
    fill_with_noise(b, type);
    const float one = 1;
    const cuda::Memory scale(4);
    cuda::copy(scale.as<>(), &one, 4, cuda_stream().handle());
    const cuda::CublasProduct product({.m = kSize, .n = kSize, .k = kSize, .type = type});
    const auto run = [&] {
      product.run(a.as<>(), b.as<>(), scale.as<float>(), scale.as<float>(), y.as<>(), workspace.as<>(),
                  cuda_stream().handle());
    };
    return rate = 2.0 * kSize * kSize * kSize / sustained(run);
  }

  // Zeros would move faster, and multiply faster, than data does. Of a type: normal values.
  static void fill_with_noise(const cuda::Memory& to, std::optional<Elem> type = std::nullopt) {
    std::vector<std::uint32_t> noise(1 << 22);
    std::uint32_t state = 1;
    for (std::uint32_t& word : noise) word = state = state * 1664525u + 1013904223u;
    if (type) {
      std::mt19937 rng(1);
      std::normal_distribution<float> normal(0, *type == Elem::bf16 ? 1.0f : 32.0f);
      auto* bytes = reinterpret_cast<std::byte*>(noise.data());
      const std::size_t width = static_cast<std::size_t>(formats::info(*type).bits / 8);
      for (std::size_t at = 0; at < noise.size() * 4; at += width) {
        const std::uint32_t code = formats::encode(*type, normal(rng));
        std::memcpy(bytes + at, &code, width);
      }
    }
    for (std::size_t at = 0; at < to.size(); at += noise.size() * 4)
      cuda::copy(to.as<std::byte>() + at, noise.data(), std::min(noise.size() * 4, to.size() - at),
                 cuda_stream().handle());
    cuda_stream().synchronize();
  }

  static std::string limit_of(Elem type) { return fmt::format("{}_product", formats::name(type)); }

  cuda::DeviceInfo info_;
  std::vector<Limit> limits_;
  cuda::Memory flush_, from_, to_, read_;
  cuda::Event start_, end_;
  std::map<std::string, double> product_rates_;
};

}  // namespace

std::unique_ptr<Device> cuda_device(int index) { return std::make_unique<CudaDevice>(index); }

double sustained(const std::function<void()>& run) {
  const auto timed = [&](int calls) {
    cuda::Event start, end;
    start.record(cuda_stream());
    for (int i = 0; i < calls; ++i) run();
    end.record(cuda_stream());
    return end.seconds_since(start) / calls;
  };
  timed(1);
  const double once = timed(2);
  const auto calls = [&](double seconds) { return static_cast<int>(std::clamp(seconds / once, 2.0, 20000.0)); };
  timed(calls(0.1));
  return timed(calls(0.15));
}

std::vector<double> graph_samples(const CudaCall& call, int calls, int replays) {
  cuda::Graph graph;
  graph.record(cuda_stream(), [&] {
    for (int i = 0; i < calls; ++i) call(static_cast<std::size_t>(i));
  });
  std::vector<double> samples;
  for (int i = 0; i < replays + 2; ++i) {
    cuda::Event start, end;
    start.record(cuda_stream());
    graph.launch(cuda_stream());
    end.record(cuda_stream());
    const double seconds = end.seconds_since(start) / calls;
    if (i >= 2) samples.push_back(seconds);
  }
  return samples;
}

const kernels::cuda::Stream& cuda_stream() {
  static const kernels::cuda::Stream stream;
  return stream;
}

}  // namespace lowp::bench
