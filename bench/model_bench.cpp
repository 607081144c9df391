#include "bench/model_bench.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <variant>

#include "bench/clock.h"
#include "lowp/base/error.h"
#include "lowp/base/quantile.h"
#include "lowp/engine/engine.h"
#include "lowp/formats/recipes.h"
#include "lowp/kernels/cpu/isa.h"
#include "lowp/kernels/cuda/transfer.h"
#include "lowp/report/machine.h"
#include "lowp/report/speed.h"

namespace lowp::bench {
namespace {

struct Times {
  double prefill = 0, decode = 0;
};

// `batch` sequences: until each has its first token, and from there until each has `decode` more.
Times run(models::Model& model, std::int64_t batch, std::int64_t prefill, std::int64_t decode) {
  engine::Engine engine(model, {});
  for (std::int64_t i = 0; i < batch; ++i) {
    engine::Request request;
    request.id = static_cast<std::uint64_t>(i) + 1;
    request.prompt = report::synthetic_prompt(prefill, model.config().vocab_size, i);
    request.max_new_tokens = decode + 1;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    if (const engine::Admit admit = engine.submit(std::move(request)); !admit)
      fail(ErrorCode::unsupported, "{} tokens and {} more: {}", prefill, decode, admit.message);
  }
  engine::Budget budget;
  budget.tokens = std::max(budget.tokens, batch * prefill);
  budget.sequences = std::max(budget.sequences, batch);
  Times times;
  std::int64_t first = 0;
  auto start = Clock::now();
  std::vector<bool> begun(static_cast<std::size_t>(batch) + 1);
  while (!engine.idle()) {
    for (const engine::Event& event : engine.step(budget))
      if (std::holds_alternative<engine::NewToken>(event.what) && !begun[event.id]) {
        begun[event.id] = true;
        ++first;
      }
    if (first == batch && times.prefill == 0) {
      times.prefill = since(start);
      start = Clock::now();
    }
  }
  times.decode = since(start);
  return times;
}

// Multiplied weights of one token, head included, and the bytes that a step of `batch` tokens reads. Of experts, those
// that so many tokens choose if they choose evenly.
struct Work {
  double weights = 0, bytes = 0;
};
Work work_of(const models::Model& model, std::int64_t batch) {
  const models::Config& c = model.config();
  const auto heads = static_cast<double>(2 * c.num_attention_heads + 2 * c.num_key_value_heads);
  const double hidden = static_cast<double>(c.hidden_size);
  Work work{hidden * static_cast<double>(c.vocab_size), static_cast<double>(model.streamed_bytes())};
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    work.weights += hidden * static_cast<double>(c.head_dim) * heads;
    const bool listed = std::find(c.mlp_only_layers.begin(), c.mlp_only_layers.end(), i) != c.mlp_only_layers.end();
    if (c.num_experts == 0 || listed || (i + 1) % c.decoder_sparse_step != 0) {
      work.weights += 3 * hidden * static_cast<double>(c.intermediate_size);
      continue;
    }
    const double expert = 3 * hidden * static_cast<double>(c.moe_intermediate_size);
    const auto all = static_cast<double>(c.num_experts), chosen = static_cast<double>(c.experts_per_token);
    const double idle = all * std::pow(1 - chosen / all, static_cast<double>(batch));
    work.weights += expert * chosen;
    work.bytes -= idle * expert *
                  formats::bits_per_weight(formats::recipe(model.recipe()).weight, c.moe_intermediate_size,
                                           c.hidden_size, formats::Elem::bf16) /
                  8;
  }
  return work;
}

// What the operands of a recipe can be multiplied as. Mixed recipes and heads are not looked into.
enum class Operands { bf16, e4m3, integer };
Operands operands_of(const models::Model& model) {
  const std::string& name = model.recipe();
  if (name.find('(') != std::string::npos) return Operands::bf16;
  const formats::Recipe recipe = formats::recipe(name);
  if (!recipe.activation) return Operands::bf16;
  using formats::Elem;
  const Elem a = recipe.activation->format.element, w = recipe.weight.element;
  if (model.options().device.is_cuda()) {  // ops::CudaLinear
    const bool plain = recipe.activation->format.rule == formats::Rule::float8;
    if (a == Elem::e4m3 && plain && (w == Elem::e4m3 || w == Elem::e2m1)) return Operands::e4m3;
    return a == Elem::int8 && w == Elem::int8 && recipe.weight.group_cols == 0 ? Operands::integer : Operands::bf16;
  }
  const auto small = [](Elem e) { return !formats::info(e).is_float() || formats::info(e).bits == 4; };
  return small(a) && small(w) ? Operands::integer : Operands::bf16;
}

// The peak of the widest multiply instruction that the recipe's operands allow, among those that kernels may use here:
// integers, and on the CPU e2m1 as integers, else bf16.
std::string peak_of(const Device& device, const models::Model& model) {
  using kernels::cpu::Isa;
  const Operands operands = operands_of(model);
  if (model.options().device.is_cuda())
    return operands == Operands::e4m3      ? "e4m3_product"
           : operands == Operands::integer ? "int8_product"
                                           : "bf16_product";
  static constexpr std::pair<const char*, Isa> kInteger[] = {
      {"amx_int8", Isa::amx}, {"vnni_avx512", Isa::avx512}, {"vnni_avx2", Isa::avx2_vnni}, {"fma_avx2", Isa::avx2}};
  static constexpr std::pair<const char*, Isa> kFloat[] = {
      {"amx_bf16", Isa::amx}, {"bf16_avx512", Isa::avx512_bf16}, {"fma_avx512", Isa::avx512}, {"fma_avx2", Isa::avx2}};
  for (const auto& [peak, isa] : std::span(operands == Operands::integer ? kInteger : kFloat)) {
    const bool usable = kernels::cpu::isa() >= isa;
    for (const Limit& limit : device.limits())
      if (usable && limit.name == peak) return peak;
  }
  fail(ErrorCode::unsupported, "{}: no multiply instruction whose peak is known", device.name());
}

// Of the device that computes: all that is taken of a GPU, whose pages stay.
std::uint64_t peak_memory(const models::Model& model) {
  const ops::Device& device = model.options().device;
  if (!device.is_cuda()) return report::peak_resident_bytes();
  const auto all = kernels::cuda::devices()[static_cast<std::size_t>(device.cuda)].memory_bytes;
  return static_cast<std::uint64_t>(all) - kernels::cuda::free_memory();
}

}  // namespace

