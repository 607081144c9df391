// Which instructions the CPU kernels use: the best level that this machine runs, or the one that LOWP_FORCE_ISA names.
#pragma once

#include <span>
#include <string_view>

namespace lowp::kernels::cpu {

/// Levels of instruction sets, each a kernel variant; a machine that runs one runs those before it (but for avx2_vnni,
/// which AVX-512 machines need not have).
enum class Isa {
  portable,     // what the compiler makes of plain C++
  avx2,         // AVX2, FMA, F16C
  avx2_vnni,    // and AVX-VNNI
  avx512,       // F, BW, DQ, VL, VNNI, VBMI (Ice Lake and later)
  avx512_bf16,  // and BF16 (Zen 4, Sapphire Rapids and later)
  amx,          // and AMX tiles for int8 and bf16 (Sapphire Rapids and later)
};

/// "portable", "avx2", "avx2-vnni", "avx512", "avx512-bf16", "amx".
std::string_view name(Isa isa);

/// All levels, from the plainest to the widest.
std::span<const Isa> isa_levels();

/// Whether this machine and its operating system run a level. Asks Linux for the AMX tile state the first time.
bool runs(Isa isa);

/// The level that kernels use. Throws Error(usage) naming the choices if LOWP_FORCE_ISA names no level or one that this
/// machine does not run.
Isa isa();

}  // namespace lowp::kernels::cpu
