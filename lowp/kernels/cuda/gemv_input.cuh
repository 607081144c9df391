// What gemv multiplies: every block brings the rows of activations to its shared memory, where they may be normalised
// and put on a grid of 8-bit numbers on the way. The blocks repeat each other's work, which is less than what a kernel
// of its own in front costs: its launch, its end, and a way through memory.
#pragma once

#include "lowp/kernels/cuda/gemv_mail.cuh"
#include "lowp/kernels/cuda/gemv_shape.h"
#include "lowp/kernels/cuda/row_cast.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kGemvThreads = kGemvWarps * 32;

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
  // Words of the mail where x and add come from, and the sum goes to; negative: memory alone. Of one row.
  int x_mail = -1, add_mail = -1, sum_mail = -1;
};

/// A barrier of the threads that multiply: a block may have others.
__device__ __forceinline__ void sync_gemv() { ptx::sync_threads(1, kGemvThreads); }

/// Rows of bf16 as they are multiplied by decoders.
struct GemvPlainRows {
  static constexpr bool kQuads = false;
  static __device__ __forceinline__ std::uint32_t staged(std::uint32_t pair) { return pair; }
};

/// The rows of a block. Every thread that multiplies calls everything; a function that reads what others wrote begins
/// with a barrier.
/// Form: what becomes of a pair before it is multiplied; kQuads: rows are of e4m3 codes, as f16, and a lane has fours
/// of K instead of pairs.
template <int Columns, class Form = GemvPlainRows>  // 1 row, or up to 8
class GemvRows {
  static constexpr bool kQuads = Form::kQuads;

 public:
  struct Shared {
    float squares[Columns][kGemvWarps], scale[Columns];
    std::uint32_t largest[Columns][kGemvWarps];
  };

  __device__ __forceinline__ GemvRows(const GemvInput& in, int m, int k, int padded_k, std::uint32_t* to,
                                      Shared& shared, const GemvMail* mail = nullptr)
      : in_(in),
        mail_(mail),
        m_(Columns == 1 ? 1 : m),
        chunks_(k / 8),
        padded_chunks_(padded_k / 8),
        stride_(gemv_row_stride(padded_k, Columns) / 2),
        to_(to),
        shared_(shared) {
    if (!in.norm) return;
    group_ = thread() / in.lanes;
    member_ = thread() - group_ * in.lanes;
    fetch(in, k);
  }

  /// Asks for what is there before the rows are.
  __device__ __forceinline__ static void fetch(const GemvInput& in, int k) {
    if (!in.norm) return;
    for (int line = thread(); 32 * line < k; line += kGemvThreads) ptx::prefetch(in.norm + 32 * line);
  }

  /// From memory that other kernels have written to shared memory, zeros beyond k. Of every 32 values, the eight that a
  /// lane multiplies lie together. Ends with a barrier.
  __device__ __forceinline__ void stage() {
    if (in_.norm) {
      add();
      float weight[8] = {};  // of this thread's first chunk, on its way while others still add
      if (thread() < chunks_) load_constants(in_.norm + 8 * thread(), weight);
      sync_gemv();
      normalise(weight);
    } else {
#pragma unroll 1
      for (int row = 0; row < m_; ++row) {
        std::uint32_t largest = 0;
#pragma unroll 1
        for (int first = thread(); first < chunks_; first += kBatch * kGemvThreads) {
          Bf16x8 x[kBatch];
          read(in_.x, in_.x_mail, static_cast<long>(row) * chunks_, first, kGemvThreads, x);
#pragma unroll
          for (int i = 0; i < kBatch; ++i)
            if (const int c = first + i * kGemvThreads; c < chunks_) keep(row, c, x[i], largest);
        }
        note_largest(row, largest);
      }
    }
    for (int row = 0; row < m_; ++row)
      for (int c = chunks_ + thread(); c < padded_chunks_; c += kGemvThreads) store(row, c, Bf16x8{});
    sync_gemv();
    if (kQuads || in_.cast == RowCast::e4m3)
      quantize<RowCast::e4m3>();
    else if (in_.cast == RowCast::int8)
      quantize<RowCast::int8>();
    else
      return;
    sync_gemv();
  }

 private:
  __device__ __forceinline__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ static int warp() { return thread() / 32; }
  __device__ __forceinline__ static int lane() { return thread() % 32; }

