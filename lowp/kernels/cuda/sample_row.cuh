// One row of logits as a block sees it: what is largest, and the k likeliest or those that have a share of the weight.
//
// A set of likeliest ids is all ids from a cut on, in the order of token_order.cuh. Cuts are found by halving what is
// in doubt: by passes over the row while it is too much, then in a list in shared memory. Sums are of integers, so that
// neither the threads nor the order in which ids come into the list matter.
#pragma once

#include <cmath>

#include "lowp/kernels/cuda/token_order.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kRowThreads = 1024, kRowWarps = kRowThreads / 32, kListed = 2048;

/// Of some ids.
struct RowSum {
  std::uint64_t weight = 0;
  std::uint32_t count = 0;

  __device__ __forceinline__ RowSum operator+(const RowSum& o) const { return {weight + o.weight, count + o.count}; }
  __device__ __forceinline__ RowSum operator-(const RowSum& o) const { return {weight - o.weight, count - o.count}; }
};

struct RowShared {
  std::uint64_t weights[kRowWarps];
  std::uint32_t counts[kRowWarps];
  float most[kRowWarps], least[kRowWarps];
  std::uint32_t listed;
  std::uint64_t order[kListed], weight[kListed], found;
};

/// Over the block; every thread gets it.
__device__ __forceinline__ RowSum block_sum(RowSum mine, RowShared& s) {
  const auto over_warp = [](RowSum sum) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) sum.weight += __shfl_xor_sync(~0u, sum.weight, mask);
    sum.count = __reduce_add_sync(~0u, sum.count);
    return sum;
  };
  mine = over_warp(mine);
  __syncthreads();  // the sums before have been read
  if (threadIdx.x % 32 == 0) {
    s.weights[threadIdx.x / 32] = mine.weight;
    s.counts[threadIdx.x / 32] = mine.count;
  }
  __syncthreads();
  return over_warp({s.weights[threadIdx.x % 32], s.counts[threadIdx.x % 32]});
}

/// The logits, of either type, of ids below `limit`.
struct RowLogits {
  const std::uint16_t* bf16 = nullptr;  // or
  const float* f32 = nullptr;
  int limit = 0;

  struct Eight {
    uint4 a, b;  // b: of f32
  };
  __device__ __forceinline__ Eight load(int chunk) const {
    if (!f32) return {reinterpret_cast<const uint4*>(bf16)[chunk], {}};
    return {reinterpret_cast<const uint4*>(f32)[2 * chunk], reinterpret_cast<const uint4*>(f32)[2 * chunk + 1]};
  }
  __device__ __forceinline__ void values(const Eight& e, float (&x)[8]) const {
    const std::uint32_t a[4] = {e.a.x, e.a.y, e.a.z, e.a.w}, b[4] = {e.b.x, e.b.y, e.b.z, e.b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (f32) {
        x[i] = bits_float(a[i]);
        x[4 + i] = bits_float(b[i]);
      } else {
        x[2 * i] = bits_float(a[i] << 16);
        x[2 * i + 1] = bits_float(a[i] & 0xFFFF0000u);
      }
    }
  }

  /// Calls visit(id, logit) for the ids of the chunks of eight first, first + step, ... below `end`, this thread's.
  template <typename Visit>
  __device__ __forceinline__ void each(int first, int end, int step, const Visit& visit) const {
    if (first >= end) return;
    Eight next = load(first);
    for (int chunk = first; chunk < end; chunk += step) {
      const Eight now = next;
      if (chunk + step < end) next = load(chunk + step);
      float x[8];
      values(now, x);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (8 * chunk + i < limit) visit(8 * chunk + i, x[i]);
    }
  }
  /// Over the block, all ids.
  template <typename Visit>
  __device__ __forceinline__ void each(const Visit& visit) const {
    each(static_cast<int>(threadIdx.x), chunks(), kRowThreads, visit);
  }
  __device__ __forceinline__ int chunks() const { return (limit + 7) / 8; }
};

class Row {
 public:
  static constexpr float kUnit = 0x1p44f;  // of weights: 2^19 of them fit 64 bits

  __device__ __forceinline__ Row(const RowLogits& logits, float temperature, RowShared& shared)
      : logits_(logits), temperature_(temperature), inverse_(1 / temperature), s_(shared) {}

