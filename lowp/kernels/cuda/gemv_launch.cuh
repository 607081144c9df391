// Launches the kernels of gemv.cuh.
#pragma once

#include <algorithm>
#include <bit>

#include "lowp/kernels/cuda/gemm_launch.h"
#include "lowp/kernels/cuda/gemv.cuh"
#include "lowp/kernels/cuda/gemv_table.h"

namespace lowp::kernels::cuda {

inline GemvInput gemv_input(const PackedProduct& p) {
  const auto values = [](const void* at) { return static_cast<const __nv_bfloat16*>(at); };
  GemvInput in{.x = values(p.x)};
  if (const AddNormTask* norm = p.norm) {
    in.x = values(norm->stream);
    in.add = values(norm->add);
    in.sum = static_cast<__nv_bfloat16*>(norm->sum);
    in.norm = norm->weight;
    in.eps = norm->eps;
    in.round_quotient = norm->round_quotient;
    in.lanes = row_threads(p.k);
  }
  if (p.cast) {
    in.cast = row_cast_of(p.cast);
    in.one_scale = p.cast->group_rows == 0;
    in.codec = row_codec_args(*p.cast);
  }
  return in;
}

template <Codes C, Scales S>
GemvProduct gemv_product(const PackedProduct& p, int team) {
  return {.weight = {.units = p.units,
                     .along_k = static_cast<int>(round_up<std::int64_t>(p.k, padded_depth(C)) / unit_depth(C)),
                     .tiles = static_cast<int>(ceil_div<std::int64_t>(p.n, kUnitRows)),
                     .log_team = std::countr_zero(static_cast<unsigned>(team)),
                     .by_all = FastDivide(static_cast<unsigned>(multiprocessors() * (kGemvWarps / team)))},
          .input = gemv_input(p),
          .x_scale = p.x_scale,
          .x_scale_step = p.x_scale_step,
          .row_scale = p.row_scale,
          .bias = static_cast<const __nv_bfloat16*>(p.bias),
          .gate = gate_of(p.gate),
          .y = static_cast<__nv_bfloat16*>(p.y),
          .y_mail = -1,
          .n = static_cast<int>(p.n),
          .k = static_cast<int>(p.k)};
}

/// Finds what products read of what those before them write, and gives it a place in the mail.
inline void address_mail(std::span<GemvProduct> products) {
  int words = 0;
  const auto reads = [&](std::size_t writer, const void* what, int values, int& mail) {
    for (std::size_t i = writer + 1; i < products.size(); ++i) {
      GemvInput& in = products[i].input;
      const auto take = [&](const void* from, int& at) {
        if (from != what) return;
        if (mail < 0) {
          mail = words;
          words += values / 2;
        }
        at = mail;
      };
      take(in.x, in.x_mail);
      take(in.add, in.add_mail);
      if (products[i].y == what || in.sum == what) return;  // behind it others read that
    }
  };
  for (std::size_t i = 0; i < products.size(); ++i) {
    GemvProduct& p = products[i];
    if (p.input.norm && p.input.add) reads(i, p.input.sum, p.k, p.input.sum_mail);
    reads(i, p.y, p.gate == Gate::none ? p.n : p.n / 2, p.y_mail);
    for (std::size_t j = i + 1; j < products.size(); ++j)
      if (products[j].y == p.y) p.y = nullptr;
  }
}

template <Codes C, Scales S, int Columns>
void launch_gemv(std::span<const PackedProduct> products, const GemvPlan& plan, const ProductMail& mail,
                 StreamHandle stream) {
  static_assert(sizeof(GemvShared<C, S, Columns>) + sizeof(GemvArgs) <= gemv_declared(Columns == 1));
  GemvArgs args{.count = static_cast<int>(products.size()),
                .m = static_cast<int>(products[0].m),
                .rounds = plan.rounds,
                .in_flight = plan.in_flight,
                .mail = mail};
  bool overlaps = true;
  int x_bytes = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    args.product[i] = gemv_product<C, S>(products[i], plan.teams[i]);
    const int padded_k = args.product[i].weight.along_k * unit_depth(C);
    x_bytes = std::max(x_bytes, args.m * gemv_row_stride(padded_k, Columns) * 2);
    overlaps &= products[i].overlaps_predecessor;
  }
  if (products.size() > 1) address_mail(std::span(args.product, products.size()));
  // More than half of a multiprocessor's shared memory: blocks that begin early, while others hold some of the
  // multiprocessors, would else go two by two to the rest.
  constexpr int kAlone = 120 << 10;
  const LaunchShape shape{.blocks = multiprocessors(),
                          .threads = kGemvBlockThreads,
                          .shared_bytes = std::max(kAlone, kGemvWarps * plan.rounds * unit_bytes(C, S) + x_bytes),
                          .overlaps_predecessor = overlaps};
  const auto* kernel = reinterpret_cast<const void*>(&gemv<C, S, Columns>);
  allow_shared(kernel, shape.shared_bytes);
  void* arguments[] = {&args};
  launch(kernel, shape, arguments, stream);
}

template <Codes C, Scales S>
constexpr GemvKernels gemv_kernels() {
  return {C, S, &launch_gemv<C, S, 1>, &launch_gemv<C, S, 8>};
}

}  // namespace lowp::kernels::cuda
