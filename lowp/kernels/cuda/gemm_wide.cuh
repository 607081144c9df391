// Many rows of activations, bf16 or e4m3, times a packed weight: wgmma with the weight as operand A, decoded in
// registers, and the activations as operand B by the copy engine. So an accumulator is [outputs, tokens] and is turned
// when it is written.
//
// Three warpgroups: of the first, one thread keeps the ring of activations full and one of another warp that of
// weights, which may begin before the kernel's predecessor has ended; the other two multiply 64 outputs each. A
// fragment is decoded while the products of the one before run, so that the tensor cores always hold work.
//
// Two blocks of a cluster share the activations: with a tile of outputs each, both would read all of them, which at 128
// tokens is as much as bf16 weights. Tiles of 256 tokens: a persistent grid. Tiles of fewer: a block a tile, and the
// pairs of a cluster divide K; their sums are added in the order of the pairs through distributed memory, and a gate is
// applied there.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemm_decode.cuh"
#include "lowp/kernels/cuda/gemm_tiles.cuh"
#include "lowp/kernels/cuda/gemm_wgmma.cuh"

namespace lowp::kernels::cuda {

template <Codes C, Scales S, int Tokens>
struct WideShape {
  static constexpr Codes kCodes = C;
  static constexpr Scales kScales = S;
  static constexpr bool kLarge = Tokens == 256;
  static constexpr int kTokens = Tokens, kOutputs = 128;
  static constexpr int kStep = 128 / operand_bytes(C);                            // of K: a stage of activations
  static constexpr int kDepth = padded_depth(C), kStepsOfDepth = kDepth / kStep;  // a stage of weights
  static constexpr int kPairs = kStepsOfDepth / 2;                                // a turn of the loop is two steps
  static constexpr int kChunksOfStep = kStep / chunk_depth(C);
  static constexpr int kTileBytes = kDepth / unit_depth(C) * unit_bytes(C, S);  // of 16 outputs
  static constexpr int kWeightBytes = kOutputs / kUnitRows * kTileBytes;
  static constexpr int kTokenBytes = Tokens * 128;
  static constexpr int kSharing = 2;  // blocks that share activations
  static constexpr int kTokenStages = kLarge ? 4 : Tokens == 128 ? 5 : Tokens == 64 ? 8 : 16;
  static constexpr int kOutBytes = kLarge ? 4 * 64 * 128 : 0;
  static constexpr int kLeft = kLarge ? 0 : 8192;  // to small kernels, which can then begin early
  static constexpr int kRoom = 232448 - 1024 - kLeft - kOutBytes - kTokenStages * (kTokenBytes + 16);
  static constexpr int kWeightStages = kRoom / (kWeightBytes + 16) < 8 ? kRoom / (kWeightBytes + 16) : 8;
  static constexpr int kShared =
      1024 + kOutBytes + kTokenStages * (kTokenBytes + 16) + kWeightStages * (kWeightBytes + 16);
  static constexpr int kSumStride = kOutputs + 4;  // floats: keeps the four tokens of a quad on different banks
  static_assert(kWeightStages >= 2 &&
                (kLarge || Tokens * kSumStride * 4 <= kTokenStages * kTokenBytes + kWeightStages * kWeightBytes));
};

struct WideArgs {
  const std::uint8_t* units;
  const float* row_scale;
  const float* x_scale;  // or null; of row i at i * x_scale_step
  int x_scale_step;
  const __nv_bfloat16* bias;  // or null
  Gate gate;                  // of tiles of fewer than 256 tokens
  __nv_bfloat16* y;
  int m, n, depths;  // stages of weights along K
  int units_along_k, row_tiles;
  int splits;  // pairs of blocks that divide K
};

template <class Shape>
struct WideKernel {
  static constexpr int kSums = Shape::kTokens / 2;
  static constexpr int kDecoded = 4;  // fragments of a step, 32 bytes of K each
  using Decode = Decoder<Shape::kCodes, Shape::kScales>;
  using Wgmma = std::conditional_t<operand_bytes(Shape::kCodes) == 1, ptx::WgmmaE4m3Registers<Shape::kTokens>,
                                   ptx::WgmmaBf16Registers<Shape::kTokens>>;
  using Fragments = std::uint32_t[kDecoded][4];
  using TokenPlace = RingPlace<Shape::kTokenStages>;
  using WeightPlace = RingPlace<Shape::kWeightStages>;

