#include "lowp/kernels/cuda/gemm_launch.h"

#include <array>

#include "lowp/base/error.h"

namespace lowp::kernels::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(ErrorCode::io, "CUDA: {}: {}", what, cudaGetErrorString(status));
}

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// From the driver at run time, so that a binary needs no driver library to start.
EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
          "looking up cuTensorMapEncodeTiled");
    return reinterpret_cast<EncodeTiled>(found);
  }();
  return function;
}

struct Configuration {
  cudaLaunchConfig_t config{};
  std::array<cudaLaunchAttribute, 2> attributes{};

  Configuration(const LaunchShape& shape, StreamHandle stream) {
    config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
    config.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
    config.stream = stream;
    config.attrs = attributes.data();
    if (shape.cluster > 1) {
      attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
      attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
    }
    if (shape.overlaps_predecessor) {
      attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
  }
};

}  // namespace

CUtensorMap tensor_map(const void* matrix, CUtensorMapDataType type, int value_bytes, std::int64_t rows,
                       std::int64_t columns, int box_rows) {
  CUtensorMap map{};
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)},
                   strides[] = {static_cast<cuuint64_t>(columns * value_bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(128 / value_bytes), static_cast<cuuint32_t>(box_rows)},
                   steps[] = {1, 1};
  const CUresult status = encode_tiled()(&map, type, 2, const_cast<void*>(matrix), sizes, strides, box, steps,
                                         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LOWP_CHECK(status == CUDA_SUCCESS, "tensor map of [{}, {}] with {} bytes a value: error {}", rows, columns,
             value_bytes, static_cast<int>(status));
  return map;
}

int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "counting multiprocessors");
  return count;
}

void allow_shared(const void* kernel, int bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "asking for shared memory");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "asking for shared memory");
}

int resident_clusters(const void* kernel, const LaunchShape& shape) {
  allow_shared(kernel, shape.shared_bytes);
  if (shape.cluster == 1) {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, shape.threads,
                                                        static_cast<std::size_t>(shape.shared_bytes)),
          "asking for the occupancy");
    return blocks * multiprocessors();
  }
  LaunchShape one = shape;
  one.blocks = shape.cluster;
  const Configuration made(one, nullptr);
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &made.config), "asking for the occupancy");
  return clusters;
}

void launch(const void* kernel, const LaunchShape& shape, void** arguments, StreamHandle stream) {
  const Configuration made(shape, stream);
  check(cudaLaunchKernelExC(&made.config, kernel, arguments), "launching a kernel");
}

}  // namespace lowp::kernels::cuda
