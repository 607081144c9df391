// How weights come to a block of gemv: a ring of rounds in shared memory, a unit for each of 16 warps, that a warp of
// its own keeps full. The units of a team are neighbours in memory, so that a round is one bulk copy for each team; it
// goes on from one product to the next without asking what these multiply.
#pragma once

#include "lowp/kernels/cuda/gemm_ptx.cuh"
#include "lowp/kernels/cuda/gemv_input.cuh"

namespace lowp::kernels::cuda {

/// A product as weights see it: tiles of 16 outputs, each so many units along K.
struct GemvUnits {
  const std::uint8_t* units;
  int along_k, tiles;
  int log_team;       // of the warps that share a tile
  FastDivide by_all;  // teams of all blocks

  LOWP_HD int team() const { return 1 << log_team; }
  LOWP_HD int teams() const { return kGemvWarps >> log_team; }  // of a block
};

/// What the block has of a product: a stretch of tiles for each of its teams.
class GemvShare {
 public:
  __device__ __forceinline__ explicit GemvShare(const GemvUnits& of) : of_(of) {}

  /// First tile of a team; of the one behind the last: the end.
  __device__ __forceinline__ int tile(int team) const {
    const unsigned all = static_cast<unsigned>(of_.tiles) * (blockIdx.x * static_cast<unsigned>(of_.teams()) + team);
    return static_cast<int>(of_.by_all(all));
  }
  /// Units that the warps of a team take in turn.
  __device__ __forceinline__ int units(int team) const { return (tile(team + 1) - tile(team)) * of_.along_k; }
  /// Rounds of the block: those of the team that has most.
  __device__ __forceinline__ int rounds() const {
    int most = 0;
    for (int team = 0; team < of_.teams(); ++team) most = max(most, units(team));
    return (most + of_.team() - 1) >> of_.log_team;
  }

 private:
  const GemvUnits& of_;
};

/// A place in a ring of `rounds` and the parity of its turn.
struct GemvPlace {
  int round = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance(int rounds) {
    if (++round == rounds) {
      round = 0;
      parity ^= 1;
    }
  }
};

template <int kUnitBytes>
class GemvRing {
 public:
  struct Barriers {
    std::uint64_t full[kGemvMostRounds], empty[kGemvMostRounds];
  };

  __device__ __forceinline__ GemvRing(std::uint32_t units, Barriers& barriers, int rounds)
      : units_(units),
        full_(ptx::shared_address(barriers.full)),
        empty_(ptx::shared_address(barriers.empty)),
        rounds_(rounds) {}

  /// By one thread, before a barrier of the block.
  __device__ __forceinline__ void init() const {
    for (int r = 0; r < rounds_; ++r) {
      ptx::barrier_init(full_ + 8 * r, 1);
      ptx::barrier_init(empty_ + 8 * r, kGemvWarps);
    }
    ptx::barrier_init_fence();
  }

  /// By one warp: fetches all rounds of the products. No more than `in_flight` of them are on their way at a time:
  /// what the block reads meanwhile queues behind them.
  template <class Product>
  __device__ __forceinline__ void fill(const Product* products, int count, int in_flight) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    GemvPlace place, arrived;
    int issued = 0;
    for (int p = 0; p < count; ++p) {
      const GemvUnits& of = products[p].weight;
      const GemvShare share(of);
      const int rounds = share.rounds(), team = of.team();
      // A lane for each team.
      int left = lane < of.teams() ? share.units(lane) : 0;
      const std::uint8_t* from =
          of.units + (left > 0 ? static_cast<long>(share.tile(lane)) * of.along_k * kUnitBytes : 0);
      for (int round = 0; round < rounds; ++round) {
        ptx::barrier_wait(empty_ + 8 * place.round, place.parity ^ 1);
        if (++issued > in_flight) {
          ptx::barrier_wait(full_ + 8 * arrived.round, arrived.parity);
          arrived.advance(rounds_);
        }
        const int own = max(min(left, team), 0), all = __reduce_add_sync(~0u, own);
        if (lane == 0) ptx::barrier_expect(full_ + 8 * place.round, static_cast<std::uint32_t>(all * kUnitBytes));
        __syncwarp();
        if (own > 0)
          ptx::load_bytes(units_ + static_cast<std::uint32_t>((place.round * kGemvWarps + lane * team) * kUnitBytes),
                          from, static_cast<std::uint32_t>(own * kUnitBytes), full_ + 8 * place.round);
        left -= team;
        from += team * kUnitBytes;
        place.advance(rounds_);
      }
    }
  }

  /// Waits for the round; the address of a warp's unit.
  __device__ __forceinline__ std::uint32_t wait(const GemvPlace& place, int warp) const {
    ptx::barrier_wait(full_ + 8 * place.round, place.parity);
    return units_ + static_cast<std::uint32_t>((place.round * kGemvWarps + warp) * kUnitBytes);
  }
  /// A warp, by one lane, has read its unit; on to the next round.
  __device__ __forceinline__ void release(GemvPlace& place, int lane) const {
    if (lane == 0) ptx::barrier_arrive(empty_ + 8 * place.round);
    place.advance(rounds_);
  }

 private:
  const std::uint32_t units_, full_, empty_;
  const int rounds_;
};

}  // namespace lowp::kernels::cuda
