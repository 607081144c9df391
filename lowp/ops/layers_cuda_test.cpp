// The kernels between a decoder's products against those of the CPU.
#include <algorithm>

#include "lowp/kernels/cpu/elementwise.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/front.h"
#include "lowp/kernels/head_hadamard.h"
#include "lowp/ops/cuda_testing.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using formats::Elem;
using kernels::cpu::elementwise_kernels;

std::vector<float> floats(std::span<const std::uint16_t> x) {
  std::vector<float> values;
  for (const std::uint16_t v : x) values.push_back(from_bf16(v));
  return values;
}
Bf16Values bf16(std::span<const float> x) {
  Bf16Values values;
  for (const float v : x) values.push_back(to_bf16(v));
  return values;
}

// At most one step of bf16 apart, where sums were added in another order.
void expect_near(std::span<const std::uint16_t> found, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size());
  int wrong = 0;
  for (std::size_t i = 0; i < found.size() && wrong < 3; ++i) {
    const float value = from_bf16(found[i]);
    if (std::fabs(value - expected[i]) <= std::fabs(expected[i]) * 0x1p-7f) continue;
    ++wrong;
    ADD_FAILURE() << what << " at " << i << ": " << value << " instead of " << expected[i];
  }
}

class CudaLayersTest : public CudaTest {
 protected:
  std::vector<float> random_weight(std::int64_t count) {
    std::normal_distribution<float> normal(1, 0.2f);
    std::vector<float> w(static_cast<std::size_t>(count));
    for (float& v : w) v = from_bf16(to_bf16(normal(rng)));
    return w;
  }
};

TEST_F(CudaLayersTest, GatherRows) {
  const std::int64_t vocab = 50, width = 72;
  const Bf16Values table = random(vocab * width);
  const std::vector<std::int32_t> tokens = {3, 49, 0, -1, 50, 3};
  std::uint16_t* out = room<std::uint16_t>(6 * width);
  cuda::gather_rows({upload(table), vocab, upload(tokens), 11.3125f, out, 6, width}, handle());
  Bf16Values expected;
  for (const std::int32_t token : tokens)
    for (std::int64_t i = 0; i < width; ++i)
      expected.push_back(token < 0 || token >= vocab
                             ? 0
                             : to_bf16(from_bf16(table[static_cast<std::size_t>(token * width + i)]) * 11.3125f));
  EXPECT_EQ(download(out, 6 * width), expected);
}

TEST_F(CudaLayersTest, AddNorm) {
  for (const std::int64_t width : {8, 256, 4096, 5120, 14336, 16384})
    for (const bool round_quotient : {true, false}) {
      const std::int64_t rows = 3;
      const Bf16Values stream_values = random(rows * width), add = random(rows * width);
      const std::vector<float> weight = random_weight(width);
      std::uint16_t *stream_at = upload(stream_values), *out = room<std::uint16_t>(rows * width);
      cuda::add_norm({.stream = stream_at,
                      .add = upload(add),
                      .sum = stream_at,
                      .weight = upload(weight),
                      .eps = 1e-5f,
                      .round_quotient = round_quotient,
                      .out = out,
                      .rows = rows,
                      .width = width},
                     handle());
      std::vector<float> sum = floats(stream_values), normal(sum.size());
      elementwise_kernels().add(sum.data(), floats(add).data(), rows * width, true);
      EXPECT_EQ(download(stream_at, rows * width), bf16(sum));
      for (std::int64_t r = 0; r < rows; ++r)
        elementwise_kernels().rms_norm(sum.data() + r * width, weight.data(), width, 1e-5f, round_quotient, true,
                                       normal.data() + r * width);
      expect_near(download(out, rows * width), normal, fmt::format("norm of {}", width));
      // Without an addition, in place.
      cuda::add_norm({.stream = stream_at,
                      .weight = upload(weight),
                      .eps = 1e-5f,
                      .round_quotient = round_quotient,
                      .out = stream_at,
                      .rows = rows,
                      .width = width},
                     handle());
      EXPECT_EQ(download(stream_at, rows * width), download(out, rows * width));
    }
}