  const CUtensorMap &map_x, &map_y;
  const WideArgs& args;
  std::uint32_t tokens, weights, out, barriers;
  int member, part;  // in the pair; the pair's of K
  TileOrder order;

  // The first block of the pair in the cluster.
  __device__ __forceinline__ int pair() const { return Shape::kLarge ? 0 : part * Shape::kSharing; }
  __device__ std::uint32_t tokens_full(int s) const { return barriers + 16 * s; }
  __device__ std::uint32_t tokens_empty(int s) const { return barriers + 16 * s + 8; }
  __device__ std::uint32_t weights_full(int s) const { return barriers + 16 * (Shape::kTokenStages + s); }
  __device__ std::uint32_t weights_empty(int s) const { return barriers + 16 * (Shape::kTokenStages + s) + 8; }

  __device__ void begin() const {
    for (int s = 0; s < Shape::kTokenStages; ++s) {
      ptx::barrier_init(tokens_full(s), 1);
      ptx::barrier_init(tokens_empty(s), 8 * Shape::kSharing);
    }
    for (int s = 0; s < Shape::kWeightStages; ++s) {
      ptx::barrier_init(weights_full(s), 1);
      ptx::barrier_init(weights_empty(s), 8 * Shape::kPairs);
    }
    ptx::barrier_init_fence();
  }

  // Calls work(first output, first token, first stage of weights, beyond the last) for this block's tiles.
  template <class Work>
  __device__ void each_tile(const Work& work) const {
    if constexpr (Shape::kLarge) {
      const int clusters = static_cast<int>(gridDim.x) / Shape::kSharing;
      for (int i = static_cast<int>(blockIdx.x) / Shape::kSharing; i < order.count(); i += clusters) {
        int row, column;
        order.at(i, row, column);
        work((row * Shape::kSharing + member) * Shape::kOutputs, column * Shape::kTokens, 0, args.depths);
      }
    } else {
      const int tile = static_cast<int>(blockIdx.x) / (Shape::kSharing * args.splits);
      work((tile % order.rows * Shape::kSharing + member) * Shape::kOutputs, tile / order.rows * Shape::kTokens,
           args.depths * part / args.splits, args.depths * (part + 1) / args.splits);
    }
  }

  // The producers have 40 registers: nothing is unrolled, offsets are 32-bit, in units of 16 bytes.
  __device__ void load_weights() const {
    constexpr int kTile16 = Shape::kTileBytes / 16;
    const unsigned stride16 =
        static_cast<unsigned>(args.units_along_k) * (unit_bytes(Shape::kCodes, Shape::kScales) / 16);
    WeightPlace place;
    each_tile([&](int output, int, int begin, int end) {
      const int first = output / kUnitRows, count = max(0, min(Shape::kOutputs / kUnitRows, args.row_tiles - first));
      unsigned from16 = first * stride16 + begin * kTile16;
#pragma unroll 1
      for (int d = begin; d < end; ++d, from16 += kTile16) {
        ptx::barrier_wait(weights_empty(place.stage), place.parity ^ 1);
        ptx::barrier_expect(weights_full(place.stage), count * Shape::kTileBytes);
        std::uint32_t to = weights + place.stage * Shape::kWeightBytes;
        unsigned at16 = from16;
#pragma unroll 1
        for (int i = 0; i < count; ++i, to += Shape::kTileBytes, at16 += stride16)
          ptx::load_bytes(to, args.units + static_cast<std::size_t>(at16) * 16, Shape::kTileBytes,
                          weights_full(place.stage));
        place.advance();
      }
    });
  }

