// Casts whose groups lie along rows, and casts whose one scale is given: the matrix is a flat run of eight-value
// chunks.
//
// A warp takes segments of kUnroll * 32 chunks; lanes load neighbouring 16 bytes, so that every access of the warp is
// one run of memory. A group is `lanes` neighbouring lanes of one chunk: its largest magnitude is found by shuffles,
// and where the group size is known at compile time, each lane works out the scale of one of the group's kUnroll chunks
// and passes it on, so that the scale arithmetic is not repeated in each of them.
#pragma once

#include "lowp/kernels/cuda/cast_args.h"
#include "lowp/kernels/cuda/chunk.cuh"
#include "lowp/kernels/cuda/codec.cuh"
#include "lowp/kernels/cuda/front.cuh"

namespace lowp::kernels::cuda {

inline constexpr int kUnroll = 4;

__device__ __forceinline__ void store_zero_point(const RowsArgs& args, std::size_t at, float zero_point) {
  if (args.codec.format.zero_point == formats::ZeroPoint::integer)
    static_cast<std::int8_t*>(args.zero_point)[at] = static_cast<std::int8_t>(zero_point);
  else
    static_cast<float*>(args.zero_point)[at] = zero_point;
}

/// ScaleGrid::offset, in 32-bit arithmetic where one matrix is tiled by itself.
__device__ __forceinline__ std::size_t scale_offset(const formats::ScaleGrid& place, std::uint32_t expert,
                                                    std::uint32_t row, std::uint32_t column) {
  const bool alone = place.layout == formats::ScaleLayout::tiled_per_expert ||
                     (place.layout == formats::ScaleLayout::tiled && expert == 0);
  if (!alone) return static_cast<std::size_t>(place.offset(expert, row, column));
  const auto w = static_cast<std::uint32_t>(place.w);
  return static_cast<std::size_t>(expert) * static_cast<std::size_t>(formats::tiled_bytes(place.h, place.w)) +
         formats::tiled_offset<std::uint32_t>(row, column, w);
}

/// `place`: of the chunk in the result, in chunks.
template <class Codec>
__device__ __forceinline__ std::uint64_t encode_chunk(const CodecArgs& args, const Chosen& c,
                                                      const Chunk<Codec::kInput>& chunk, std::size_t place) {
  if constexpr (Codec::kPairs) {
    return Codec::encode_pairs(c, chunk.word);
  } else {
    Eight v;
    chunk.values(v.x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (Codec::kInput == Elem::f32)
        v.sign[i] = detail::high_halves(chunk.word[2 * i], chunk.word[2 * i + 1]);
      else
        v.sign[i] = chunk.word[i];
    }
    v.element = static_cast<std::uint64_t>(place) * 8;
    return Codec::encode(args, c, v);
  }
}

/// Stores the scale and zero point of a group of an expert, counted along rows.
template <class Codec>
__device__ __forceinline__ void store_scale(const RowsArgs& args, std::uint32_t expert, std::uint32_t group,
                                            const Chosen& c) {
  std::size_t at = static_cast<std::size_t>(expert) * args.groups + group;
  if constexpr (Codec::kMinMax) store_zero_point(args, at, c.zero_point);
  if constexpr (Codec::kByteScale) {
    if (args.place.layout != formats::ScaleLayout::rows) {
      const std::uint32_t row = args.row_of_group(group);
      at = scale_offset(args.place, expert, row, group - row * args.groups_per_row);
    }
    static_cast<std::uint8_t*>(args.scale)[at] = static_cast<std::uint8_t>(c.stored);
  } else {
    static_cast<std::uint32_t*>(args.scale)[at] = c.stored;
  }
}

template <class Codec>
__device__ __forceinline__ void store_codes(void* codes, std::size_t chunk, std::uint64_t eight) {
  if constexpr (Codec::kNibbles)
    static_cast<std::uint32_t*>(codes)[chunk] = static_cast<std::uint32_t>(eight);
  else
    static_cast<std::uint64_t*>(codes)[chunk] = eight;
}

/// Where a thread's chunks are, in chunks of the result, and which of them there are.
struct Places {
  std::size_t first;
  std::uint32_t step;
  bool inside[kUnroll];

