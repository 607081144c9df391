#include "bench/cuda_gemm_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <tuple>

#include "bench/cuda_device.h"
#include "lowp/base/env.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/formats/codec.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cuda/gemm_cublas.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/ops/cast.h"
#include "lowp/ops/linear_cuda.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using formats::BlockFormat;
using formats::Elem;
using formats::Recipe;

constexpr std::int64_t kGpuRows[] = {1, 8, 16, 64, 512, 4096, 16384};
constexpr LayerShape kLayers[] = {{0, 4096, 6144}, {0, 4096, 4096},  {0, 4096, 28672}, {0, 14336, 4096},
                                  {0, 8192, 8192}, {0, 8192, 28672}, {0, 28672, 8192}};
constexpr int kLeastGraphCalls = 24;

// Normal values of a type [rows, columns], 2^16 + 61 of them again and again.
Tensor values(Elem type, std::int64_t rows, std::int64_t columns, float deviation) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> period((1 << 16) + 61);
  for (float& v : period) v = normal(rng);
  const DType stored = type == Elem::bf16 ? DType::bf16 : DType::u8;
  Tensor x(stored, {rows, columns});
  const std::size_t width = type == Elem::bf16 ? 2 : 1;
  std::vector<std::byte> codes(period.size() * width);
  for (std::size_t i = 0; i < period.size(); ++i) {
    const std::uint32_t code = formats::encode(type, period[i]);
    std::memcpy(codes.data() + i * width, &code, width);
  }
  const std::span<std::byte> to = x.bytes();
  for (std::size_t at = 0; at < to.size(); at += codes.size())
    std::memcpy(to.data() + at, codes.data(), std::min(codes.size(), to.size() - at));
  return x;
}

// The same weight several times, as much as the cache does not hold.
std::vector<ops::CudaLinear> cuda_linears(const Recipe& recipe, std::int64_t n, std::int64_t k, bool cold,
                                          ops::Operands operands) {
  const Tensor w = values(Elem::bf16, n, k, 0.02f);
  const ops::Device device{0};
  std::vector<ops::CudaLinear> made;
  if (recipe.keeps()) {
    made.emplace_back(w.view(), std::nullopt, device);
  } else {
    std::vector<float> table;
    if (recipe.weight.rule == formats::Rule::codebook)
      for (int i = 0; i < 16; ++i) table.push_back((static_cast<float>(i) - 8) / 8);
    ops::CastOptions options;
    options.device = device;
    made.emplace_back(ops::quantize(w.view(), recipe.weight, options, table), recipe, std::nullopt, device,
                      std::nullopt, operands);
  }
  while (cold && made.size() * made[0].streamed() < kBeyondCache) made.push_back(made[0].copy());
  return made;
}

// The last ones made: cases that differ in their rows alone follow each other.
std::vector<ops::CudaLinear>& kept_linears(const Recipe& recipe, std::int64_t n, std::int64_t k, bool cold,
                                           ops::Operands operands) {
  static std::tuple<std::string, std::int64_t, std::int64_t, bool, ops::Operands> made_for;
  static std::vector<ops::CudaLinear> kept;
  const std::tuple wanted(recipe.name, n, k, cold, operands);
  if (made_for != wanted) {
    kept.clear();
    kept = cuda_linears(recipe, n, k, cold, operands);
    made_for = wanted;
  }
  return kept;
}

// A way to run a recipe's products, and its name behind "gemm".
struct Mode {
  std::string_view name;
  ops::Operands operands = ops::Operands::rebased;
  bool fast = false;  // sums
};
constexpr Mode kDefault, kFastSums{.name = ":fast", .fast = true},
    kExact{.name = ":exact", .operands = ops::Operands::exact},
    kRounded{.name = ":rounded", .operands = ops::Operands::rounded};

// Whether a mode makes another product of a recipe.
bool differs(const Recipe& recipe, const Mode& mode) {
  if (mode.name.empty()) return true;
  if (!recipe.activation) return false;
  const BlockFormat &w = recipe.weight, &a = recipe.activation->format;
  const auto both = [&](formats::Rule rule) { return w.rule == rule && a.rule == rule; };
  if (mode.operands == ops::Operands::rounded) return both(formats::Rule::nvfp4);
  if (mode.fast) return (a.element == Elem::e4m3 && w.group_cols == 0 && a.group_cols == 0) || both(formats::Rule::mx);
  return both(formats::Rule::mx);
}

