// How a persistent grid walks over the tiles of a product, and where a thread is in a ring of stages.
#pragma once

#include <cstdint>

namespace lowp::kernels::cuda {

/// Tiles [rows, columns] in bands of `band` rows, column by column inside a band: the tiles in flight form a nearly
/// square patch, whose operands are shared in the second-level cache.
struct TileOrder {
  int rows, columns, band;

  __device__ int count() const { return rows * columns; }
  __device__ void at(int index, int& row, int& column) const {
    const int whole = band * columns, first = index / whole * band, height = min(band, rows - first),
              inside = index % whole;
    row = first + inside % height;
    column = inside / height;
  }
};

/// A place in a ring of stages and the parity of its turn.
template <int Stages>
struct RingPlace {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace lowp::kernels::cuda
