// wgmma: D[64, N] (+)= A[64, K] B[N, K]^T for one warpgroup, K = 32 bytes; one instruction a function.
// A by a descriptor of shared memory or as a fragment in registers, B by a descriptor; `keep` = 0 starts D anew.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

// The operand lists of the accumulators: their numbers in the text, and their bindings.
#define LOWP_N0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define LOWP_N8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define LOWP_N16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define LOWP_N24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define LOWP_N32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define LOWP_N40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define LOWP_N48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define LOWP_N56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define LOWP_N64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define LOWP_N72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define LOWP_N80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define LOWP_N88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define LOWP_N96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define LOWP_N104 "%104, %105, %106, %107, %108, %109, %110, %111"
#define LOWP_N112 "%112, %113, %114, %115, %116, %117, %118, %119"
#define LOWP_N120 "%120, %121, %122, %123, %124, %125, %126, %127"
#define LOWP_D8(c, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define LOWP_TEXT8 LOWP_N0
#define LOWP_BIND8(c) LOWP_D8(c, 0)
#define LOWP_TEXT32 LOWP_N0 ", " LOWP_N8 ", " LOWP_N16 ", " LOWP_N24
#define LOWP_BIND32(c) LOWP_D8(c, 0), LOWP_D8(c, 8), LOWP_D8(c, 16), LOWP_D8(c, 24)
#define LOWP_TEXT64 \
  LOWP_N0 ", " LOWP_N8 ", " LOWP_N16 ", " LOWP_N24 ", " LOWP_N32 ", " LOWP_N40 ", " LOWP_N48 ", " LOWP_N56
#define LOWP_BIND64(c)                                                                                          \
  LOWP_D8(c, 0), LOWP_D8(c, 8), LOWP_D8(c, 16), LOWP_D8(c, 24), LOWP_D8(c, 32), LOWP_D8(c, 40), LOWP_D8(c, 48), \
      LOWP_D8(c, 56)
#define LOWP_TEXT128                                                                                          \
  LOWP_N0 ", " LOWP_N8 ", " LOWP_N16 ", " LOWP_N24 ", " LOWP_N32 ", " LOWP_N40 ", " LOWP_N48 ", " LOWP_N56    \
          ", " LOWP_N64 ", " LOWP_N72 ", " LOWP_N80 ", " LOWP_N88 ", " LOWP_N96 ", " LOWP_N104 ", " LOWP_N112 \
          ", " LOWP_N120
#define LOWP_BIND128(c)                                                                                                \
  LOWP_D8(c, 0), LOWP_D8(c, 8), LOWP_D8(c, 16), LOWP_D8(c, 24), LOWP_D8(c, 32), LOWP_D8(c, 40), LOWP_D8(c, 48),        \
      LOWP_D8(c, 56), LOWP_D8(c, 64), LOWP_D8(c, 72), LOWP_D8(c, 80), LOWP_D8(c, 88), LOWP_D8(c, 96), LOWP_D8(c, 104), \
      LOWP_D8(c, 112), LOWP_D8(c, 120)

