// Many rows times the packed weights of the experts they go to: the loop of gemm_wide.cuh over (block of places of one
// expert, 256 outputs), a persistent grid of pairs of blocks that share activations. Results go through shared memory
// to those rows that are the expert's, as they are, or gate and up, which lie by turns, eight and eight, as the gate's
// activation times up.
#pragma once

#include "lowp/kernels/cuda/experts_product.h"
#include "lowp/kernels/cuda/gated.cuh"
#include "lowp/kernels/cuda/gemm_wide.cuh"

namespace lowp::kernels::cuda {

template <Codes C, Scales S, int Tokens>
struct ExpertsShape {
  static constexpr Codes kCodes = C;
  static constexpr Scales kScales = S;
  static constexpr bool kLarge = false;
  static constexpr int kTokens = Tokens, kOutputs = 128;
  static constexpr int kStep = 128 / operand_bytes(C);
  static constexpr int kDepth = padded_depth(C), kStepsOfDepth = kDepth / kStep;
  static constexpr int kPairs = kStepsOfDepth / 2;
  static constexpr int kChunksOfStep = kStep / chunk_depth(C);
  static constexpr int kTileBytes = kDepth / unit_depth(C) * unit_bytes(C, S);
  static constexpr int kWeightBytes = kOutputs / kUnitRows * kTileBytes;
  static constexpr int kTokenBytes = Tokens * 128;
  static constexpr int kSharing = 2;
  static constexpr int kTokenStages = Tokens == 128 ? 6 : Tokens == 64 ? 8 : 16;
  static constexpr int kStaged = Tokens < 64 ? Tokens : 64;  // tokens that are turned at once
  static constexpr int kOutBytes = 2 * kStaged * 128;
  static constexpr int kRoom = 232448 - 1024 - kOutBytes - kTokenStages * (kTokenBytes + 16);
  static constexpr int kWeightStages = kRoom / (kWeightBytes + 16) < 8 ? kRoom / (kWeightBytes + 16) : 8;
  static constexpr int kShared =
      1024 + kOutBytes + kTokenStages * (kTokenBytes + 16) + kWeightStages * (kWeightBytes + 16);
  static_assert(kWeightStages >= 2);
};

struct ExpertsWideArgs {
  ExpertsProduct p;
  Gate gate;
  WideArgs wide;
  int column_tiles;  // of a pair's outputs
};

template <class Shape>
struct ExpertsKernel : WideKernel<Shape> {
  using Base = WideKernel<Shape>;
  const ExpertsProduct& p;
  Gate gate;
  int column_tiles, blocks;

  struct Tile {
    int expert, first, size, output;
  };
  template <class Work>
  __device__ void each(const Work& work) const {
    const int pairs = static_cast<int>(gridDim.x) / Shape::kSharing;
    for (int i = static_cast<int>(blockIdx.x) / Shape::kSharing; i < blocks * column_tiles; i += pairs) {
      const int block = i / column_tiles;
      work(Tile{__ldcg(p.rows.block_expert + block), __ldcg(p.rows.block_first + block),
                __ldcg(p.rows.block_size + block),
                ((i - block * column_tiles) * Shape::kSharing + this->member) * Shape::kOutputs});
    }
  }

  __device__ void load_weights() const {
    constexpr int kTile16 = Shape::kTileBytes / 16;
    const WideArgs& args = this->args;
    const unsigned stride16 =
        static_cast<unsigned>(args.units_along_k) * (unit_bytes(Shape::kCodes, Shape::kScales) / 16);
    typename Base::WeightPlace place;
    each([&](const Tile& tile) {
      const int first = tile.output / kUnitRows,
                count = max(0, min(Shape::kOutputs / kUnitRows, args.row_tiles - first));
      unsigned from16 = static_cast<unsigned>(tile.expert * args.row_tiles + first) * stride16;
#pragma unroll 1
      for (int d = 0; d < args.depths; ++d, from16 += kTile16) {
        ptx::barrier_wait(this->weights_empty(place.stage), place.parity ^ 1);
        ptx::barrier_expect(this->weights_full(place.stage), count * Shape::kTileBytes);
        std::uint32_t to = this->weights + place.stage * Shape::kWeightBytes;
        unsigned at16 = from16;
#pragma unroll 1
        for (int i = 0; i < count; ++i, to += Shape::kTileBytes, at16 += stride16)
          ptx::load_bytes(to, args.units + static_cast<std::size_t>(at16) * 16, Shape::kTileBytes,
                          this->weights_full(place.stage));
        place.advance();
      }
    });
  }

  __device__ void load_tokens() const {
    typename Base::TokenPlace place;
    each([&](const Tile& tile) {
#pragma unroll 1
      for (int step = 0; step < this->args.depths * Shape::kStepsOfDepth; ++step) {
        ptx::barrier_wait(this->tokens_empty(place.stage), place.parity ^ 1);
        ptx::barrier_expect(this->tokens_full(place.stage), Shape::kTokenBytes);
        constexpr int kPart = Shape::kTokens / Shape::kSharing;
        const int offset = this->member * kPart;
        ptx::load_tile(this->tokens + place.stage * Shape::kTokenBytes + offset * 128, &this->map_x,
                       this->tokens_full(place.stage), step * Shape::kStep, tile.first + offset,
                       (1 << Shape::kSharing) - 1);
        place.advance();
      }
    });
  }

