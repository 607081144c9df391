// Instructions of attention that products of weights do not use, one a function.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda::ptx {

/// Four matrices of 8 x 8 16-bit values, lane i giving the address of row i % 8 of matrix i / 8: lane (g, t) gets the
/// pair at columns 2t of row g; transposed, that at rows 2t of column g.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&to)[4], std::uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

/// A matrix of 8 x 8 16-bit values, of which lane (g, t) has the pair at columns 2t of row g, transposed.
__device__ __forceinline__ std::uint32_t transpose(std::uint32_t pair) {
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

/// D[16, 8] += A[16, 16] B[16, 8], f16 operands, f32 sums.
__device__ __forceinline__ void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                        std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2^x by table and interpolation; less than 2^-126 is zero.
__device__ __forceinline__ float ex2_or_zero(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/// log2(x) by table and interpolation; less than 2^-126 is zero.
__device__ __forceinline__ float lg2_approx(float x) {
  float out;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/// Lanewise differences of two f16.
__device__ __forceinline__ std::uint32_t sub_f16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t out;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

__device__ __forceinline__ float2 load_shared_float2(std::uint32_t from) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(from) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared(std::uint32_t to, float2 v) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(v.x), "f"(v.y) : "memory");
}

__device__ __forceinline__ void store_shared(std::uint32_t to, uint2 v) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(v.x), "r"(v.y) : "memory");
}
__device__ __forceinline__ void store_shared(std::uint32_t to, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/// Arrives at a named barrier of `threads` threads without waiting there.
__device__ __forceinline__ void arrive_threads(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Fixes the values of variables here: what computes them stays in front of this point, what reads them behind it.
template <int N>
__device__ __forceinline__ void pin(float (&values)[N]) {
#pragma unroll
  for (float& v : values) asm volatile("" : "+f"(v)::"memory");
}

/// Descriptor of a tile along K as tile_descriptor()'s, of rows of 64 bytes that are swizzled by 64 bytes.
__device__ __forceinline__ std::uint64_t narrow_tile_descriptor(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3FFFF) >> 4) | std::uint64_t{1} << 16 | std::uint64_t{512 >> 4} << 32 |
         std::uint64_t{2} << 62;
}

/// Descriptor of an operand B[K, N] that lies as K rows of N: planes of 64 values along N, `plane_bytes` apart, whose
/// rows of 128 bytes are swizzled by 128 bytes; 8 rows are 1024 bytes.
__device__ __forceinline__ std::uint64_t transposed_descriptor(std::uint32_t address, std::uint32_t plane_bytes) {
  return static_cast<std::uint64_t>((address & 0x3FFFF) >> 4) | static_cast<std::uint64_t>(plane_bytes >> 4) << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

}  // namespace lowp::kernels::cuda::ptx
