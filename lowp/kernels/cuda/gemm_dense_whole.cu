// Sums that stay in the tensor cores all along K.
#include "lowp/kernels/cuda/gemm_dense_launch.cuh"

namespace lowp::kernels::cuda {

constexpr DenseVariant kFast[] = {
    dense_variant<DenseShape<256, 128, Sums::fast, 2, true>>("256x128, clusters of 2 along n", 100),
    dense_variant<DenseShape<128, 256, Sums::fast, 2, false>>("128x256, clusters of 2 along m", 99),
    dense_variant<DenseShape<128, 128, Sums::fast, 1, false>>("128x128", 85),
};
// 256x128 has no registers left for zero points.
constexpr DenseVariant kInteger[] = {
    dense_variant<DenseShape<128, 256, Sums::integer, 2, false>>("128x256, clusters of 2 along m", 100),
    dense_variant<DenseShape<128, 128, Sums::integer, 1, false>>("128x128", 85),
};

template <Sums Kind>
constexpr DenseVariant kGrouped = dense_variant<DenseShape<128, 128, Kind, 2, true>>("128x128, clusters of 2 along n",
                                                                                     100);

std::span<const DenseVariant> dense_fast() { return kFast; }
std::span<const DenseVariant> dense_integer() { return kInteger; }

const DenseVariant& grouped_fast() { return kGrouped<Sums::fast>; }
const DenseVariant& grouped_integer() { return kGrouped<Sums::integer>; }

}  // namespace lowp::kernels::cuda