  // A warpgroup's [64 outputs, tokens], a piece of up to 64 tokens at a time.
  __device__ __forceinline__ void write(const float (&sums)[Base::kSums], int consumer, const Tile& tile) const {
    const int thread = static_cast<int>(threadIdx.x) & 127, warp = thread / 32, lane = thread & 31,
              n = static_cast<int>(p.n), output = tile.output + consumer * 64;
    const int row = output + warp * 16 + lane / 4, r0 = min(row, n - 1), r1 = min(row + 8, n - 1);
    const float* factor = p.row_scale + static_cast<long>(tile.expert) * this->args.row_tiles * kUnitRows;
    const float f0 = __ldg(factor + r0), f1 = __ldg(factor + r1);
    const auto* bias = static_cast<const __nv_bfloat16*>(p.bias) + static_cast<long>(tile.expert) * n;
    const float b0 = p.bias ? __bfloat162float(bias[r0]) : 0, b1 = p.bias ? __bfloat162float(bias[r1]) : 0;
    const auto pair = [&](const float* d, const float2& x, float f, float b) {
      return ptx::pack_bf16(d[0] * f * x.x + b, d[1] * f * x.y + b);
    };
    const auto scale = [&](int token) {
      if (!p.x_scale) return float2{1, 1};
      const auto of = [&](int t) { return p.x_scale[(tile.first + min(t, tile.size - 1)) * p.x_scale_step]; };
      return float2{of(token), of(token + 1)};
    };
    const std::uint32_t staged = this->out + consumer * (Shape::kStaged * 128);
#pragma unroll
    for (int piece = 0; piece < Shape::kTokens / Shape::kStaged; ++piece) {
      ptx::sync_threads(1 + consumer, 128);
#pragma unroll
      for (int j = 0; j < Shape::kStaged / 16; ++j) {
        const float* d = &sums[piece * (Shape::kStaged / 2) + j * 8];
        const int token = piece * Shape::kStaged + j * 16 + (lane & 3) * 2;
        const float2 x = scale(token), y = scale(token + 8);
        const int to = 16 * j + (lane & 7) + lane / 16 * 8, column = 2 * warp + (lane / 8 & 1);
        ptx::store_matrices_transposed(staged + to * 128 + ((column ^ (to & 7)) << 4), pair(d, x, f0, b0),
                                       pair(d + 2, x, f1, b1), pair(d + 4, y, f0, b0), pair(d + 6, y, f1, b1));
      }
      ptx::sync_threads(1 + consumer, 128);
      const auto eight = [&](int token, int column) {
        const uint4 v = ptx::load_shared_16(staged + token * 128 + ((column ^ (token & 7)) << 4));
        return Bf16x8{{v.x, v.y, v.z, v.w}};
      };
      const int pieces = gate == Gate::none ? 8 : 4;  // of eight results, that a token has
      for (int i = thread; i < Shape::kStaged * pieces; i += 128) {
        const int token = i / pieces, at = i % pieces, in_block = piece * Shape::kStaged + token;
        if (in_block >= tile.size || output + at * (gate == Gate::none ? 8 : 16) >= n) continue;
        const std::int64_t place = tile.first + in_block;
        if (gate != Gate::none) {
          const Bf16x8 first = eight(token, 2 * at), second = eight(token, 2 * at + 1);
          store_eight(p.y, place * (n / 2) + output / 2 + at * 8, gated(gate, first, second));
        } else {
          store_eight(p.y, place * n + output + at * 8, eight(token, at));
        }
      }
    }
  }

  __device__ void consume(int consumer) const {
    typename Base::TokenPlace token_place;
    typename Base::WeightPlace weight_place;
    each([&](const Tile& tile) {
      float sums[Base::kSums];
      this->multiply(sums, consumer, token_place, weight_place, this->args.depths);
      write(sums, consumer, tile);
    });
  }
};

template <class Shape>
__global__ void __launch_bounds__(384, 1)
    gemm_experts(const __grid_constant__ CUtensorMap map_x, const __grid_constant__ ExpertsWideArgs args) {
  extern __shared__ std::uint8_t shared[];
  const std::uint32_t tokens = (ptx::shared_address(shared) + 1023) & ~1023u,
                      out = tokens + Shape::kTokenStages * Shape::kTokenBytes, weights = out + Shape::kOutBytes;
  ptx::wait_for_predecessor();  // rows were routed by then, and a successor may know
  ptx::launch_dependents();
  const ExpertsKernel<Shape> kernel{
      {map_x, map_x, args.wide, tokens, weights, out, weights + Shape::kWeightStages * Shape::kWeightBytes,
       static_cast<int>(ptx::cluster_rank()), 0, TileOrder{}},
      args.p,
      args.gate,
      args.column_tiles,
      __ldcg(args.p.rows.block_count)};
  if (threadIdx.x == 0) {
    kernel.begin();
    ptx::prefetch_map(&map_x);
  }
  ptx::cluster_sync();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, as descriptors must be
  if (warpgroup == 0) {
    if (threadIdx.x == 0) kernel.load_tokens();
    if (threadIdx.x == 32) kernel.load_weights();
  } else {
    kernel.consume(warpgroup - 1);
  }
  ptx::cluster_sync();  // nobody leaves while a neighbour may still signal
}

}  // namespace lowp::kernels::cuda