  __device__ void load_tokens() const {
    TokenPlace place;
    each_tile([&](int, int token, int begin, int end) {
#pragma unroll 1
      for (int step = begin * Shape::kStepsOfDepth; step < end * Shape::kStepsOfDepth; ++step) {
        ptx::barrier_wait(tokens_empty(place.stage), place.parity ^ 1);
        ptx::barrier_expect(tokens_full(place.stage), Shape::kTokenBytes);
        const std::uint32_t to = tokens + place.stage * Shape::kTokenBytes;
        constexpr int kPart = Shape::kTokens / Shape::kSharing;
        const int offset = member * kPart;
        ptx::load_tile(to + offset * 128, &map_x, tokens_full(place.stage), step * Shape::kStep, token + offset,
                       static_cast<std::uint16_t>(((1 << Shape::kSharing) - 1) << pair()));
        place.advance();
      }
    });
  }

  __device__ __forceinline__ void release_tokens(int stage) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
    if (lane < Shape::kSharing) ptx::barrier_arrive(tokens_empty(stage), pair() + lane);
  }

  // Step `step` of a stage of weights to fragments.
  __device__ __forceinline__ void decode(Fragments& a, int consumer, int stage, int step) const {
    const int warp = static_cast<int>(threadIdx.x) / 32 & 3, lane = static_cast<int>(threadIdx.x) & 31;
    constexpr int kUnit = unit_bytes(Shape::kCodes, Shape::kScales), kUnitSteps = kChunks / Shape::kChunksOfStep;
    const std::uint32_t unit =
        weights + stage * Shape::kWeightBytes + (consumer * 4 + warp) * Shape::kTileBytes + step / kUnitSteps * kUnit;
    const int first = step % kUnitSteps * Shape::kChunksOfStep;
#pragma unroll
    for (int c = 0; c < Shape::kChunksOfStep; ++c) {
      const uint4 codes = ptx::load_shared_16(unit + (first + c) * kChunkBytes + 16 * lane);
      const uint2 scales = Decode::load_scales(unit, first + c, lane);
      std::uint32_t part[Decode::kSteps][4];
      Decode::fragments(codes, scales, part);
#pragma unroll
      for (int s = 0; s < Decode::kSteps; ++s)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[c * Decode::kSteps + s][i] = part[s][i];
    }
  }

