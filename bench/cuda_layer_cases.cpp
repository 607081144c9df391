#include "bench/cuda_layer_cases.h"

#include <algorithm>
#include <memory>

#include "bench/cuda_device.h"
#include "bench/layer_shape.h"
#include "lowp/base/quantile.h"
#include "lowp/kernels/cuda/layers.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;

constexpr std::int64_t kFused = (kHeads + 2 * kKvHeads) * kDim;
constexpr int kLayerCalls = 64;

cuda::Memory zeros(std::int64_t bytes) {
  cuda::Memory memory(static_cast<std::size_t>(bytes));
  cuda::fill(memory.as<>(), 0, memory.size(), cuda_stream().handle());
  return memory;
}

// The rows of all calls, one after the other; zeros are as good as any values here.
struct LayerOperands {
  std::int64_t rows;
  cuda::Memory wide = zeros(kLayerCalls * rows * 2 * kGate * 2), out = zeros(kLayerCalls * rows * kGate * 2),
               weight = zeros(kWidth * 4), table = zeros(kVocab * kWidth * 2),
               logits = zeros(kLayerCalls * rows * kVocab * 2), numbers = zeros(rows * 4), found = zeros(rows * 4),
               workspace = zeros(cuda::argmax_workspace(rows, kVocab));
  cuda::KvPageLayout layout{formats::Elem::bf16, kKvHeads, kDim};
  cuda::Memory page = zeros(layout.bytes()), pages = zeros(8);

  explicit LayerOperands(std::int64_t count) : rows(count) {
    void* address = page.as<>();
    cuda::copy(pages.as<>(), &address, 8, cuda_stream().handle());
    cuda_stream().synchronize();
  }
  void* at(const cuda::Memory& of, std::size_t call, std::int64_t width) const {
    return of.as<std::byte>() + static_cast<std::int64_t>(call) * rows * width * 2;
  }
};

struct Kernel {
  std::string name;
  std::int64_t width, bytes;  // of a row, read and written
  void (*run)(const LayerOperands& o, std::size_t call);
};

const Kernel kKernels[] = {
    {"layers:gather", kWidth, 4 * kWidth,
     [](const LayerOperands& o, std::size_t call) {
       cuda::gather_rows({.table = o.table.as<>(),
                          .vocab = kVocab,
                          .tokens = o.numbers.as<std::int32_t>(),
                          .out = o.at(o.out, call, kWidth),
                          .rows = o.rows,
                          .width = kWidth},
                         cuda_stream().handle());
     }},
    {"layers:add_norm", kWidth, 8 * kWidth,
     [](const LayerOperands& o, std::size_t call) {
       cuda::add_norm({.stream = o.at(o.wide, call, kWidth),
                       .add = o.at(o.logits, call, kWidth),
                       .sum = o.at(o.wide, call, kWidth),
                       .weight = o.weight.as<float>(),
                       .out = o.at(o.out, call, kWidth),
                       .rows = o.rows,
                       .width = kWidth},
                      cuda_stream().handle());
     }},
    {"layers:gate_mul", kGate, 6 * kGate,
     [](const LayerOperands& o, std::size_t call) {
       auto* both = static_cast<std::uint16_t*>(o.at(o.wide, call, 2 * kGate));
       cuda::gate_mul({.gate = both,
                       .up = both + kGate,
                       .gate_stride = 2 * kGate,
                       .up_stride = 2 * kGate,
                       .out = o.at(o.out, call, kGate),
                       .rows = o.rows,
                       .width = kGate},
                      cuda_stream().handle());
     }},
    {"layers:rotate_store", kFused, 4 * kFused,
     [](const LayerOperands& o, std::size_t call) {
       auto* fused = static_cast<std::uint16_t*>(o.at(o.wide, call, kFused));
       cuda::rotate_store({.q = fused,
                           .k = fused + kHeads * kDim,
                           .v = fused + (kHeads + kKvHeads) * kDim,
                           .q_stride = kFused,
                           .k_stride = kFused,
                           .v_stride = kFused,
                           .rows = o.rows,
                           .heads = kHeads,
                           .cos = o.weight.as<float>(),
                           .sin = o.weight.as<float>(),
                           .positions = o.numbers.as<std::int32_t>(),
                           .sequences = o.numbers.as<std::int32_t>(),
                           .kv = {o.layout, o.pages.as<void*>(), 1, 0}},
                          cuda_stream().handle());
     }},
    {"layers:argmax", kVocab, 2 * kVocab,
     [](const LayerOperands& o, std::size_t call) {
       cuda::argmax({.logits = o.at(o.logits, call, kVocab),
                     .rows = o.rows,
                     .vocab = kVocab,
                     .token = o.found.as<std::int32_t>(),
                     .workspace = o.workspace.as<>()},
                    cuda_stream().handle());
     }},
};

}  // namespace

std::vector<Case> cuda_layer_cases(const Selection& selection) {
  std::vector<Case> made;
  for (const Kernel& kernel : kKernels)
    for (const std::int64_t rows : selection.m ? std::vector{*selection.m} : std::vector<std::int64_t>{1, 128})
      made.push_back({kernel.name,
                      "bf16",
                      rows,
                      kernel.width,
                      0,
                      static_cast<std::uint64_t>(rows * kernel.bytes),
                      0,
                      "read",
                      {},
                      [&kernel, rows](Row& row, Device& device, const Effort& effort) {
                        const LayerOperands operands(rows);
                        row.samples = graph_samples([&](std::size_t call) { kernel.run(operands, call); }, kLayerCalls,
                                                    effort.most);
                        row.seconds = median(row.samples);
                        row.limit = device.probe(row.limit_name, 0);
                      }});
  return made;
}

}  // namespace lowp::bench