// The kernel trusts the hardware's exponential for bf16: no value of bf16 may come out differently.
TEST_F(CudaLayersTest, SiluOfEveryBf16) {
  const std::int64_t rows = 64, width = 1024;
  Bf16Values gate, up(static_cast<std::size_t>(rows * width), to_bf16(1)), expected;
  for (std::uint32_t i = 0; i < rows * width; ++i) {
    const float x = bits_float(i << 16);
    gate.push_back(x == x ? static_cast<std::uint16_t>(i) : std::uint16_t{0});
    expected.push_back(to_bf16(kernels::silu(x == x ? x : 0.0f)));
  }
  auto *in = upload(gate), *other = upload(up), *out = room<std::uint16_t>(rows * width);
  cuda::gate_mul({in, other, width, width, false, kernels::GateActivation::silu, out, rows, width}, handle());
  EXPECT_EQ(download(out, rows * width), expected);
}

TEST_F(CudaLayersTest, GateMul) {
  const std::int64_t rows = 5, width = 136;
  struct Kind {
    kernels::GateActivation activation;
    decltype(elementwise_kernels().silu_mul) multiply;
  };
  const auto& cpu = elementwise_kernels();
  for (const auto& [activation, multiply] :
       {Kind{kernels::GateActivation::silu, cpu.silu_mul}, Kind{kernels::GateActivation::gelu_tanh, cpu.gelu_mul},
        Kind{kernels::GateActivation::clamped, cpu.clamped_mul}}) {
    Bf16Values both = random(rows * 2 * width, 4);
    both[0] = to_bf16(-100), both[1] = to_bf16(100), both[2] = 0;
    std::uint16_t *in = upload(both), *out = room<std::uint16_t>(rows * width);
    cuda::gate_mul({in, in + width, 2 * width, 2 * width, false, activation, out, rows, width}, handle());
    Bf16Values expected;
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<float> gate = floats(std::span(both).subspan(static_cast<std::size_t>(r * 2 * width), width)),
                         up = floats(std::span(both).subspan(static_cast<std::size_t>((r * 2 + 1) * width), width));
      multiply(gate.data(), up.data(), width, true);
      const Bf16Values rounded = bf16(gate);
      expected.insert(expected.end(), rounded.begin(), rounded.end());
    }
    EXPECT_EQ(download(out, rows * width), expected);
    // The same by eights.
    Bf16Values turns(both.size());
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < 2 * width; ++i) {
        const std::int64_t place = i % width / 8 * 16 + i / width * 8 + i % 8;
        turns[static_cast<std::size_t>(r * 2 * width + place)] = both[static_cast<std::size_t>(r * 2 * width + i)];
      }
    in = upload(turns), out = room<std::uint16_t>(rows * width);
    cuda::gate_mul({.gate = in,
                    .up = in + 8,
                    .gate_stride = 2 * width,
                    .up_stride = 2 * width,
                    .by_eights = true,
                    .activation = activation,
                    .out = out,
                    .rows = rows,
                    .width = width},
                   handle());
    EXPECT_EQ(download(out, rows * width), expected);
  }
}