  __device__ __forceinline__ void issue(float (&sums)[kSums], const Fragments& a, int stage) const {
    const std::uint64_t x = ptx::tile_descriptor(tokens + stage * Shape::kTokenBytes);
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < kDecoded; ++step) Wgmma::run(sums, a[step], x + step * 2, 1);
    ptx::wgmma_commit();
  }

  // Straight lines only: ptxas serialises every wgmma once the fragments in flight pass a branch (C7514). Hence the
  // last turn decodes a stage once more than there is, from memory that holds an earlier one.
  __device__ __forceinline__ void multiply(float (&sums)[kSums], int consumer, TokenPlace& token, WeightPlace& weight,
                                           int depths) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
    for (float& v : sums) v = 0;
    if (depths == 0) return;
    Fragments even, odd;
    ptx::barrier_wait(weights_full(weight.stage), weight.parity);
    decode(even, consumer, weight.stage, 0);
    const int turns = depths * Shape::kPairs;
    int last = 0;
    for (int turn = 0; turn < turns; ++turn) {
      const int half = turn % Shape::kPairs;
      ptx::barrier_wait(tokens_full(token.stage), token.parity);
      issue(sums, even, token.stage);
      ptx::wgmma_wait<1>();
      if (turn) release_tokens(last);
      last = token.stage;
      token.advance();
      decode(odd, consumer, weight.stage, 2 * half + 1);
      ptx::barrier_wait(tokens_full(token.stage), token.parity);
      issue(sums, odd, token.stage);
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(weights_empty(weight.stage));
      if (half == Shape::kPairs - 1) weight.advance();
      ptx::wgmma_wait<1>();
      release_tokens(last);
      last = token.stage;
      token.advance();
      if (turn + 1 < turns) ptx::barrier_wait(weights_full(weight.stage), weight.parity);
      decode(even, consumer, weight.stage, 2 * ((turn + 1) % Shape::kPairs));
    }
    ptx::wgmma_wait<0>();
    release_tokens(last);
  }

  // A warpgroup's [64, 256] through two swizzled blocks of 64 tokens x 64 outputs and the copy engine.
  __device__ __forceinline__ void write(const float (&sums)[kSums], int consumer, int output, int token) const {
    const int thread = static_cast<int>(threadIdx.x) & 127, warp = thread / 32, lane = thread & 31;
    const int row = output + warp * 16 + lane / 4, r0 = min(row, args.n - 1), r1 = min(row + 8, args.n - 1);
    const float f0 = __ldg(args.row_scale + r0), f1 = __ldg(args.row_scale + r1);
    const float b0 = args.bias ? __bfloat162float(args.bias[r0]) : 0,
                b1 = args.bias ? __bfloat162float(args.bias[r1]) : 0;
    const auto pair = [&](const float* d, const float2& x, float factor, float bias) {
      return ptx::pack_bf16(d[0] * factor * x.x + bias, d[1] * factor * x.y + bias);
    };
    const auto scale = [&](int t) {
      if (!args.x_scale) return float2{1, 1};
      return float2{__ldg(args.x_scale + min(t, args.m - 1) * args.x_scale_step),
                    __ldg(args.x_scale + min(t + 1, args.m - 1) * args.x_scale_step)};
    };
#pragma unroll
    for (int block = 0; block < Shape::kTokens / 64; ++block) {
      const std::uint32_t staged = out + (consumer * 2 + (block & 1)) * (64 * 128);
      if (thread == 0) ptx::store_wait_read<1>();
      ptx::sync_threads(1 + consumer, 128);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float* d = &sums[block * 32 + j * 8];
        const int t = token + block * 64 + j * 16 + (lane & 3) * 2;
        const float2 x = scale(t), y = scale(t + 8);
        const int to = 16 * j + (lane & 7) + lane / 16 * 8, column = 2 * warp + (lane / 8 & 1);
        ptx::store_matrices_transposed(staged + to * 128 + ((column ^ (to & 7)) << 4), pair(d, x, f0, b0),
                                       pair(d + 2, x, f1, b1), pair(d + 4, y, f0, b0), pair(d + 6, y, f1, b1));
      }
      ptx::fence_async();
      ptx::sync_threads(1 + consumer, 128);
      if (thread == 0) {
        ptx::store_tile(&map_y, staged, output, token + block * 64);
        ptx::store_commit();
      }
    }
  }

  // A warpgroup's sums into this block's table [tokens, outputs].
  __device__ __forceinline__ void keep(const float (&sums)[kSums], int consumer) const {
    const int warp = static_cast<int>(threadIdx.x) / 32 & 3, lane = static_cast<int>(threadIdx.x) & 31;
    const int row = consumer * 64 + warp * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < kSums; ++j) {
      const int token = j / 4 * 8 + (lane & 3) * 2 + (j & 1);
      ptx::store_shared(tokens + ((token * Shape::kSumStride) + row + (j & 2) * 4) * 4, sums[j]);
    }
  }

  // Eight outputs of a token: the sums of all parts of K, in their order.
  __device__ __forceinline__ Bf16x8 outputs(int tile_output, int tile_token, int t, int row) const {
    float v[8] = {};
    for (int from = member; from < args.splits * Shape::kSharing; from += Shape::kSharing) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 s = ptx::load_cluster(tokens + (t * Shape::kSumStride + row + 4 * half) * 4, from);
        v[4 * half] += s.x, v[4 * half + 1] += s.y, v[4 * half + 2] += s.z, v[4 * half + 3] += s.w;
      }
    }
    const int first = tile_output + row;
    float factor[8];
    load_constants(args.row_scale + first, factor);
    const float x = args.x_scale ? args.x_scale[(tile_token + t) * args.x_scale_step] : 1;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      v[j] = v[j] * factor[j] * x;
      if (args.bias) v[j] += __bfloat162float(args.bias[first + j]);
    }
    return to_chunk<Elem::bf16>(v);
  }

  // This block's part of the tile.
  __device__ __forceinline__ void add_up(int output, int token) const {
    const int log_eights = args.gate == Gate::none ? 4 : 3,  // of a token's outputs
        n = args.gate == Gate::none ? args.n : args.n / 2;
    for (int i = part * 256 + static_cast<int>(threadIdx.x) - 128; i < Shape::kTokens << log_eights;
         i += 256 * args.splits) {
      const int t = i >> log_eights, eight = i & ((1 << log_eights) - 1);
      const int row = args.gate == Gate::none ? 8 * eight : 16 * eight;
      if (token + t >= args.m || output + row >= args.n) continue;
      Bf16x8 v = outputs(output, token, t, row);
      if (args.gate != Gate::none) v = gated(args.gate, v, outputs(output, token, t, row + 8));
      const int column = (args.gate == Gate::none ? output : output / 2) + 8 * eight;
      store_eight(args.y, static_cast<long>(token + t) * n + column, v);
    }
  }

  __device__ void consume(int consumer) const {
    TokenPlace token_place;
    WeightPlace weight_place;
    each_tile([&](int output, int token, int begin, int end) {
      float sums[kSums];
      multiply(sums, consumer, token_place, weight_place, end - begin);
      if constexpr (Shape::kLarge)
        write(sums, consumer, output + consumer * 64, token);
      else {
        ptx::sync_threads(1, 256);  // both are done with the rings, where the table goes
        keep(sums, consumer);
      }
    });
    if (Shape::kLarge && (threadIdx.x & 127) == 0) ptx::store_wait<0>();
  }
};

