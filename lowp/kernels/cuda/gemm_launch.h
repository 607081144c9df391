// Launching tile kernels: tensor maps, clusters, persistent grids. For .cu files and plain C++.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "lowp/kernels/cuda/runtime.h"

namespace lowp::kernels::cuda {

/// The map of a row-major matrix [rows, columns] whose boxes are `box_rows` rows of 128 bytes, swizzled by 128 bytes.
/// Reads beyond the edge give zeros, writes there are dropped. A row must be a multiple of 16 bytes.
CUtensorMap tensor_map(const void* matrix, CUtensorMapDataType type, int value_bytes, std::int64_t rows,
                       std::int64_t columns, int box_rows);

/// How to launch a kernel: blocks in clusters, shared memory, and whether it may begin before its predecessor ends
/// (it then waits itself, by ptx::wait_for_predecessor).
struct LaunchShape {
  int blocks = 1, threads = 384, shared_bytes = 0, cluster = 1;
  bool overlaps_predecessor = false;
};

/// Of the thread's device.
int multiprocessors();

/// Lets a kernel have so much shared memory, and asks for the split with the first-level cache that has most of it:
/// neighbours in a stream can share a multiprocessor only if they split alike.
void allow_shared(const void* kernel, int bytes);

/// Does that too; returns how many clusters of such blocks the device holds at once.
int resident_clusters(const void* kernel, const LaunchShape& shape);

/// Enqueues the kernel with the arguments that `arguments` points to.
void launch(const void* kernel, const LaunchShape& shape, void** arguments, StreamHandle stream);

}  // namespace lowp::kernels::cuda