void bench_model(models::Model& model, Device& device, const ModelBench& what,
                 const std::function<void(const Row&)>& done) {
  const auto measured = [&](const std::string& op, std::int64_t batch, std::int64_t prefill, std::int64_t decode) {
    const bool prefilling = decode == 0;
    Row row;
    row.op = op;
    row.recipe = model.recipe();
    row.m = prefilling ? prefill : batch;
    row.k = decode;
    row.device = device.description();
    const std::int64_t tokens = prefilling ? prefill : batch * decode;
    const Work work = work_of(model, prefilling ? prefill : batch);
    row.flop = static_cast<std::uint64_t>(2 * work.weights * static_cast<double>(tokens));
    row.bytes = static_cast<std::uint64_t>(work.bytes * static_cast<double>(prefilling ? 1 : decode));
    row.limit_name = prefilling ? peak_of(device, model) : "read";
    std::vector<double> limits;
    run(model, batch, prefill, std::min<std::int64_t>(decode, 2));
    for (int i = 0; i < what.runs; ++i) {
      const Times times = run(model, batch, prefill, decode);
      row.samples.push_back(prefilling ? times.prefill : times.decode);
      limits.push_back(device.probe(row.limit_name));  // afterwards: an idle GPU's clock is low
    }
    row.seconds = median(row.samples);
    row.limit = median(limits);
    row.share = static_cast<double>(prefilling ? row.flop : row.bytes) / row.seconds / row.limit;
    done(row);
  };
  if (what.prefill > 0) measured(fmt::format("pp{}", what.prefill), 1, what.prefill, 0);
  if (what.decode > 0) measured(fmt::format("tg{}", what.decode), 1, 1, what.decode);
  for (const std::int64_t batch : what.batches)
    if (batch > 0) measured(fmt::format("batch{}", batch), batch, what.batch_prompt, what.batch_decode);
  Row memory;
  memory.op = "memory";
  memory.recipe = model.recipe();
  memory.device = device.description();
  memory.bytes = peak_memory(model);
  done(memory);
}

}  // namespace lowp::bench