  // A thread's part of a vector: chunks `first`, `first` + step and so on, all on their way at a time.
  static constexpr int kBatch = 4;
  __device__ __forceinline__ void read(const __nv_bfloat16* from, int word, long base, int first, int step,
                                       Bf16x8 (&to)[kBatch]) const {
    if (Columns > 1 || word < 0) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        if (const int c = first + i * step; c < chunks_) to[i] = load_written(from, (base + c) * 8);
      return;
    }
    const std::uint32_t* const at = mail_->at(word) + 4 * first;
    bool there;
    do {
      there = true;
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        if (first + i * step < chunks_) to[i] = GemvMail::read(at + 4 * i * step);
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        if (first + i * step < chunks_) there &= GemvMail::is_there(to[i]);
    } while (!there);
  }

  // Pair p of a block of 16 goes to 4 (p % 4) + p / 4; of fours, to 4 (p / 2 % 4) + 2 (p / 8) + p % 2.
  static constexpr int kSecond = kQuads ? 1 : 4, kThird = kQuads ? 4 : 8, kFourth = kSecond + kThird;  // of a chunk
  __device__ __forceinline__ std::uint32_t* place(int row, int chunk) const {
    std::uint32_t* const block = to_ + row * stride_ + chunk / 4 * 16;
    return kQuads ? block + chunk % 2 * 8 + chunk % 4 / 2 * 2 : block + chunk % 4;
  }
  __device__ __forceinline__ void store(int row, int chunk, const Bf16x8& v) const {
    std::uint32_t* at = place(row, chunk);
    at[0] = v.word[0];
    at[kSecond] = v.word[1];
    at[kThird] = v.word[2];
    at[kFourth] = v.word[3];
  }
  __device__ __forceinline__ Bf16x8 load(int row, int chunk) const {
    const std::uint32_t* at = place(row, chunk);
    return {{at[0], at[kSecond], at[kThird], at[kFourth]}};
  }
  // What will be multiplied.
  __device__ __forceinline__ void store_final(int row, int chunk, const Bf16x8& v) const {
    store(row, chunk,
          {{Form::staged(v.word[0]), Form::staged(v.word[1]), Form::staged(v.word[2]), Form::staged(v.word[3])}});
  }
  __device__ __forceinline__ void keep(int row, int chunk, const Bf16x8& v, std::uint32_t& largest) const {
    if (!kQuads && in_.cast == RowCast::none) return store_final(row, chunk, v);
    store(row, chunk, v);
    largest = max_abs<Elem::bf16>(largest, v.max_abs_packed());
  }
  __device__ __forceinline__ void note_largest(int row, std::uint32_t largest) const {
    if (!kQuads && in_.cast == RowCast::none) return;
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
        x[i].clear();
        y[i].clear();
      }
      static_assert(kRowChunks == kBatch);
      read(in_.x, in_.x_mail, base, member_, in_.lanes, x);
      if (in_.add) read(in_.add, in_.add_mail, base, member_, in_.lanes, y);
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kRowChunks; ++i) {
        const int c = i * in_.lanes + member_;
        if (in_.add) {
#pragma unroll
          for (int j = 0; j < 4; ++j) x[i].word[j] = ptx::add_bf16x2(x[i].word[j], y[i].word[j]);
          if (c >= own_begin && c < own_end) {
            store_eight(in_.sum, (base + c) * 8, x[i]);
            if constexpr (Columns == 1)
              if (in_.sum_mail >= 0) GemvMail::write(mail_->at(in_.sum_mail) + 4 * c, x[i]);
          }
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
      for (int c = thread(); c < chunks_; c += kGemvThreads) {
        const std::uint64_t codes = encode_chunk<Codec>(in_.codec, chosen, load(row, c), 0);
        if constexpr (kQuads)
          store(row, c, f16_of_codes(codes));
        else
          store_final(row, c, values_of_codes<kCast>(codes));
      }
    }
  }

  // Of e4m3.
  __device__ __forceinline__ static Bf16x8 f16_of_codes(std::uint64_t codes) {
    Bf16x8 out;
#pragma unroll
    for (int i = 0; i < 4; ++i) out.word[i] = ptx::cvt_f16x2_e4m3x2(static_cast<std::uint16_t>(codes >> (16 * i)));
    return out;
  }

  const GemvInput& in_;
  const GemvMail* const mail_;  // null: of inputs that have no place in it
  const int m_, chunks_, padded_chunks_, stride_;
  std::uint32_t* const to_;
  Shared& shared_;
  int group_ = 0, member_ = 0;  // of the threads that add squares
};

}  // namespace lowp::kernels::cuda
