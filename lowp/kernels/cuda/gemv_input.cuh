// What gemv multiplies: every block brings the rows of activations to its shared memory, where they may be normalised
// and put on a grid of 8-bit numbers on the way. The blocks repeat each other's work, which is less than what a kernel
// of its own in front costs: its launch, its end, and a way through memory.
#pragma once

#include "lowp/kernels/cuda/row_cast.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kGemvWarps = 16, kGemvThreads = kGemvWarps * 32;

struct GemvInput {
  const __nv_bfloat16* x;    // [m, k]
  const __nv_bfloat16* add;  // or null; of a norm, as all below
  __nv_bfloat16* sum;        // gets x + add where add is not null
  const float* norm;         // [k]; null: x is multiplied as it is
  float eps;
  bool round_quotient;
  int lanes;  // threads that add the squares of a row
  RowCast cast;
  bool one_scale;  // of all rows
  CodecArgs codec;
};

/// Values of x between the beginnings of two rows in shared memory: the padding keeps the rows on different banks.
LOWP_HD constexpr int gemv_row_stride(int padded_k, int columns) { return columns == 1 ? padded_k : padded_k + 32; }

/// The rows of a block. Every thread calls everything; a function that reads what others wrote begins with a barrier.
template <int Columns>  // 1 row, or up to 8
class GemvRows {
 public:
  struct Shared {
    float squares[Columns][kGemvWarps], scale[Columns];
    std::uint32_t largest[Columns][kGemvWarps];
  };

  __device__ __forceinline__ GemvRows(const GemvInput& in, int m, int k, int padded_k, std::uint32_t* to,
                                      Shared& shared)
      : in_(in),
        m_(Columns == 1 ? 1 : m),
        chunks_(k / 8),
        padded_chunks_(padded_k / 8),
        stride_(gemv_row_stride(padded_k, Columns) / 2),
        to_(to),
        shared_(shared) {
    if (!in.norm) return;
    group_ = thread() / in.lanes;
    member_ = thread() - group_ * in.lanes;
    for (int line = thread(); 4 * line < chunks_; line += kGemvThreads) ptx::prefetch(in.norm + 32 * line);
  }

  /// From memory that other kernels have written to shared memory, zeros beyond k. Of every 32 values, the eight that a
  /// lane multiplies lie together. Ends with a barrier.
  __device__ __forceinline__ void stage() {
    if (in_.norm) {
      add();
      float weight[8] = {};  // of this thread's first chunk, on its way while others still add
      if (thread() < chunks_) load_constants(in_.norm + 8 * thread(), weight);
      __syncthreads();
      normalise(weight);
    } else {
#pragma unroll 1
      for (int row = 0; row < m_; ++row) {
        std::uint32_t largest = 0;
#pragma unroll 1
        for (int c = thread(); c < chunks_; c += kGemvThreads)
          keep(row, c, load_written(in_.x, (static_cast<long>(row) * chunks_ + c) * 8), largest);
        note_largest(row, largest);
      }
    }
    for (int row = 0; row < m_; ++row)
      for (int c = chunks_ + thread(); c < padded_chunks_; c += kGemvThreads) store(row, c, Bf16x8{});
    __syncthreads();
    if (in_.cast == RowCast::none) return;
    if (in_.cast == RowCast::e4m3)
      quantize<RowCast::e4m3>();
    else
      quantize<RowCast::int8>();
    __syncthreads();
  }

 private:
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ static int warp() { return thread() / 32; }
  __device__ __forceinline__ static int lane() { return thread() % 32; }

  // Pair p of a block of 16 goes to 4 (p % 4) + p / 4.
  __device__ __forceinline__ std::uint32_t* place(int row, int chunk) const {
    return to_ + row * stride_ + chunk / 4 * 16 + chunk % 4;
  }
  __device__ __forceinline__ void store(int row, int chunk, const Bf16x8& v) const {
    std::uint32_t* at = place(row, chunk);
#pragma unroll
    for (int i = 0; i < 4; ++i) at[4 * i] = v.word[i];
  }
  __device__ __forceinline__ Bf16x8 load(int row, int chunk) const {
    const std::uint32_t* at = place(row, chunk);
    return {{at[0], at[4], at[8], at[12]}};
  }
  __device__ __forceinline__ void keep(int row, int chunk, const Bf16x8& v, std::uint32_t& largest) const {
    store(row, chunk, v);
    largest = max_abs<Elem::bf16>(largest, v.max_abs_packed());
  }
  __device__ __forceinline__ void note_largest(int row, std::uint32_t largest) const {
    if (in_.cast == RowCast::none) return;
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) largest = combine_across<Elem::bf16>(largest, mask);
    if (lane() == 0) shared_.largest[row][warp()] = amax_bits<Elem::bf16>(largest);
  }

  // Sums of x and add, and of their squares, dealt to threads as add_norm() deals them; as many rows at once as there
  // are threads for.
  __device__ __forceinline__ void add() const {
    const int at_once = kGemvThreads / in_.lanes;
    // Each block writes its part of the sums.
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x),
              own_begin = chunks_ * block / blocks, own_end = chunks_ * (block + 1) / blocks;
