// Sums in f32, a part of 128 of K at a time.
#include "lowp/kernels/cuda/gemm_dense_launch.cuh"

namespace lowp::kernels::cuda {

template <Sums Kind>
constexpr DenseVariant kParts[] = {
    dense_variant<DenseShape<128, 128, Kind, 2, false>>("128x128, clusters of 2 along m", 100),
    dense_variant<DenseShape<128, 128, Kind, 1, false>>("128x128", 97),
};

template <Sums Kind>
constexpr DenseVariant kGrouped = dense_variant<DenseShape<128, 128, Kind, 2, true>>("128x128, clusters of 2 along n",
                                                                                     100);

std::span<const DenseVariant> dense_promoted() { return kParts<Sums::promoted>; }
std::span<const DenseVariant> dense_scaled() { return kParts<Sums::scaled>; }

const DenseVariant& grouped_promoted() { return kGrouped<Sums::promoted>; }
const DenseVariant& grouped_scaled() { return kGrouped<Sums::scaled>; }

}  // namespace lowp::kernels::cuda