  __device__ __forceinline__ std::size_t at(int u) const { return first + static_cast<std::size_t>(u) * step; }
};

/// Casts chunks whose groups are Codec::kGroup / 8 neighbouring lanes. One lane of each group calls
/// put_scale(u, chosen) for its chunk u. All lanes of the warp call it.
template <class Codec, class PutScale>
__device__ __forceinline__ void cast_chunks(const RowsArgs& args, const CodecArgs& codec,
                                            const Chunk<Codec::kInput> (&chunk)[kUnroll], const Places& places,
                                            const PutScale& put_scale) {
  constexpr Elem In = Codec::kInput;
  constexpr int kLanes = Codec::kGroup / 8;
  const std::uint32_t lane = threadIdx.x % 32;
  std::uint32_t amax[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    amax[u] = chunk[u].max_abs_packed();
#pragma unroll
    for (int mask = 1; mask < kLanes; mask *= 2) amax[u] = combine_across<In>(amax[u], mask);
  }
  // Lane l of a group has the scale of chunks l, l + kLanes, ...
  constexpr int kEach = kLanes < kUnroll ? kUnroll / kLanes : 1;
  const std::uint32_t member = lane % kLanes;
  Chosen chosen[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    std::uint32_t mine = amax[e * kLanes];
#pragma unroll
    for (int u = 1; u < kLanes && e * kLanes + u < kUnroll; ++u)
      if (member == u) mine = amax[e * kLanes + u];
    chosen[e] = Codec::choose(codec, amax_bits<In>(mine));
    if (member < kUnroll) put_scale(e * kLanes + member, chosen[e]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    Chosen c;
    const int from = static_cast<int>(lane - member) + u % kLanes;
#pragma unroll
    for (int i = 0; i < Codec::kShared; ++i) c.shared[i] = __shfl_sync(0xFFFFFFFFu, chosen[u / kLanes].shared[i], from);
    const std::uint64_t eight = encode_chunk<Codec>(codec, c, chunk[u], places.at(u));
    if (places.inside[u]) store_codes<Codec>(args.codes, places.at(u), eight);
  }
}

/// The same with args.lanes >= kUnroll lanes a group, a power of two, and any codec. `first`: the lane's first chunk in
/// its expert.
template <class Codec>
__device__ __forceinline__ void cast_wide_groups(const RowsArgs& args, std::uint32_t expert, std::uint32_t first,
                                                 const Chunk<Codec::kInput> (&chunk)[kUnroll], const Places& places) {
  constexpr Elem In = Codec::kInput;
  const std::uint32_t lane = threadIdx.x % 32, member = lane & (args.lanes - 1), lead = lane - member;
  // What a lane chooses from: that of chunk member % kUnroll, so that only the first lanes' choice matters. By two
  // selections: the compiler makes an array in memory of a chain of comparisons.
  static_assert(kUnroll == 4);
  const auto pick = [&](const auto& of_chunk) {
    const std::uint32_t below = member & 1 ? of_chunk(1) : of_chunk(0), above = member & 1 ? of_chunk(3) : of_chunk(2);
    return member & 2 ? above : below;
  };
  Chosen chosen;
  if constexpr (Codec::kMinMax) {
    Range<In> range[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) range[u] = chunk[u].range();
    for (int mask = 1; mask < args.lanes; mask *= 2)
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) range[u].add_across(mask);
    const Range<In> mine = {pick([&](int u) { return range[u].low; }), pick([&](int u) { return range[u].high; })};
    chosen = Codec::choose(args.codec, mine);
  } else {
    std::uint32_t amax[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) amax[u] = chunk[u].max_abs_packed();
    for (int mask = 1; mask < args.lanes; mask *= 2)
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) amax[u] = combine_across<In>(amax[u], mask);
    chosen = Codec::choose(args.codec, amax_bits<In>(pick([&](int u) { return amax[u]; })));
  }
  if (member < kUnroll) {
    const std::uint32_t at = first - lane + lead + member * 32;  // the group's first chunk
    if (at < args.chunks) store_scale<Codec>(args, expert, at >> (__ffs(args.lanes) - 1), chosen);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    Chosen c;
#pragma unroll
    for (int i = 0; i < Codec::kShared; ++i)
      c.shared[i] = __shfl_sync(0xFFFFFFFFu, chosen.shared[i], static_cast<int>(lead) + u);
    const std::uint64_t eight = encode_chunk<Codec>(args.codec, c, chunk[u], places.at(u));
    if (places.inside[u]) store_codes<Codec>(args.codes, places.at(u), eight);
  }
}