template <class Shape>
__global__ void __launch_bounds__(384, 1)
    gemm_wide(const __grid_constant__ CUtensorMap map_x, const __grid_constant__ CUtensorMap map_y,
              const __grid_constant__ WideArgs args) {
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t tokens = (ptx::shared_address(shared) + 1023) & ~1023u,
                      out = tokens + Shape::kTokenStages * Shape::kTokenBytes, weights = out + Shape::kOutBytes;
  const TileOrder order{ceil_div(args.n, Shape::kOutputs * Shape::kSharing), ceil_div(args.m, Shape::kTokens),
                        2048 / (Shape::kOutputs * Shape::kSharing)};
  const int rank = static_cast<int>(ptx::cluster_rank());
  const WideKernel<Shape> kernel{map_x,
                                 map_y,
                                 args,
                                 tokens,
                                 weights,
                                 out,
                                 weights + Shape::kWeightStages * Shape::kWeightBytes,
                                 Shape::kLarge ? rank : rank % Shape::kSharing,
                                 Shape::kLarge ? 0 : rank / Shape::kSharing,
                                 order};
  ptx::launch_dependents();
  if (threadIdx.x == 0) {
    kernel.begin();
    ptx::prefetch_map(&map_x);
    if constexpr (Shape::kLarge) ptx::prefetch_map(&map_y);
  }
  ptx::cluster_sync();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, as descriptors must be
  if (warpgroup == 0) {
    if constexpr (Shape::kLarge) ptx::registers_down<40>();
    if (threadIdx.x == 0) {
      ptx::wait_for_predecessor();
      kernel.load_tokens();
    }
    if (threadIdx.x == 32) kernel.load_weights();
  } else {
    if constexpr (Shape::kLarge) ptx::registers_up<232>();
    ptx::wait_for_predecessor();
    kernel.consume(warpgroup - 1);
  }
  ptx::cluster_sync();
  if constexpr (!Shape::kLarge) {
    if (warpgroup > 0) kernel.each_tile([&](int output, int token, int, int) { kernel.add_up(output, token); });
    ptx::cluster_sync();  // nobody leaves while a neighbour reads its sums
  }
}

}  // namespace lowp::kernels::cuda