  /// The largest logit, the smallest finite one, and which id the largest is of. False where a logit is NaN or the
  /// largest is not finite.
  __device__ __forceinline__ bool look() {
    float most = -INFINITY, least = INFINITY;
    int first = 0;  // of the largest
    bool wrong = false;
    std::uint32_t finite = 0;
    logits_.each([&](int id, float x) {
      wrong |= !(x < INFINITY);
      if (x > most) {
        most = x;
        first = id;
      }
      if (x > -INFINITY) {
        ++finite;
        least = fminf(least, x);
      }
    });
    std::uint64_t best = finite ? token_order(most, static_cast<std::uint32_t>(first)) : 0;
    own_best_ = static_cast<std::uint32_t>(best >> 32);
    wrong = __syncthreads_or(wrong);
    finite_ = block_sum({0, finite}, s_).count;
    const auto over_warp = [](std::uint64_t v) {
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) v = max(v, __shfl_xor_sync(~0u, v, mask));
      return v;
    };
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) least = fminf(least, __shfl_xor_sync(~0u, least, mask));
    best = over_warp(best);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
      s_.weights[threadIdx.x / 32] = best;
      s_.least[threadIdx.x / 32] = least;
    }
    __syncthreads();
    top_ = over_warp(s_.weights[threadIdx.x % 32]);
    least_ = INFINITY;
    for (int w = 0; w < kRowWarps; ++w) least_ = fminf(least_, s_.least[w]);
    most_ = logit_of_order(top_);
    return !wrong && top_ != 0;
  }
  __device__ __forceinline__ float most() const { return most_; }
  __device__ __forceinline__ std::int32_t likeliest() const { return id_of_order(top_); }
  __device__ __forceinline__ std::uint32_t finite() const { return finite_; }

  __device__ __forceinline__ float weight(float x) const { return expf((x - most_) * inverse_); }
  __device__ __forceinline__ static std::uint64_t integer(float weight) { return __float2ull_rn(weight * kUnit); }

  /// The cut that leaves the k likeliest, 0 < k <= finite(); `kept`: their sum.
  __device__ __forceinline__ std::uint64_t cut_count(std::uint32_t k, RowSum& kept) {
    Doubt d{token_order(least_, ~0u), top_ + 1, {}, {}};
    if (k <= kRowThreads) {  // the k-th largest is at least the k-th largest of the threads' likeliest
      std::uint32_t low = 0;
      for (std::uint32_t bit = 0x80000000u; bit > 0; bit /= 2)
        if (static_cast<std::uint32_t>(__syncthreads_count(own_best_ >= (low | bit))) >= k) low |= bit;
      d.low = max(d.low, static_cast<std::uint64_t>(low) << 32);
    }
    d.inside = scan(d.low, d.high, nullptr);
    return cut<true>(k, d, kept);
  }
  /// The cut among those from `low` on that leaves the fewest with at least `share` of their weight. low = 0: all ids;
  /// else a cut, and `kept` what it leaves.
  __device__ __forceinline__ std::uint64_t cut_share(double share, std::uint64_t low, RowSum& kept) {
    if (low > 0) return cut<false>(share_of(kept.weight, share), {low, top_ + 1, {}, kept}, kept);
    constexpr float kNear = 8;  // temperatures below the largest: most weight is there
    Doubt d{token_order(fmaxf(most_ - kNear * temperature_, least_), ~0u), top_ + 1, {}, {}};
    RowSum all;
    d.inside = scan(d.low, d.high, &all);
    const std::uint64_t wanted = share_of(all.weight, share);
    if (d.inside.weight < wanted) {
      d.above = d.inside;
      d.inside = all - d.above;
      d.high = d.low;
      d.low = token_order(least_, ~0u);
    }
    return cut<false>(wanted, d, kept);
  }

 private:
  // The cut is one of low to high - 1, those from `high` on are in and sum to `above`.
  struct Doubt {
    std::uint64_t low, high;
    RowSum above, inside;
  };

  __device__ __forceinline__ static std::uint64_t share_of(std::uint64_t weight, double share) {
    const auto wanted = static_cast<std::uint64_t>(ceil(static_cast<double>(weight) * share));
    return min(max(wanted, std::uint64_t{1}), weight);
  }

  // The sum of ids in [low, high), which are listed if they are few; *all: of all with a finite logit.
  __device__ __forceinline__ RowSum scan(std::uint64_t low, std::uint64_t high, RowSum* all) {
    __syncthreads();  // the list before has been read
    if (threadIdx.x == 0) s_.listed = 0;
    __syncthreads();
    volatile std::uint32_t& listed = s_.listed;
    const float least = all ? -INFINITY : logit_of_order(low);
    RowSum part, whole;
    logits_.each([&](int id, float x) {
      if (!(x >= least) || !(x > -INFINITY)) return;
      const std::uint64_t order = token_order(x, static_cast<std::uint32_t>(id));
      const bool inside = order >= low && order < high;
      if (!inside && !all) return;
      const std::uint64_t w = integer(weight(x));
      if (all) whole = whole + RowSum{w, 1};
      if (!inside) return;
      part = part + RowSum{w, 1};
      if (listed >= kListed) return;
      const std::uint32_t slot = atomicAdd(&s_.listed, 1);
      if (slot >= kListed) return;
      s_.order[slot] = order;
      s_.weight[slot] = w;
    });
    if (all) *all = block_sum(whole, s_);
    part = block_sum(part, s_);  // its barriers show the list to all
    list_low_ = part.count <= kListed ? low : 1;
    list_high_ = part.count <= kListed ? high : 0;
    list_count_ = static_cast<int>(part.count);
    return part;
  }
  __device__ __forceinline__ RowSum listed_sum(std::uint64_t low, std::uint64_t high) const {
    RowSum part;
    for (int i = static_cast<int>(threadIdx.x); i < list_count_; i += kRowThreads)
      if (s_.order[i] >= low && s_.order[i] < high) part = part + RowSum{s_.weight[i], 1};
    return block_sum(part, s_);
  }
  __device__ __forceinline__ bool is_listed(const Doubt& d) const { return list_low_ <= d.low && d.high <= list_high_; }

  // Halfway, by the logits while they differ.
  __device__ __forceinline__ static std::uint64_t between(const Doubt& d) {
    const float a = logit_of_order(d.low), b = logit_of_order(d.high - 1);
    const std::uint64_t middle = static_cast<std::uint64_t>(rising_bits(a + (b - a) * 0.5f)) << 32;
    return middle > d.low && middle < d.high ? middle : d.low + (d.high - d.low) / 2;
  }

  // The last cut from which on there is `wanted`: a count, or a weight.
  template <bool kCount>
  __device__ __forceinline__ std::uint64_t cut(std::uint64_t wanted, Doubt d, RowSum& kept) {
    const auto measure = [](const RowSum& sum) { return kCount ? std::uint64_t{sum.count} : sum.weight; };
    while (d.inside.count > 1) {
      if (!is_listed(d) && d.inside.count <= kListed) scan(d.low, d.high, nullptr);
      const std::uint64_t middle = between(d);
      const RowSum upper = is_listed(d) ? listed_sum(middle, d.high) : scan(middle, d.high, nullptr);
      if (measure(d.above + upper) >= wanted) {
        d.low = middle;
        d.inside = upper;
      } else {
        d.high = middle;
        d.above = d.above + upper;
        d.inside = d.inside - upper;
      }
    }
    if (!is_listed(d)) scan(d.low, d.high, nullptr);
    __syncthreads();  // what was found before has been read
    for (int i = static_cast<int>(threadIdx.x); i < list_count_; i += kRowThreads)
      if (s_.order[i] >= d.low && s_.order[i] < d.high) s_.found = s_.order[i];
    __syncthreads();
    kept = d.above + d.inside;
    return s_.found;
  }

  const RowLogits logits_;
  const float temperature_, inverse_;
  RowShared& s_;
  std::uint64_t top_ = 0, list_low_ = 1, list_high_ = 0;
  float most_ = 0, least_ = 0;
  std::uint32_t finite_ = 0, own_best_ = 0;  // own: this thread's largest logit, as rising_bits()
  int list_count_ = 0;
};

}  // namespace lowp::kernels::cuda