// What the operands are, or could be.
Elem peer_type(const Recipe& recipe, const Mode& mode) {
  if (!recipe.activation || mode.operands == ops::Operands::exact) return Elem::bf16;
  const BlockFormat &w = recipe.weight, &a = recipe.activation->format;
  if (w.element == Elem::int8 && a.element == Elem::int8) return Elem::int8;
  const bool eight = a.element == Elem::e4m3 || a.rule == formats::Rule::mx || mode.operands == ops::Operands::rounded;
  return eight ? Elem::e4m3 : Elem::bf16;
}

// cuBLASLt on the same rows and outputs, with operands of random bits of a type.
class Peer {
 public:
  Peer(Elem type, std::int64_t m, std::int64_t n, std::int64_t k, bool cold, bool fast)
      : product_({.m = m, .n = n, .k = k, .type = type, .row_scales = type == Elem::e4m3, .fast_sums = fast}),
        workspace_(cuda::CublasProduct::workspace_bytes()),
        y_(static_cast<std::size_t>(m * n) * 4) {
    // As quantizing spreads them: the largest of a row of thousands is about four deviations.
    const float deviation = type == Elem::bf16 ? 1 : type == Elem::e4m3 ? 100 : 30;
    const auto operand = [&](std::int64_t rows) {
      const Tensor v = values(type, rows, k, deviation);
      return cuda::uploaded(v.bytes());
    };
    a_ = operand(m);
    b_.push_back(operand(n));
    while (cold && b_.size() * b_[0].size() < kBeyondCache) {
      b_.emplace_back(b_[0].size());
      cuda::copy(b_.back().as<>(), b_[0].as<>(), b_[0].size(), cuda_stream().handle());
    }
    const std::vector<float> ones(static_cast<std::size_t>(std::max(m, n)), 1.0f);
    scales_ = cuda::uploaded(std::as_bytes(std::span(ones)));
  }
  void operator()(std::size_t call) const {
    product_.run(a_.as<>(), b_[call % b_.size()].as<>(), scales_.as<float>(), scales_.as<float>(), y_.as<>(),
                 workspace_.as<>(), cuda_stream().handle());
  }

 private:
  cuda::CublasProduct product_;
  cuda::Memory a_, workspace_, y_, scales_;
  std::vector<cuda::Memory> b_;
};

// Two rounds in opposite order.
std::pair<std::vector<double>, std::vector<double>> sustained_samples(const CudaCall& ours, const CudaCall* peer) {
  std::pair<std::vector<double>, std::vector<double>> found;
  const auto of = [](const CudaCall& call) { return sustained([&, i = std::size_t{0}]() mutable { call(i++); }); };
  found.first.push_back(of(ours));
  if (peer) {
    found.second.push_back(of(*peer));
    found.second.push_back(of(*peer));
  }
  found.first.push_back(of(ours));
  return found;
}

void measure_gemm(const Recipe& recipe, std::int64_t n, std::int64_t k, const Mode& mode, Row& row, Device& device,
                  const Effort& effort) {
  const bool few = row.m <= ops::CudaLinear::kFew;
  const Elem type = peer_type(recipe, mode);
  std::vector<ops::CudaLinear>& weights = kept_linears(recipe, n, k, few, mode.operands);
  if (differs(recipe, kFastSums))
    for (ops::CudaLinear& w : weights) w.use_sums(mode.fast ? cuda::Sums::fast : cuda::Sums::promoted);
  if (env::get("LOWP_TRACE") == "plan") fmt::print(stderr, "plan: {}\n", weights[0].plan(row.m));
  const Tensor x = values(Elem::bf16, row.m, k, 1);
  const cuda::Memory in = cuda::uploaded(x.bytes()), out(static_cast<std::size_t>(row.m * n) * 2),
                     workspace(weights[0].workspace(row.m));
  weights[0].prepare(in.as<>(), row.m, workspace.as<>(), cuda_stream().handle());
  const CudaCall ours = [&](std::size_t call) {
    weights[call % weights.size()].multiply(in.as<>(), row.m, out.as<>(), workspace.as<>(), cuda_stream().handle());
  };
  std::optional<Peer> peer;
  const bool integer = type == Elem::int8;  // of which the library wants more than 16 rows
  if (cuda::why_no_cublas().empty() && !(integer && row.m <= 16))
    peer.emplace(type, row.m, n, k, few, mode.fast || type != Elem::e4m3);
  std::vector<double> peers;
  const auto calls = [](std::size_t copies) { return std::max(kLeastGraphCalls, static_cast<int>(copies)); };
  if (few) {
    row.samples = graph_samples(ours, calls(weights.size()), std::min(9, effort.most));
    if (peer) peers = graph_samples(std::cref(*peer), kLeastGraphCalls, std::min(9, effort.most));
  } else {
    const CudaCall call = peer ? CudaCall(std::cref(*peer)) : CudaCall();
    std::tie(row.samples, peers) = sustained_samples(ours, peer ? &call : nullptr);
  }
  row.seconds = median(row.samples);
  std::vector<double> limits(5);
  for (double& limit : limits) limit = device.probe(row.limit_name);
  row.limit = median(limits);
  if (peers.empty()) return;
  row.peer = fmt::format("cuBLASLt {}", formats::name(type));
  row.peer_seconds = median(peers);
  row.ratio = *row.peer_seconds / row.seconds;
}

}  // namespace