#define LOWP_WGMMA_SHARED(NAME, N, TYPE, CONSTRAINT, SHAPE, REGS, A, B, P, TAIL)                              \
  template <>                                                                                                 \
  struct NAME<N> {                                                                                            \
    static __device__ __forceinline__ void run(TYPE (&d)[REGS], std::uint64_t a, std::uint64_t b, int keep) { \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned." SHAPE          \
                   " {" LOWP_TEXT##REGS "}, " A ", " B ", p" TAIL ";\n}\n"                                    \
                   : LOWP_BIND##REGS(CONSTRAINT)                                                              \
                   : "l"(a), "l"(b), "r"(keep));                                                              \
    }                                                                                                         \
  };
#define LOWP_WGMMA_REGISTERS(NAME, N, SHAPE, REGS, A, B, P, TAIL)                                              \
  template <>                                                                                                  \
  struct NAME<N> {                                                                                             \
    static __device__ __forceinline__ void run(float (&d)[REGS], const std::uint32_t (&a)[4], std::uint64_t b, \
                                               int keep) {                                                     \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\nwgmma.mma_async.sync.aligned." SHAPE           \
                   " {" LOWP_TEXT##REGS "}, {" A "}, " B ", p" TAIL ";\n}\n"                                   \
                   : LOWP_BIND##REGS("+f")                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));                           \
    }                                                                                                          \
  };

template <int N>
struct WgmmaE4m3;  // both operands in shared memory
LOWP_WGMMA_SHARED(WgmmaE4m3, 128, float, "+f", "m64n128k32.f32.e4m3.e4m3", 64, "%64", "%65", "%66", ", 1, 1")
LOWP_WGMMA_SHARED(WgmmaE4m3, 256, float, "+f", "m64n256k32.f32.e4m3.e4m3", 128, "%128", "%129", "%130", ", 1, 1")

template <int N>
struct WgmmaS8;
LOWP_WGMMA_SHARED(WgmmaS8, 128, std::int32_t, "+r", "m64n128k32.s32.s8.s8", 64, "%64", "%65", "%66", "")
LOWP_WGMMA_SHARED(WgmmaS8, 256, std::int32_t, "+r", "m64n256k32.s32.s8.s8", 128, "%128", "%129", "%130", "")

template <int N>
struct WgmmaBf16Registers;  // A in registers
LOWP_WGMMA_REGISTERS(WgmmaBf16Registers, 16, "m64n16k16.f32.bf16.bf16", 8, "%8, %9, %10, %11", "%12", "%13",
                     ", 1, 1, 0")
LOWP_WGMMA_REGISTERS(WgmmaBf16Registers, 64, "m64n64k16.f32.bf16.bf16", 32, "%32, %33, %34, %35", "%36", "%37",
                     ", 1, 1, 0")
LOWP_WGMMA_REGISTERS(WgmmaBf16Registers, 128, "m64n128k16.f32.bf16.bf16", 64, "%64, %65, %66, %67", "%68", "%69",
                     ", 1, 1, 0")
LOWP_WGMMA_REGISTERS(WgmmaBf16Registers, 256, "m64n256k16.f32.bf16.bf16", 128, "%128, %129, %130, %131", "%132", "%133",
                     ", 1, 1, 0")

template <int N>
struct WgmmaBf16;  // both operands in shared memory
LOWP_WGMMA_SHARED(WgmmaBf16, 64, float, "+f", "m64n64k16.f32.bf16.bf16", 32, "%32", "%33", "%34", ", 1, 1, 0, 0")

template <int N>
struct WgmmaBf16Transposed;  // A in registers, B as K rows of N
LOWP_WGMMA_REGISTERS(WgmmaBf16Transposed, 64, "m64n64k16.f32.bf16.bf16", 32, "%32, %33, %34, %35", "%36", "%37",
                     ", 1, 1, 1")
LOWP_WGMMA_REGISTERS(WgmmaBf16Transposed, 128, "m64n128k16.f32.bf16.bf16", 64, "%64, %65, %66, %67", "%68", "%69",
                     ", 1, 1, 1")
LOWP_WGMMA_REGISTERS(WgmmaBf16Transposed, 256, "m64n256k16.f32.bf16.bf16", 128, "%128, %129, %130, %131", "%132",
                     "%133", ", 1, 1, 1")

template <int N>
struct WgmmaE4m3Registers;
LOWP_WGMMA_REGISTERS(WgmmaE4m3Registers, 16, "m64n16k32.f32.e4m3.e4m3", 8, "%8, %9, %10, %11", "%12", "%13", ", 1, 1")
LOWP_WGMMA_REGISTERS(WgmmaE4m3Registers, 64, "m64n64k32.f32.e4m3.e4m3", 32, "%32, %33, %34, %35", "%36", "%37",
                     ", 1, 1")
LOWP_WGMMA_REGISTERS(WgmmaE4m3Registers, 128, "m64n128k32.f32.e4m3.e4m3", 64, "%64, %65, %66, %67", "%68", "%69",
                     ", 1, 1")
LOWP_WGMMA_REGISTERS(WgmmaE4m3Registers, 256, "m64n256k32.f32.e4m3.e4m3", 128, "%128, %129, %130, %131", "%132", "%133",
                     ", 1, 1")

#undef LOWP_WGMMA_SHARED
#undef LOWP_WGMMA_REGISTERS
#undef LOWP_TEXT8
#undef LOWP_BIND8
#undef LOWP_TEXT32
#undef LOWP_BIND32
#undef LOWP_TEXT64
#undef LOWP_BIND64
#undef LOWP_TEXT128
#undef LOWP_BIND128
#undef LOWP_D8
#undef LOWP_N0
#undef LOWP_N8
#undef LOWP_N16
#undef LOWP_N24
#undef LOWP_N32
#undef LOWP_N40
#undef LOWP_N48
#undef LOWP_N56
#undef LOWP_N64
#undef LOWP_N72
#undef LOWP_N80
#undef LOWP_N88
#undef LOWP_N96
#undef LOWP_N104
#undef LOWP_N112
#undef LOWP_N120

}  // namespace lowp::kernels::cuda::ptx
