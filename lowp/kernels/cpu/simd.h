// The vectors of the instruction set that this file is compiled for; LOWP_ISA names their namespace. Only for the files
// of one kernel and one instruction set: what they compile is not to be called by name from elsewhere.
#pragma once

#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "lowp/kernels/cpu/simd_avx512.h"
#define LOWP_ISA avx512
#else
#include "lowp/kernels/cpu/simd_avx2.h"
#define LOWP_ISA avx2
#endif
