#include "lowp/kernels/cpu/isa.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lowp/base/env.h"
#include "lowp/base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lowp::kernels::cpu {
namespace {

constexpr Isa kLevels[] = {Isa::portable, Isa::avx2, Isa::avx2_vnni, Isa::avx512, Isa::avx512_bf16, Isa::amx};
constexpr std::string_view kNames[] = {"portable", "avx2", "avx2-vnni", "avx512", "avx512-bf16", "amx"};

#if defined(__x86_64__)
// Linux enables the tile registers of a process on request (Documentation/arch/x86/xstate.rst).
bool request_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool detect(Isa isa) {
  // Builtins for what older compilers know, which also ask the operating system for the register state; cpuid for the
  // rest.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  unsigned a = 0, b = 0, c = 0, d = 0;
  __get_cpuid_count(1, 0, &a, &b, &c, &d);
  const bool f16c = (c >> 29) & 1u;
  const bool leaf7 = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0;
  const bool tiles = leaf7 && ((d >> 22) & 1u) && ((d >> 24) & 1u) && ((d >> 25) & 1u);  // bf16, tile, int8
  const bool leaf7_1 = leaf7 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0;
  const bool avx_vnni = leaf7_1 && ((a >> 4) & 1u), bf16 = leaf7_1 && ((a >> 5) & 1u);
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return avx2 && f16c;
    case Isa::avx2_vnni:
      return avx2 && f16c && avx_vnni;
    case Isa::avx512:
      return avx512 && f16c;
    case Isa::avx512_bf16:
      return avx512 && f16c && bf16;
    case Isa::amx:
      return avx512 && f16c && bf16 && tiles && request_tiles();
  }
  return false;
}
#else
bool detect(Isa isa) { return isa == Isa::portable; }
#endif

Isa choose() {
  const std::string forced = env::get("LOWP_FORCE_ISA");
  std::vector<std::string_view> here;
  for (const Isa level : kLevels)
    if (runs(level)) here.push_back(name(level));
  if (forced.empty()) return kLevels[std::find(std::begin(kNames), std::end(kNames), here.back()) - kNames];
  const auto* const found = std::find(std::begin(kNames), std::end(kNames), forced);
  if (found == std::end(kNames))
    fail(ErrorCode::usage, "LOWP_FORCE_ISA: expected one of {}, found '{}'", fmt::join(kNames, ", "), forced);
  const Isa level = kLevels[found - kNames];
  if (!runs(level))
    fail(ErrorCode::usage, "LOWP_FORCE_ISA: this machine does not run '{}'; it runs {}", forced, fmt::join(here, ", "));
  return level;
}

}  // namespace

std::string_view name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

std::span<const Isa> isa_levels() { return kLevels; }

bool runs(Isa isa) {
  static const auto found = [] {
    std::vector<bool> flags;
    for (const Isa level : kLevels) flags.push_back(detect(level));
    return flags;
  }();
  return found[static_cast<std::size_t>(isa)];
}

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

}  // namespace lowp::kernels::cpu
