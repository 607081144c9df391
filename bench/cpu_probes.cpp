#include "bench/cpu_probes.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "bench/clock.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/isa.h"

namespace lowp::bench {
namespace {

// Beyond every private cache, and a fair part of the largest shared ones.
constexpr std::size_t kBuffer = std::size_t{256} << 20;
constexpr std::size_t kLine = 64;

typedef std::uint64_t Words __attribute__((vector_size(64)));

// Runs body(first byte, past the last byte) over the buffer in whole lines, on all threads; seconds.
template <typename Body>
double stream(const Body& body) {
  const auto start = Clock::now();
  parallel_for(kBuffer / kLine, kBuffer / kLine / 64, [&](std::int64_t begin, std::int64_t end) {
    body(static_cast<std::size_t>(begin) * kLine, static_cast<std::size_t>(end) * kLine);
  });
  return since(start);
}

std::uint64_t sum_lines(const std::byte* p, std::size_t begin, std::size_t end) {
  Words sum = {};
  for (std::size_t i = begin; i < end; i += kLine) {
    Words line;
    std::memcpy(&line, p + i, kLine);
    sum ^= line;
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

void copy_lines(const std::byte* from, std::byte* to, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; i += kLine) {
    Words line;
    std::memcpy(&line, from + i, kLine);
    std::memcpy(to + i, &line, kLine);
  }
}

#if defined(__x86_64__)

// Stores that do not read the line they write first.
void copy_streaming(const std::byte* from, std::byte* to, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; i += 16) {
    typedef long long Half __attribute__((vector_size(16)));
    Half part;
    std::memcpy(&part, from + i, sizeof part);
    __builtin_ia32_movntdq(reinterpret_cast<Half*>(to + i), part);
  }
  __builtin_ia32_sfence();
}

// Runs `loop` (iterations) on every thread in small portions; operations/s.
template <typename Loop>
double peak(double operations, const Loop& loop) {
  constexpr std::int64_t kIterations = 20000;
  const std::int64_t portions = 16 * thread_count();
  const auto start = Clock::now();
  parallel_for(portions, 1, [&](std::int64_t begin, std::int64_t end) { loop((end - begin) * kIterations); });
  return operations * static_cast<double>(kIterations * portions) / since(start);
}

// A loop of one instruction "op a, b, accumulator" over accumulators that do not depend on each other: enough of them
// to hide the latency. `pattern` fills a and b with numbers that are neither 0 nor denormal.
#define LOWP_YMM_LOOP(op, n, pattern)                                                                           \
  asm volatile(                                                                                                 \
      "vmovd %1, %%xmm0\n vpbroadcastd %%xmm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n"                               \
      ".irp r,2,3,4,5,6,7,8,9,10,11,12,13\n vpxor %%ymm\\r, %%ymm\\r, %%ymm\\r\n.endr\n"                        \
      "1:\n.irp r,2,3,4,5,6,7,8,9,10,11,12,13\n " op                                                            \
      " %%ymm0, %%ymm1, %%ymm\\r\n.endr\n"                                                                      \
      "dec %0\n jnz 1b\n vzeroupper\n"                                                                          \
      : "+r"(n)                                                                                                 \
      : "r"(pattern)                                                                                            \
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
        "xmm12", "xmm13")
#define LOWP_ZMM_LOOP(op, n, pattern)                                                                           \
  asm volatile(                                                                                                 \
      "vmovd %1, %%xmm0\n vpbroadcastd %%xmm0, %%zmm0\n vmovdqa64 %%zmm0, %%zmm1\n"                             \
      ".irp r,2,3,4,5,6,7,8,9,10,11,12,13\n vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n.endr\n"                       \
      "1:\n.irp r,2,3,4,5,6,7,8,9,10,11,12,13\n " op                                                            \
      " %%zmm0, %%zmm1, %%zmm\\r\n.endr\n"                                                                      \
      "dec %0\n jnz 1b\n vzeroupper\n"                                                                          \
      : "+r"(n)                                                                                                 \
      : "r"(pattern)                                                                                            \
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
        "xmm12", "xmm13")
#define LOWP_TILE_LOOP(op, n)                                                                \
  asm volatile("1:\n " op " %%tmm6, %%tmm4, %%tmm0\n " op " %%tmm7, %%tmm4, %%tmm1\n" op     \
               " %%tmm6, %%tmm5, %%tmm2\n " op " %%tmm7, %%tmm5, %%tmm3\n dec %0\n jnz 1b\n" \
               : "+r"(n)                                                                     \
               :                                                                             \
               : "cc")

constexpr int kChains = 12;
constexpr std::uint32_t kOneF32 = 0x3F800000, kOneBf16 = 0x3F803F80, kOneInt8 = 0x01010101;

double fma_avx2() {
  return peak(kChains * 8 * 2, [](std::int64_t n) { LOWP_YMM_LOOP("vfmadd231ps", n, kOneF32); });
}
double vnni_avx2() {
  return peak(kChains * 32 * 2, [](std::int64_t n) { LOWP_YMM_LOOP("%{vex%} vpdpbusd", n, kOneInt8); });
}
double fma_avx512() {
  return peak(kChains * 16 * 2, [](std::int64_t n) { LOWP_ZMM_LOOP("vfmadd231ps", n, kOneF32); });
}
double vnni_avx512() {
  return peak(kChains * 64 * 2, [](std::int64_t n) { LOWP_ZMM_LOOP("vpdpbusd", n, kOneInt8); });
}
double bf16_avx512() {
  return peak(kChains * 32 * 2, [](std::int64_t n) { LOWP_ZMM_LOOP("vdpbf16ps", n, kOneBf16); });
}

// All eight tiles 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

template <typename Loop>
double tile_peak(double operations, const Loop& loop) {
  return peak(operations,
              [&](std::int64_t n) {
                const TileConfig config;
                asm volatile(
                    "ldtilecfg %0\n tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n"
                    "tilezero %%tmm4\n tilezero %%tmm5\n tilezero %%tmm6\n tilezero %%tmm7\n"
                    :
                    : "m"(config));
                loop(n / 8);
                asm volatile("tilerelease");
              }) /
         8;
}
double amx_int8() {
  return tile_peak(4 * 16 * 16 * 64 * 2, [](std::int64_t n) { LOWP_TILE_LOOP("tdpbssd", n); });
}
double amx_bf16() {
  return tile_peak(4 * 16 * 16 * 32 * 2, [](std::int64_t n) { LOWP_TILE_LOOP("tdpbf16ps", n); });
}

#endif

}  // namespace

std::vector<InstructionPeak> instruction_peaks() {
  std::vector<InstructionPeak> peaks;
#if defined(__x86_64__)
  using kernels::cpu::Isa, kernels::cpu::runs;
  if (runs(Isa::avx2)) peaks.push_back({"fma_avx2", "vfmadd231ps on 8 floats", fma_avx2});
  if (runs(Isa::avx2_vnni)) peaks.push_back({"vnni_avx2", "vpdpbusd on 32 bytes", vnni_avx2});
  if (runs(Isa::avx512)) {
    peaks.push_back({"fma_avx512", "vfmadd231ps on 16 floats", fma_avx512});
    peaks.push_back({"vnni_avx512", "vpdpbusd on 64 bytes", vnni_avx512});
  }
  if (runs(Isa::avx512_bf16)) peaks.push_back({"bf16_avx512", "vdpbf16ps on 32 bf16", bf16_avx512});
  if (runs(Isa::amx)) {  // which also asks Linux for the tile registers
    peaks.push_back({"amx_int8", "tdpbssd on 16 x 64 bytes", amx_int8});
    peaks.push_back({"amx_bf16", "tdpbf16ps on 16 x 32 bf16", amx_bf16});
  }
#endif
  return peaks;
}

MemoryProbe::MemoryProbe() : from_(kBuffer, std::byte{1}), to_(kBuffer, std::byte{2}) {}

double MemoryProbe::read() const {
  std::atomic<std::uint64_t> sum{0};
  const double seconds =
      stream([&](std::size_t begin, std::size_t end) { sum ^= sum_lines(from_.data(), begin, end); });
  return static_cast<double>(kBuffer) / seconds;
}

double MemoryProbe::copy() {
  double seconds =
      stream([&](std::size_t begin, std::size_t end) { copy_lines(from_.data(), to_.data(), begin, end); });
#if defined(__x86_64__)
  seconds = std::min(seconds, stream([&](std::size_t begin, std::size_t end) {
                       copy_streaming(from_.data(), to_.data(), begin, end);
                     }));
#endif
  return 2 * static_cast<double>(kBuffer) / seconds;
}

}  // namespace lowp::bench