std::vector<Case> cuda_gemm_cases(const Selection& selection) {
  std::vector<LayerShape> layers(std::begin(kLayers), std::end(kLayers));
  if (selection.n || selection.k) layers = {{0, selection.k.value_or(8192), selection.n.value_or(8192)}};
  std::vector<std::int64_t> rows(std::begin(kGpuRows), std::end(kGpuRows));
  if (selection.m) rows = {*selection.m};
  std::vector<Case> cases;
  for (const std::string& name : selection.recipes.empty() ? formats::demo_recipe_names() : selection.recipes) {
    const Recipe recipe = formats::recipe(name);
    for (const LayerShape& layer : layers) {
      const std::int64_t n = layer.n, k = layer.k;
      if (const std::string wrong = formats::misfit(recipe.weight, n, k); !wrong.empty())
        fail(ErrorCode::usage, "{}: {}", name, wrong);
      const double weight_bytes = static_cast<double>(n * k) *
                                  (recipe.keeps() ? 16 : formats::bits_per_weight(recipe.weight, n, k, Elem::bf16)) / 8;
      for (const std::int64_t m : rows) {
        const bool few = m <= ops::CudaLinear::kFew;
        for (const Mode& mode : {kDefault, kFastSums, kExact, kRounded}) {
          if (!differs(recipe, mode) || (few && !mode.name.empty())) continue;
          const std::string limit = few ? "read" : fmt::format("{}_product", formats::name(peer_type(recipe, mode)));
          cases.push_back({fmt::format("gemm{}", mode.name),
                           recipe.name,
                           m,
                           n,
                           k,
                           static_cast<std::uint64_t>(weight_bytes) + static_cast<std::uint64_t>(2 * m * (n + k)),
                           static_cast<std::uint64_t>(2 * m * n * k),
                           limit,
                           {},
                           [=](Row& row, Device& device, const Effort& effort) {
                             measure_gemm(recipe, n, k, mode, row, device, effort);
                           }});
        }
      }
    }
  }
  return cases;
}

Observed observe_layer(const Recipe& recipe, const LayerShape& shape) {
  const std::vector<ops::CudaLinear> weights = cuda_linears(recipe, shape.n, shape.k, false, ops::Operands::rebased);
  const ops::CudaLinear& linear = weights[0];
  const Tensor x = values(Elem::bf16, shape.m, shape.k, 1);
  const cuda::Memory in = cuda::uploaded(x.bytes()), out(static_cast<std::size_t>(shape.m * shape.n) * 2),
                     workspace(linear.workspace(shape.m));
  const auto handle = cuda_stream().handle();
  const Peer peer(Elem::bf16, shape.m, shape.n, shape.k, false, true);
  Observed seen;
  seen.bf16_gemm = sustained([&] { peer(0); });
  linear.prepare(in.as<>(), shape.m, workspace.as<>(), handle);
  seen.gemm = sustained([&] { linear.multiply(in.as<>(), shape.m, out.as<>(), workspace.as<>(), handle); });
  seen.whole = sustained([&] { linear.run(in.as<>(), shape.m, out.as<>(), workspace.as<>(), handle); });
  // The activation function alone: as long as copying its input.
  cuda::Memory activated(in.size());
  seen.bf16_whole = seen.bf16_gemm + sustained([&] { cuda::copy(activated.as<>(), in.as<>(), in.size(), handle); });
  return seen;
}

}  // namespace lowp::bench