#pragma unroll 1
    for (int first = 0; first < m_; first += at_once) {
      const int row = first + group_;
      if (group_ >= at_once || row >= m_) continue;  // whole warps
      const long base = static_cast<long>(row) * chunks_;
      Bf16x8 x[kRowChunks], y[kRowChunks];
#pragma unroll
      for (int i = 0; i < kRowChunks; ++i) {
        const int c = i * in_.lanes + member_;
        x[i].clear();
        y[i].clear();
        if (c >= chunks_) continue;
        x[i] = load_written(in_.x, (base + c) * 8);
        if (in_.add) y[i] = load_written(in_.add, (base + c) * 8);
      }
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kRowChunks; ++i) {
        const int c = i * in_.lanes + member_;
        if (in_.add) {
#pragma unroll
          for (int j = 0; j < 4; ++j) x[i].word[j] = ptx::add_bf16x2(x[i].word[j], y[i].word[j]);
          if (c >= own_begin && c < own_end) store_eight(in_.sum, (base + c) * 8, x[i]);
        }
        if (c < chunks_) store(row, c, x[i]);
        float v[8];
        x[i].values(v);
#pragma unroll
        for (const float s : v) squares = __fmaf_rn(s, s, squares);
      }
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(~0u, squares, mask);
      if (lane() == 0) shared_.squares[row][member_ / 32] = squares;
    }
  }

  __device__ __forceinline__ void normalise(const float (&first_weight)[8]) const {
#pragma unroll 1
    for (int row = 0; row < m_; ++row) {
      float all = lane() < in_.lanes / 32 ? shared_.squares[row][lane()] : 0.0f;
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) all += __shfl_xor_sync(~0u, all, mask);
      const float mean = formats::divide(all, static_cast<float>(chunks_ * 8)),
                  scale = formats::divide(1.0f, __fsqrt_rn(mean + in_.eps));
      std::uint32_t largest = 0;
#pragma unroll 1
      for (int c = thread(); c < chunks_; c += kGemvThreads) {
        float v[8], weight[8];
        load(row, c).values(v);
        if (c == thread()) {
#pragma unroll
          for (int j = 0; j < 8; ++j) weight[j] = first_weight[j];
        } else {
          load_constants(in_.norm + 8 * c, weight);
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          v[j] *= scale;
          v[j] = weight[j] * (in_.round_quotient ? round_bf16(v[j]) : v[j]);
        }
        keep(row, c, to_chunk<Elem::bf16>(v), largest);
      }
      note_largest(row, largest);
    }
  }

  // Values to those of their codes, and the scales that the sums want.
  template <RowCast kCast>
  __device__ __forceinline__ void quantize() const {
    using Codec = RowCodec<kCast>;
#pragma unroll 1
    for (int row = 0; row < m_; ++row) {
      std::uint32_t largest = 0;
      if (lane() < kGemvWarps) {
        largest = shared_.largest[row][lane()];
        for (int other = 0; in_.one_scale && other < m_; ++other)
          largest = max(largest, shared_.largest[other][lane()]);
      }
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, mask));
      const Chosen chosen = Codec::choose(in_.codec, largest);
      if (thread() == 0) shared_.scale[row] = bits_float(chosen.stored);
#pragma unroll 1
      for (int c = thread(); c < chunks_; c += kGemvThreads)
        store(row, c, values_of_codes<kCast>(encode_chunk<Codec>(in_.codec, chosen, load(row, c), 0)));
    }
  }

  const GemvInput& in_;
  const int m_, chunks_, padded_chunks_, stride_;
  std::uint32_t* const to_;
  Shared& shared_;
  int group_ = 0, member_ = 0;  // of the threads that add squares
};

}  // namespace lowp::kernels::cuda