TEST_F(CudaLayersTest, RotateStore) {
  const std::int64_t heads = 6, kv_heads = 2, rows = 4, most_positions = 200, sequences = 2, max_pages = 4;
  const std::vector<std::int32_t> positions = {5, 64, -1, 130}, of = {0, 1, 0, 1};
  for (const Elem type : {Elem::bf16, Elem::e4m3, Elem::int8})
    for (const int dim : {64, 128, 256})
      for (const int kind : {0, 1, 2, 3}) {  // plain, with norms; Hadamard transforms of values, of all
        const bool norms = kind == 1;
        const cuda::KvPageLayout layout{type, static_cast<int>(kv_heads), dim};
        const std::int64_t width = (heads + 2 * kv_heads) * dim, offset = 128, page_bytes = offset + layout.bytes();
        const Bf16Values fused = random(rows * width);
        std::vector<float> cos, sin;
        std::uniform_real_distribution<float> angle(0, 6);
        for (std::int64_t i = 0; i < most_positions * dim / 2; ++i) {
          const float a = angle(rng);
          cos.push_back(from_bf16(to_bf16(std::cos(a))));
          sin.push_back(from_bf16(to_bf16(std::sin(a))));
        }
        const std::vector<float> q_norm = random_weight(dim), k_norm = random_weight(dim);
        auto* pool = room<unsigned char>(sequences * max_pages * page_bytes);
        std::vector<void*> pages;
        for (std::int64_t p = 0; p < sequences * max_pages; ++p) pages.push_back(pool + p * page_bytes);
        std::uint16_t* in = upload(fused);
        cuda::rotate_store({.q = in,
                            .k = in + heads * dim,
                            .v = in + (heads + kv_heads) * dim,
                            .q_stride = width,
                            .k_stride = width,
                            .v_stride = width,
                            .rows = rows,
                            .heads = heads,
                            .q_norm = norms ? upload(q_norm) : nullptr,
                            .k_norm = norms ? upload(k_norm) : nullptr,
                            .eps = 1e-6f,
                            .cos = upload(cos),
                            .sin = upload(sin),
                            .positions = upload(positions),
                            .sequences = upload(of),
                            .kv = {layout, upload(pages), max_pages, offset},
                            .hadamard_keys = kind == 3,
                            .hadamard_values = kind >= 2},
                           handle());
        const Bf16Values after = download(in, rows * width);
        std::vector<unsigned char> stored = download(pool, sequences * max_pages * page_bytes);
        const std::string what = fmt::format("{} of {}{}", formats::name(type), dim,
                                             norms  ? " with norms"
                                             : kind ? ", rotated"
                                                    : "");
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t head = 0; head < heads + 2 * kv_heads; ++head) {
            const auto at = static_cast<std::size_t>(r * width + head * dim);
            std::vector<float> x = floats(std::span(fused).subspan(at, static_cast<std::size_t>(dim)));
            const std::int32_t position = positions[static_cast<std::size_t>(r)];
            const bool query = head < heads, key = !query && head < heads + kv_heads;
            if (position >= 0 && (query || key)) {
              if (norms)
                elementwise_kernels().rms_norm(x.data(), (query ? q_norm : k_norm).data(), dim, 1e-6f, true, true,
                                               x.data());
              elementwise_kernels().rotate(x.data(), cos.data() + position * dim / 2, sin.data() + position * dim / 2,
                                           dim / 2, true);
            }
            if (position >= 0 && (query || key ? kind == 3 : kind >= 2)) {
              kernels::hadamard_head(x.data(), dim);
              for (float& v : x) v = from_bf16(to_bf16(v));
            }
            if (query) {
              const auto found = std::span(after).subspan(at, static_cast<std::size_t>(dim));
              int wrong = 0;
              for (std::size_t i = 0; i < x.size(); ++i)
                wrong += norms ? !(std::fabs(from_bf16(found[i]) - x[i]) <= 0.03f) : found[i] != to_bf16(x[i]);
              EXPECT_EQ(wrong, 0) << what << ": query " << head << " of row " << r;
              continue;
            }
            if (position < 0) continue;
            const auto kv_head = static_cast<int>((head - heads) % kv_heads);
            const int slot = position % cuda::kPageTokens;
            unsigned char* page =
                stored.data() +
                (of[static_cast<std::size_t>(r)] * max_pages + position / cuda::kPageTokens) * page_bytes + offset;
            unsigned char* plane = page + (key ? layout.keys_at(kv_head) : layout.values_at(kv_head));
            float scale = 1, expected_scale = 1;
            if (layout.scaled()) {
              unsigned char* scale_at =
                  page + (key ? layout.key_scales_at(kv_head) : layout.value_scales_at(kv_head)) + slot * 4;
              std::memcpy(&scale, scale_at, 4);
              std::memset(scale_at, 0xFF, 4);
              float amax = 0;
              for (const float v : x) amax = std::max(amax, std::fabs(v));
              expected_scale = amax / (type == Elem::int8 ? 127.0f : 448.0f);
            }
            int wrong = 0;
            for (int i = 0; i < dim; ++i) {
              std::uint32_t code = 0;
              unsigned char* code_at = plane + layout.offset(slot, i);
              std::memcpy(&code, code_at, static_cast<std::size_t>(layout.value_bytes()));
              std::memset(code_at, 0xFF, static_cast<std::size_t>(layout.value_bytes()));
              const float v = x[static_cast<std::size_t>(i)];
              if (norms && key)  // a scale that is off by one step may change codes by one
                wrong += !(std::fabs(formats::decode(type, code) * scale - v) <= 0.05f + std::fabs(v) * 0.07f);
              else
                wrong += scale != expected_scale ||
                         code != (formats::encode(type, v / scale) & (layout.scaled() ? 0xFF : 0xFFFF));
            }
            EXPECT_EQ(wrong, 0) << what << (key ? ": key " : ": value ") << kv_head << " of row " << r;
          }
        EXPECT_TRUE(std::all_of(stored.begin(), stored.end(), [](unsigned char b) { return b == 0xFF; }))
            << what << ": written elsewhere";
      }
}

