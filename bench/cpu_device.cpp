#include "bench/cpu_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "bench/cpu_probes.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/report/machine.h"

namespace lowp::bench {
namespace {

class CpuDevice final : public Device {
 public:
  CpuDevice() : peaks_(instruction_peaks()) {
    limits_ = {{Limit::Of::bytes, "read", "reading DRAM forward"},
               {Limit::Of::bytes, "copy", "copying DRAM, bytes read and written"}};
    for (const InstructionPeak& peak : peaks_)
      limits_.push_back({Limit::Of::flop, std::string(peak.name), std::string(peak.meaning)});
  }

  std::string name() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("{}, {} thread{}", report::cpu_model(), thread_count(), thread_count() == 1 ? "" : "s");
  }
  std::span<const Limit> limits() const override { return limits_; }

  double probe(std::string_view limit, std::uint64_t /*bytes*/) override {
    if (limit == "read") return memory().read();
    if (limit == "copy") return memory().copy();
    const auto peak = std::find_if(peaks_.begin(), peaks_.end(), [&](const auto& p) { return p.name == limit; });
    LOWP_CHECK(peak != peaks_.end(), "no limit {}", limit);
    return peak->rate();
  }

  double seconds(const std::function<void()>& run) override {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  MemoryProbe& memory() {
    if (!memory_) memory_.emplace();
    return *memory_;
  }

  std::vector<InstructionPeak> peaks_;
  std::vector<Limit> limits_;
  std::optional<MemoryProbe> memory_;  // half a gigabyte: only when it is wanted
};

}  // namespace

std::unique_ptr<Device> cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace lowp::bench
