#include "bench/cuda_attention_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>

#include "bench/cuda_device.h"
#include "bench/layer_shape.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/attention.h"

namespace lowp::bench {
namespace {

namespace cuda = kernels::cuda;
using cuda::KvPageLayout;
using formats::Elem;

struct Kind {
  std::string_view name;
  Elem type;          // of the cache
  bool e4m3 = false;  // prompts multiply e4m3 by e4m3
};
constexpr Kind kKinds[] = {
    {"bf16", Elem::bf16}, {"fp8", Elem::e4m3}, {"int8", Elem::int8}, {"fp8-fp8", Elem::e4m3, true}};

Kind kind_of(const std::string& name) {
  for (const Kind& known : kKinds)
    if (known.name == name) return known;
  fail(ErrorCode::usage, "--recipe {}: attention has caches of bf16, fp8, int8, and fp8-fp8", name);
}

template <typename T>
cuda::Memory upload(const std::vector<T>& values) {
  cuda::Memory memory(values.size() * sizeof(T));
  cuda::copy(memory.as<>(), values.data(), values.size() * sizeof(T), cuda_stream().handle());
  cuda_stream().synchronize();
  return memory;
}

std::vector<std::uint16_t> bf16_normals(std::int64_t count) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
  for (auto& v : values) v = static_cast<std::uint16_t>(formats::encode(Elem::bf16, normal(rng)));
  return values;
}

// A page of normal values, as often as asked for.
cuda::Memory make_pages(const KvPageLayout& layout, std::int64_t count) {
  std::mt19937 rng(2);
  std::normal_distribution<float> normal(0, layout.scaled() ? 30.0f : 1.0f);
  const auto bytes = static_cast<std::size_t>(layout.bytes());
  std::vector<std::byte> page(bytes);
  for (int head = 0; head < layout.kv_heads; ++head) {
    std::byte* at = page.data() + layout.keys_at(head);
    for (std::int64_t i = 0; i < 2 * layout.keys_bytes(); i += layout.value_bytes()) {
      const std::uint32_t code = formats::encode(layout.type, normal(rng));
      std::memcpy(at + i, &code, static_cast<std::size_t>(layout.value_bytes()));
    }
    const std::vector<float> scales(static_cast<std::size_t>(2 * layout.scales_bytes() / 4), 1.0f / 30);
    std::memcpy(page.data() + layout.key_scales_at(head), scales.data(), scales.size() * 4);
  }
  cuda::Memory all(bytes * static_cast<std::size_t>(count));
  cuda::copy(all.as<>(), page.data(), bytes, cuda_stream().handle());
  for (std::size_t have = bytes; have < all.size(); have *= 2)
    cuda::copy(all.as<std::byte>() + have, all.as<>(), std::min(have, all.size() - have), cuda_stream().handle());
  cuda_stream().synchronize();
  return all;
}

// `sequences` of `rows` new tokens after `past`, over `copies` caches.
struct Problem {
  KvPageLayout layout;
  std::int64_t sequences, rows, past, copies;
  std::int64_t pages_each, pages_all;
  cuda::Memory pool, pages, row_begin, lengths, q, out, workspace;
  cuda::AttentionTask task;