TEST_F(CudaLayersTest, HadamardHeads) {
  for (const std::int64_t dim : {64, 128, 256})
    for (const std::int64_t rows : {1, 7, 300}) {
      const std::int64_t heads = 5, count = rows * heads * dim;
      const Bf16Values in = random(count);
      std::uint16_t* x = room<std::uint16_t>(count + 64);
      cuda::copy(x, in.data(), in.size() * 2, handle());
      cuda::hadamard_heads({.x = x, .rows = rows, .heads = heads, .head_dim = dim}, handle());
      const Bf16Values found = download(x, count + 64);
      std::vector<float> expected = floats(in);
      for (std::int64_t at = 0; at < count; at += dim) kernels::hadamard_head(expected.data() + at, dim);
      int wrong = 0;
      for (std::size_t i = 0; i < found.size(); ++i)
        wrong += found[i] != (i < expected.size() ? to_bf16(expected[i]) : 0xFFFF);
      EXPECT_EQ(wrong, 0) << rows << " rows of heads of " << dim;
    }
}

TEST_F(CudaLayersTest, Argmax) {
  for (const std::int64_t vocab : {8, 5000, 8192, 128256}) {
    const std::int64_t rows = 6, limit = vocab - 3;
    Bf16Values logits = random(rows * vocab, 3);
    const auto at = [&](std::int64_t row, std::int64_t id) -> std::uint16_t& {
      return logits[static_cast<std::size_t>(row * vocab + id)];
    };
    at(0, vocab - 1) = to_bf16(50);  // beyond the limit
    at(1, 2) = at(1, 4) = to_bf16(40);
    at(2, 3) = to_bf16(NAN);
    at(3, vocab - 2) = to_bf16(INFINITY);
    for (std::int64_t i = 0; i < vocab; ++i) at(4, i) = to_bf16(-INFINITY);
    for (std::int64_t i = 0; i < vocab; ++i) at(5, i) = to_bf16(i == 1 ? -3.0f : -INFINITY);
    std::int32_t* token = room<std::int32_t>(rows);
    float* logprob = room<float>(rows);
    void* workspace = room<std::uint8_t>(cuda::argmax_workspace(rows, vocab), 0);
    for (int repeat = 0; repeat < 2; ++repeat) {
      cuda::argmax({upload(logits), rows, vocab, limit, token, logprob, workspace}, handle());
      const auto tokens = download(token, rows);
      const auto logprobs = download(logprob, rows);
      for (std::int64_t r = 0; r < rows; ++r) {
        if (r >= 2 && r <= 4) {
          EXPECT_EQ(tokens[static_cast<std::size_t>(r)], -1) << "row " << r << " of " << vocab;
          continue;
        }
        const std::vector<float> x =
            floats(std::span(logits).subspan(static_cast<std::size_t>(r * vocab), static_cast<std::size_t>(vocab)));
        const auto best = std::max_element(x.begin(), x.begin() + limit);
        EXPECT_EQ(tokens[static_cast<std::size_t>(r)], best - x.begin()) << "row " << r << " of " << vocab;
        const double most = *std::max_element(x.begin(), x.end());
        double sum = 0;
        for (const float v : x) sum += std::exp(v - most);
        EXPECT_NEAR(logprobs[static_cast<std::size_t>(r)], *best - most - std::log(sum),
                    1e-5 * (1 + std::fabs(*best - most)));
      }
    }
  }
}

}  // namespace
}  // namespace lowp::ops
