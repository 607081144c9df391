// Attention over whole sequences, one scale for all of a head, on the GPU against the scalar reference.
#include <cmath>

#include "lowp/kernels/cuda/attention_heads.h"
#include "lowp/kernels/ref/attention.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp::ops {
namespace {

class CudaHeadsAttention : public CudaTest {
 protected:
  std::vector<float> angles(std::int64_t seq, std::int64_t dim, double (*of)(double)) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < seq * dim / 2; ++i)
      values.push_back(static_cast<float>(
          of(static_cast<double>(i / (dim / 2)) *
             std::pow(10000.0, -2.0 * static_cast<double>(i % (dim / 2)) / static_cast<double>(dim)))));
    return values;
  }
  static TensorView view(const Bf16Values& values, std::vector<std::int64_t> shape) {
    return {DType::bf16, std::move(shape), std::as_bytes(std::span(values))};
  }
};

TEST_F(CudaHeadsAttention, AgainstReference) {
  int number = 0;
  for (const std::int64_t dim : {64, 128})
    for (const std::int64_t seq : {1, 64, 150, 333})
      for (const bool causal : {true, false}) {
        const int kind = number++ % 4;  // rotated, with Hadamard of values, of all; not rotated
        kernels::ref::HeadsAttention how{.batch = 2,
                                         .seq = seq,
                                         .heads = 6,
                                         .kv_heads = 2,
                                         .dim = dim,
                                         .interleaved = seq % 2 == 0,
                                         .hadamard_keys = kind == 2,
                                         .hadamard_values = kind == 1 || kind == 2,
                                         .causal = causal,
                                         .scale = 1 / std::sqrt(static_cast<float>(dim))};
        const std::vector<float> cos = angles(seq, dim, std::cos), sin = angles(seq, dim, std::sin);
        const std::vector<std::int64_t> shape = {2, seq, 6, dim}, kv_shape = {2, seq, 2, dim};
        const Bf16Values q = random(2 * seq * 6 * dim), k = random(2 * seq * 2 * dim, 2),
                         v = random(2 * seq * 2 * dim, 3);
        kernels::cuda::HeadsAttentionTask task{.q = upload(q),
                                               .k = upload(k),
                                               .v = upload(v),
                                               .out = room<std::uint16_t>(2 * seq * 6 * dim + 64),
                                               .batch = 2,
                                               .seq = seq,
                                               .heads = 6,
                                               .kv_heads = 2,
                                               .dim = dim,
                                               .interleaved = how.interleaved,
                                               .hadamard_keys = how.hadamard_keys,
                                               .hadamard_values = how.hadamard_values,
                                               .causal = causal,
                                               .scale = how.scale};
        if (kind < 3) {
          how.cos = cos.data(), how.sin = sin.data();
          task.cos = upload(cos), task.sin = upload(sin);
        }
        task.workspace = room<std::uint8_t>(kernels::cuda::attend_heads_workspace(task));
        kernels::cuda::attend_heads(task, handle());
        const Bf16Values found = download(static_cast<std::uint16_t*>(task.out), 2 * seq * 6 * dim + 64);
        const Tensor expected = kernels::ref::attend_heads(view(q, shape), view(k, kv_shape), view(v, kv_shape), how);
        double error = 0, power = 0;
        for (std::size_t i = 0; i < found.size(); ++i) {
          if (i >= q.size()) {
            EXPECT_EQ(found[i], 0xFFFF) << "written beyond the end";
            continue;
          }
          const double value = load_one(expected.view(), static_cast<std::int64_t>(i));
          error += std::pow(from_bf16(found[i]) - value, 2);
          power += value * value;
        }
        const double decibels = 10 * std::log10(power / error);
        const std::string what =
            fmt::format("{} tokens, heads of {}, {}, kind {}", seq, dim, causal ? "causal" : "all", kind);
        fmt::print("{}: {:.1f} dB from the reference\n", what, decibels);
        EXPECT_GE(decibels, 36) << what;
        memories.clear();
      }
}

}  // namespace
}  // namespace lowp::ops
