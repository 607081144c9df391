#include "bench/cuda_device.h"

#include <algorithm>
#include <vector>

#include "lowp/base/error.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index)
      : info_(cuda::devices().at(static_cast<std::size_t>(index))),
        limits_{{Limit::Of::bytes, "copy", "copying device memory, as many bytes as the kernel moves in all"},
                {Limit::Of::bytes, "graph_copy", "as many copies in one graph as the kernel has calls there"}} {
    cuda::use_device(index);
    flush_ = cuda::Memory(static_cast<std::size_t>(2 * info_.l2_bytes));
  }

  std::string name() const override { return "cuda:" + std::to_string(info_.index); }
  std::string description() const override { return info_.name; }
  std::span<const Limit> limits() const override { return limits_; }

  double probe(std::string_view limit, std::uint64_t bytes) override {
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
  static void fill_with_noise(const cuda::Memory& to) {
    // Zeros would move faster than data does.
    std::vector<std::uint32_t> noise(1 << 22);
    std::uint32_t state = 1;
    for (std::uint32_t& word : noise) word = state = state * 1664525u + 1013904223u;
    for (std::size_t at = 0; at < to.size(); at += noise.size() * 4)
      cuda::copy(to.as<std::byte>() + at, noise.data(), std::min(noise.size() * 4, to.size() - at),
                 cuda_stream().handle());
    cuda_stream().synchronize();
  }

  cuda::DeviceInfo info_;
  std::vector<Limit> limits_;
  cuda::Memory flush_, from_, to_;
  cuda::Event start_, end_;
};

}  // namespace

std::unique_ptr<Device> cuda_device(int index) { return std::make_unique<CudaDevice>(index); }

const kernels::cuda::Stream& cuda_stream() {
  static const kernels::cuda::Stream stream;
  return stream;
}

}  // namespace lowp::bench