/// Blocks of 256 threads that should fit a multiprocessor.
template <class Codec, class Source>
inline constexpr int kGroupBlocks = Codec::kInput == Elem::f32 ? (Source::kHeavy ? 2 : 3) : (Source::kHeavy ? 3 : 4);

/// Groups along rows. Codec::kGroup 0: args.lanes lanes a group. Source: what stands in front (front.cuh).
template <class Codec, class Source>
__global__ void __launch_bounds__(256, kGroupBlocks<Codec, Source>) cast_groups(const __grid_constant__ RowsArgs args) {
  constexpr Elem In = Codec::kInput;
  const std::uint32_t expert = blockIdx.y, lane = threadIdx.x % 32;
  const std::uint32_t first = (blockIdx.x * blockDim.x + threadIdx.x - lane) * kUnroll + lane;
  Source source[kUnroll];
  Chunk<In> chunk[kUnroll];
  Places places = {static_cast<std::size_t>(expert) * args.chunks + first, 32, {}};
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    places.inside[u] = first + u * 32 < args.chunks;
    if (places.inside[u])
      source[u].load(args, places.at(u));
    else
      source[u].clear();
  }
  // After the loads are on their way: it may wait for memory itself.
  const CodecArgs codec = codec_of(args.codec, args.amax, expert);
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) chunk[u] = source[u].values(args);

  if constexpr (Codec::kGroup > 0) {
    for_tensor_scale<Codec>(codec, [&](auto used) {
      cast_chunks<decltype(used)>(args, codec, chunk, places, [&](std::uint32_t u, const Chosen& c) {
        const std::uint32_t at = first + u * 32;
        if (at < args.chunks) store_scale<Codec>(args, expert, at / (Codec::kGroup / 8), c);
      });
    });
  } else {
    cast_wide_groups<Codec>(args, expert, first, chunk, places);
  }
}

/// One scale for each matrix, from its largest magnitude args.amax[expert].
template <class Codec>
__global__ void __launch_bounds__(256) cast_whole(const __grid_constant__ RowsArgs args) {
  const std::uint32_t expert = blockIdx.y, lane = threadIdx.x % 32;
  const std::uint32_t first = (blockIdx.x * blockDim.x + threadIdx.x - lane) * kUnroll + lane;
  const std::size_t base = static_cast<std::size_t>(expert) * args.chunks;
  Chunk<Codec::kInput> chunk[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (first + u * 32 < args.chunks) chunk[u].load(args.x, base + first + u * 32);
  const Chosen c = Codec::choose(args.codec, args.amax ? args.amax[expert].bits : args.static_amax);
  if (blockIdx.x == 0 && threadIdx.x == 0) static_cast<std::uint32_t*>(args.scale)[expert] = c.stored;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::size_t at = base + first + u * 32;
    if (first + u * 32 < args.chunks)
      store_codes<Codec>(args.codes, at, encode_chunk<Codec>(args.codec, c, chunk[u], at));
  }
}

}  // namespace lowp::kernels::cuda