  Problem(Elem type, std::int64_t sequence_count, std::int64_t row_count, std::int64_t past_tokens)
      : layout{type, kKvHeads, kDim}, sequences(sequence_count), rows(row_count), past(past_tokens) {
    pages_each = ceil_div<std::int64_t>(past + rows, cuda::kPageTokens);
    pages_all = sequences * pages_each;
    copies = std::max<std::int64_t>(1, ceil_div<std::int64_t>(kBeyondCache, pages_all * layout.bytes()));
    pool = make_pages(layout, copies * pages_all);
    std::vector<void*> table;
    for (std::int64_t i = 0; i < copies * pages_all; ++i) table.push_back(pool.as<std::byte>() + i * layout.bytes());
    std::shuffle(table.begin(), table.end(), std::mt19937(3));
    pages = upload(table);
    std::vector<std::int32_t> begins(static_cast<std::size_t>(sequences) + 1), pasts(begins.size() - 1);
    for (std::size_t s = 0; s < begins.size(); ++s)
      begins[s] = static_cast<std::int32_t>(static_cast<std::int64_t>(s) * rows);
    std::fill(pasts.begin(), pasts.end(), static_cast<std::int32_t>(past));
    row_begin = upload(begins);
    lengths = upload(pasts);
    q = upload(bf16_normals(sequences * rows * kWidth));
    out = cuda::Memory(q.size());
    task = {.q = q.as<>(),
            .q_stride = kWidth,
            .out = out.as<>(),
            .out_stride = kWidth,
            .kv = {layout, pages.as<void*>(), pages_each, 0},
            .heads = kHeads,
            .scale = 1 / std::sqrt(static_cast<float>(kDim)),
            .row_begin = row_begin.as<std::int32_t>(),
            .past = lengths.as<std::int32_t>(),
            .sequences = sequences,
            .rows = sequences * rows};
    workspace = cuda::Memory(static_cast<std::size_t>(cuda::attend_decode_workspace(task)));
    cuda::fill(workspace.as<>(), 0, workspace.size(), cuda_stream().handle());
    task.workspace = workspace.as<>();
  }
  cuda::AttentionTask call(std::size_t index) const {
    cuda::AttentionTask one = task;
    one.kv.pages += static_cast<std::int64_t>(index) % copies * pages_all;
    return one;
  }
};

void finish(Row& row, Device& device) {
  row.seconds = median(row.samples);
  std::vector<double> limits(5);
  for (double& limit : limits) limit = device.probe(row.limit_name);
  row.limit = median(limits);
}

Case prefill_case(const std::string& name, std::int64_t tokens, bool causal) {
  const Kind kind = kind_of(name);
  const Elem type = kind.type;
  return {causal ? "attention:prefill" : "attention:noncausal",
          name,
          tokens,
          kWidth,
          tokens,
          static_cast<std::uint64_t>(4 * tokens * kWidth + KvPageLayout{type, kKvHeads, kDim}.bytes() * tokens / 64),
          static_cast<std::uint64_t>((causal ? 2 : 4) * tokens * tokens * kWidth),
          "bf16_product",
          {},
          [=](Row& row, Device& device, const Effort&) {
            Problem problem(type, 1, tokens, 0);
            problem.task.causal = causal;
            problem.task.e4m3 = kind.e4m3;
            const auto run = [&] { cuda::attend_prefill(problem.call(0), cuda_stream().handle()); };
            for (int i = 0; i < 3; ++i) row.samples.push_back(sustained(run));
            finish(row, device);
          }};
}

Case decode_case(const std::string& name, std::int64_t batch, std::int64_t context) {
  const Elem type = kind_of(name).type;
  return {"attention:decode",
          name,
          batch,
          kWidth,
          context,
          static_cast<std::uint64_t>(batch * (4 * kWidth + KvPageLayout{type, kKvHeads, kDim}.bytes() * context / 64)),
          static_cast<std::uint64_t>(4 * batch * context * kWidth),
          "read",
          {},
          [=](Row& row, Device& device, const Effort& effort) {
            const Problem problem(type, batch, 1, context - 1);
            const CudaCall call = [&](std::size_t i) { cuda::attend_decode(problem.call(i), cuda_stream().handle()); };
            row.samples = graph_samples(call, std::max(24, static_cast<int>(problem.copies)), std::min(9, effort.most));
            finish(row, device);
          }};
}

}  // namespace

std::vector<Case> cuda_attention_cases(const Selection& selection) {
  std::vector<std::int64_t> prompts = {4096, 16384}, batches = {1, 16, 64, 128}, contexts = {1024, 8192};
  if (selection.m) (*selection.m > cuda::kMostSequences ? batches : prompts) = {};
  if (selection.m) (*selection.m > cuda::kMostSequences ? prompts : batches) = {*selection.m};
  if (selection.k) contexts = {*selection.k};
  std::vector<Case> made;
  for (const std::string& name :
       selection.recipes.empty() ? std::vector<std::string>{"bf16", "fp8", "int8", "fp8-fp8"} : selection.recipes) {
    for (const bool causal : {true, false})
      for (const std::int64_t tokens : prompts) made.push_back(prefill_case(name, tokens, causal));
    if (kind_of(name).e4m3) continue;  // decoding is that of the cache
    for (const std::int64_t context : contexts)
      for (const std::int64_t batch : batches) made.push_back(decode_case(name, batch, context));
  }
  return made;
}

}  // namespace lowp::bench
