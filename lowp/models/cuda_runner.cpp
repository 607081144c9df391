// Rounding follows models/forward.cpp in bf16: what is written is rounded, sums, softmax and norms run in f32.
#include "lowp/models/cuda_runner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "lowp/base/bits.h"
#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cuda/layers.h"
#include "lowp/kernels/cuda/profile.h"
#include "lowp/models/cuda_pages.h"
#include "lowp/models/rope.h"

namespace lowp::models {
namespace {

namespace cuda = kernels::cuda;

constexpr std::int64_t kLogitRows = CudaChoice::kMostRows;  // whose logits are in device memory at a time
constexpr std::int64_t kFetchedRows = 32;                   // and in host memory
constexpr std::int64_t kFirstRows = 256;                    // of a step, before more are asked for
constexpr std::int64_t kPlannedRows = 8192;                 // of a step, in the memory that pages leave alone
constexpr std::array<std::int64_t, 14> kGraphRows = {1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256};

const Config& checked(const Config& config, const LoadOptions& options) {
  const std::string device = options.device.name();
  if (options.compute != formats::Elem::bf16)
    fail(ErrorCode::unsupported, "{} computes in bf16: --compute {} needs --device cpu", device,
         formats::name(options.compute));
  if (options.stored() == formats::Elem::f32)
    fail(ErrorCode::unsupported, "{}: keys and values are stored as bf16, fp8 or int8: f32 needs --device cpu", device);
  if (config.head_dim != 64 && config.head_dim != 128 && config.head_dim != 256)
    fail(ErrorCode::unsupported, "{}: heads of {} values: there are 64, 128 and 256; use --device cpu", device,
         config.head_dim);
  if (ops::is_fp8(options.attention) && config.head_dim > 128)
    fail(ErrorCode::unsupported,
         "{}: --attention {} has kernels for heads of 64 and 128 values, not of {}; use --attention bf16 or --device "
         "cpu",
         device, ops::name(options.attention), config.head_dim);
  return config;
}

cuda::KvPageLayout layout_of(const Config& config, const LoadOptions& options) {
  return {.type = options.stored(),
          .kv_heads = static_cast<int>(config.num_key_value_heads),
          .head_dim = static_cast<int>(config.head_dim)};
}

bool rows_depend(const CudaWeights& weights) {
  bool depend = false;
  weights.each([&](const CudaProjections& group) { depend |= group.rows_depend(); });
  return depend;
}

// cos or sin [positions, head_dim / 2].
std::pair<cuda::Memory, cuda::Memory> angles(const Rope& rope, const Config& config) {
  const std::int64_t half = config.head_dim / 2, positions = config.max_position_embeddings;
  const RopeTable table(rope, config.head_dim, formats::Elem::bf16);
  std::vector<float> cos(static_cast<std::size_t>(positions * half)), sin(cos.size());
  parallel_for(positions, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) table.angles(p, cos.data() + p * half, sin.data() + p * half);
  });
  return {cuda::uploaded(std::as_bytes(std::span(cos))), cuda::uploaded(std::as_bytes(std::span(sin)))};
}

}  // namespace

// The stream of a step, which changes places whenever a block's output is added: products normalise what they read, and
// no block of a kernel may write what another still reads.
struct CudaRunner::Residual {
  void *stream, *next;
  const void* output = nullptr;  // of the last block, not yet added
};

CudaWorkspace::CudaWorkspace(const Config& c, const CudaWeights& weights, const cuda::KvPageLayout& pages,
                             std::int64_t rows, std::byte* base)
    : rows(rows) {
  const auto take = [&](void*& part, std::int64_t size) {
    part = base + bytes;
    bytes += round_up<std::size_t>(static_cast<std::size_t>(size), 256);
  };
  std::size_t most = 0;
  weights.each([&](const CudaProjections& group) { most = std::max(most, group.workspace(rows)); });
  take(stream, rows * c.hidden_size * 2);
  take(next, rows * c.hidden_size * 2);
  take(normed, rows * c.hidden_size * 2);
  take(qkv, rows * (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim * 2);
  take(mixed, rows * c.num_attention_heads * c.head_dim * 2);
  take(out, rows * c.hidden_size * 2);
  take(gate_up, rows * 2 * c.intermediate_size * 2);
  take(gated, rows * c.intermediate_size * 2);
  take(product, static_cast<std::int64_t>(most));
  std::size_t experts_need = 0;
  for (const CudaLayer& layer : weights.layers)
    if (layer.experts) experts_need = std::max(experts_need, layer.experts->workspace(rows));
  take(experts, static_cast<std::int64_t>(experts_need));
  cuda::AttentionTask largest;
  largest.kv.layout = pages;
  largest.kv.max_pages = ceil_div(c.max_position_embeddings, kPageTokens);
  largest.heads = c.num_attention_heads;
  largest.sequences = largest.rows = std::min(rows, CudaBatch::kMostSequences);
  take(attention, cuda::attend_decode_workspace(largest));
}

CudaRunner::CudaRunner(const Config& config, const LoadOptions& options, WeightSource& source)
    : config_(checked(config, options)),
      device_(options.device),
      stream_((cuda::use_device(device_.cuda), std::make_shared<cuda::Stream>())),
      products_(stream_->handle(),
                std::max({config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim})),
      free_at_first_(cuda::free_memory()),
      weights_(config, options, source),
      layout_(layout_of(config, options)),
      attention_(options.attention),
      invariant_(options.invariant),
      pads_(!rows_depend(weights_)),
      batch_(config.max_position_embeddings),
      workspace_(config, weights_, layout_, 0, nullptr),
      wanted_(kLogitRows * sizeof(std::int32_t)),
      hidden_(static_cast<std::size_t>(kLogitRows * config.hidden_size) * 2),
      logits_(static_cast<std::size_t>(kLogitRows * config.vocab_size) * 2),
      head_workspace_(weights_.head->workspace(kLogitRows)),
      host_(std::max<std::size_t>(static_cast<std::size_t>(kFetchedRows * config.vocab_size) * 2,
                                  kLogitRows * sizeof(std::int32_t))),
      choice_(config.vocab_size) {
  std::tie(cos_, sin_) = angles(config.rope, config);
  if (config.window_rope) std::tie(window_cos_, window_sin_) = angles(*config.window_rope, config);
  reserve(kFirstRows);
  free_ = cuda::free_memory();
  const auto layer = static_cast<std::size_t>(layout_.bytes());
  const std::size_t page = layer * static_cast<std::size_t>(config.num_hidden_layers), kept = kept_for_steps();
  const auto most = static_cast<std::int64_t>((free_ - std::min(free_, kept)) / page);
  if (most == 0)
    fail(ErrorCode::io,
         "{}: {} bytes of memory are free beside the weights; a step of {} tokens takes {}, and {} tokens of keys and "
         "values {}",
         device_.name(), free_, kPlannedRows, kept, kPageTokens, page);
  kv_pool_ =
      std::make_shared<KvPool>(layer, config.num_hidden_layers, std::make_unique<CudaPages>(device_, stream_, most));
}

// Of the free memory: the workspace of a large step, and some for what the driver takes.
std::size_t CudaRunner::kept_for_steps() const {
  return CudaWorkspace(config_, weights_, layout_, kPlannedRows, nullptr).bytes + free_ / 64;
}

std::string CudaRunner::memory_plan() const {
  const auto gib = [](std::size_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  const auto pages = static_cast<std::size_t>(kv_pool_->most());
  return fmt::format("weights {:.2f} GiB, steps of up to {} tokens {:.2f} GiB, keys and values {:.2f} GiB ({} tokens)",
                     gib(free_at_first_ - free_), kPlannedRows, gib(kept_for_steps()),
                     gib(pages * kv_pool_->page_bytes()), pages * kPageTokens);
}

CudaRunner::~CudaRunner() = default;

// Makes room for steps of so many rows.
void CudaRunner::reserve(std::int64_t rows) {
  if (rows <= workspace_.rows) return;
  rows = round_up<std::int64_t>(rows, 256);
  graphs_.clear();  // which know the old places
  memory_ = {};
  workspace_.rows = 0;
  const std::size_t bytes = CudaWorkspace(config_, weights_, layout_, rows, nullptr).bytes;
  try {
    memory_ = cuda::Memory(bytes);
  } catch (const Error& e) {
    fail(e.code(), "{}: no room for a step of {} tokens: {}", device_.name(), rows, e.what());
  }
  cuda::fill(memory_.as<>(), 0, bytes, stream());
  batch_.reserve(rows);
  workspace_ = CudaWorkspace(config_, weights_, layout_, rows, memory_.as<std::byte>());
}

// Rows of the graph that serves a batch; 0: none does.
std::int64_t CudaRunner::graph_rows(std::span<const Chunk> batch) const {
  const auto count = static_cast<std::int64_t>(batch.size());
  const bool decodes = std::all_of(batch.begin(), batch.end(), [](const Chunk& c) { return c.tokens.size() == 1; });
  if (!decodes || count > kGraphRows.back() || cuda::Profile::current()) return 0;
  return pads_ ? *std::lower_bound(kGraphRows.begin(), kGraphRows.end(), count) : count;
}

void CudaRunner::forward(std::span<const Chunk> batch) {
  cuda::use_device(device_.cuda);
  std::int64_t rows = 0;
  for (const Chunk& chunk : batch) rows += static_cast<std::int64_t>(chunk.tokens.size());
  const std::int64_t recorded = graph_rows(batch);
  rows = std::max(rows, recorded);
  computed_ = 0;
  gathered_.clear();
  stream_->synchronize();  // the step before may still read what place() writes
  reserve(rows);
  CudaStep step = batch_.place(batch, rows, stream());
  if (invariant_) {  // one kernel for all attention: a token may come once in a prompt and once by itself
    step.prompts = step.sequences;
    step.prompt_rows = step.rows;
  }
  if (!recorded) return layers(step);
  auto [graph, fresh] = graphs_.try_emplace(recorded);
  if (fresh) try {
      graph->second.record(*stream_, [&] {
        layers(step);
        head(workspace_.normed, recorded);
      });
    } catch (...) {
      graphs_.erase(graph);
      throw;
    }
  graph->second.launch(*stream_);
  computed_ = recorded;
}

void CudaRunner::layers(const CudaStep& step) {
  const CudaWorkspace& w = workspace_;
  cuda::gather_rows({.table = weights_.embedding.as<>(),
                     .vocab = config_.vocab_size,
                     .tokens = step.tokens,
                     .scale = formats::round_to(formats::Elem::bf16, static_cast<float>(config_.embedding_scale)),
                     .out = w.stream,
                     .rows = step.rows,
                     .width = config_.hidden_size},
                    stream());
  Residual residual{.stream = w.stream, .next = w.next};
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const CudaLayer& layer = weights_.layers[i];
    attention(layer, static_cast<std::int64_t>(i), step, residual);
    mlp(layer, step, residual);
  }
  cuda::add_norm(norm(weights_.norm, step.rows, residual), stream());
}

// Hidden states to logits_.
void CudaRunner::head(const void* hidden, std::int64_t rows) {
  weights_.head->run({.m = rows, .x = hidden, .y = logits_.as<>(), .workspace = head_workspace_.as<>()}, products_);
  stream();
}

// Of rows of the hidden size; into normed.
cuda::AddNormTask CudaRunner::norm(const cuda::Memory& weight, std::int64_t rows) const {
  return {.weight = weight.as<float>(),
          .eps = static_cast<float>(config_.rms_norm_eps),
          .round_quotient = !config_.norm_rounds_once,
          .out = workspace_.normed,
          .rows = rows,
          .width = config_.hidden_size};
}

// The residual stream and the last block's output, which it gains.
cuda::AddNormTask CudaRunner::norm(const cuda::Memory& weight, std::int64_t rows, Residual& residual) const {
  cuda::AddNormTask task = norm(weight, rows);
  task.stream = residual.stream;
  if (residual.output) {
    task.add = residual.output;
    task.sum = residual.next;
    std::swap(residual.stream, residual.next);
  }
  residual.output = nullptr;
  return task;
}

// Of a block's output, in architectures that have one.
void CudaRunner::output_norm(const cuda::Memory& weight, std::int64_t rows) {
  if (weight.size() == 0) return;
  cuda::AddNormTask task = norm(weight, rows);
  task.stream = task.out = workspace_.out;
  cuda::add_norm(task, stream());
}

void CudaRunner::attention(const CudaLayer& layer, std::int64_t index, const CudaStep& step, Residual& residual) {
  const Config& c = config_;
  const CudaWorkspace& w = workspace_;
  const cuda::AddNormTask before = norm(layer.attention_norm, step.rows, residual);
  layer.qkv->run({.m = step.rows, .x = w.normed, .norm = &before, .y = w.qkv, .workspace = w.product}, products_);
  const auto q = layer.qkv->part(0, step.rows, w.qkv), k = layer.qkv->part(1, step.rows, w.qkv),
             v = layer.qkv->part(2, step.rows, w.qkv);
  const std::int64_t window = c.window[static_cast<std::size_t>(index)];
  const bool window_angles = window > 0 && c.window_rope;
  cuda::KvPages kv{.layout = layout_,
                   .pages = batch_.pages(),
                   .max_pages = batch_.max_pages(),
                   .layer_offset = index * layout_.bytes()};
  cuda::rotate_store({.q = q.values,
                      .k = k.values,
                      .v = v.values,
                      .q_stride = q.stride,
                      .k_stride = k.stride,
                      .v_stride = v.stride,
                      .rows = step.rows,
                      .heads = c.num_attention_heads,
                      .q_norm = layer.q_norm.as<float>(),
                      .k_norm = layer.k_norm.as<float>(),
                      .eps = static_cast<float>(c.rms_norm_eps),
                      .round_quotient = !c.norm_rounds_once,
                      .cos = (window_angles ? window_cos_ : cos_).as<float>(),
                      .sin = (window_angles ? window_sin_ : sin_).as<float>(),
                      .positions = step.positions,
                      .sequences = step.sequence,
                      .kv = kv,
                      .hadamard_keys = ops::rotates_keys(attention_),
                      .hadamard_values = ops::rotates_values(attention_)},
                     stream());
  cuda::AttentionTask task{
      .q = q.values,
      .q_stride = q.stride,
      .out = w.mixed,
      .out_stride = c.num_attention_heads * c.head_dim,
      .kv = kv,
      .heads = c.num_attention_heads,
      .scale = c.query_scale > 0 ? static_cast<float>(c.query_scale) : 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
      .window = window,
      .sinks = layer.sinks.as<float>(),
      .row_begin = step.row_begin,
      .past = step.past,
      .sequences = step.prompts,
      .rows = step.prompt_rows,
      .workspace = w.attention};
  if (step.prompts) {
    cuda::AttentionTask prompts = task;
    prompts.e4m3 = ops::is_fp8(attention_);
    prompts.hadamard = ops::rotates_values(attention_);
    cuda::attend_prefill(prompts, stream());
  }
  if (step.sequences > step.prompts) {
    task.row_begin += step.prompts;
    task.past += step.prompts;
    task.kv.pages += step.prompts * task.kv.max_pages;
    task.sequences = step.sequences - step.prompts;
    task.rows = step.rows - step.prompt_rows;
    cuda::attend_decode(task, stream());
    if (ops::rotates_values(attention_))
      cuda::hadamard_heads({.x = static_cast<std::uint16_t*>(w.mixed) + step.prompt_rows * task.out_stride,
                            .rows = task.rows,
                            .heads = c.num_attention_heads,
                            .head_dim = c.head_dim},
                           stream());
  }
  layer.o->run({.m = step.rows, .x = w.mixed, .y = w.out, .workspace = w.product}, products_);
  output_norm(layer.attention_output_norm, step.rows);
  residual.output = w.out;
}

void CudaRunner::mlp(const CudaLayer& layer, const CudaStep& step, Residual& residual) {
  const CudaWorkspace& w = workspace_;
  const std::int64_t rows = step.rows;
  const cuda::AddNormTask before = norm(layer.mlp_norm, rows, residual);
  if (!layer.experts) {
    const auto gate =
        layer.gate_up->run_gated({.m = rows, .x = w.normed, .norm = &before, .y = w.gated, .workspace = w.product},
                                 config_.gate_activation, w.gate_up, products_);
    layer.down->run({.m = rows, .x = w.gated, .gate = gate ? &*gate : nullptr, .y = w.out, .workspace = w.product},
                    products_);
  } else {
    layer.experts->run({.rows = rows,
                        .positions = step.positions,
                        .x = w.normed,
                        .norm = &before,
                        .out = w.out,
                        .workspace = w.experts},
                       stream());
  }
  output_norm(layer.mlp_output_norm, rows);
  residual.output = w.out;
}

// Sees to the logits of up to kLogitRows rows of the last step; returns in which rows of logits_ they are, until the
// next call.
std::span<const std::int32_t> CudaRunner::find_logits(std::span<const std::int64_t> rows) {
  const auto count = static_cast<std::int64_t>(rows.size());
  found_.clear();
  const auto there = [&](std::int64_t row) { return computed_ > 0 || gathered_.contains(row); };
  if (!std::all_of(rows.begin(), rows.end(), there)) {
    gathered_.clear();
    auto* const numbers = host_.as<std::int32_t>();
    for (std::int32_t i = 0; i < count; ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      numbers[i] = static_cast<std::int32_t>(batch_.row(row));
      gathered_[row] = i;
    }
    cuda::copy(wanted_.as<>(), numbers, rows.size() * sizeof(std::int32_t), stream());
    cuda::gather_rows({.table = workspace_.normed,
                       .vocab = workspace_.rows,
                       .tokens = wanted_.as<std::int32_t>(),
                       .out = hidden_.as<>(),
                       .rows = count,
                       .width = config_.hidden_size},
                      stream());
    head(hidden_.as<>(), count);
    stream_->synchronize();  // numbers lie where results will
  }
  for (const std::int64_t row : rows)
    found_.push_back(computed_ > 0 ? static_cast<std::int32_t>(batch_.row(row)) : gathered_.at(row));
  return found_;
}

void CudaRunner::logits(std::span<const std::int64_t> rows, std::span<float> out) {
  cuda::use_device(device_.cuda);
  const auto vocab = static_cast<std::size_t>(config_.vocab_size);
  for (std::size_t begin = 0; begin < rows.size(); begin += kFetchedRows) {
    const auto part = rows.subspan(begin, std::min<std::size_t>(kFetchedRows, rows.size() - begin));
    const auto found = find_logits(part);
    for (std::size_t i = 0; i < part.size(); ++i)
      cuda::copy(host_.as<std::uint16_t>() + i * vocab,
                 logits_.as<std::uint16_t>() + static_cast<std::size_t>(found[i]) * vocab, vocab * 2, stream());
    stream_->synchronize();
    const auto count = static_cast<std::int64_t>(part.size() * vocab);
    const TensorView fetched{DType::bf16, {count}, {host_.as<const std::byte>(), part.size() * vocab * 2}};
    parallel_for(count, 1 << 16, [&](std::int64_t first, std::int64_t last) {
      load_f32(fetched, first, last - first, out.data() + begin * vocab + static_cast<std::size_t>(first));
    });
  }
}

std::vector<std::int32_t> CudaRunner::likeliest(std::span<const std::int64_t> rows, std::int64_t limit) {
  std::vector<TokenChoice> choices;
  for (const std::int64_t row : rows) choices.push_back({.row = row});
  return choose(choices, limit);
}

namespace {

// answer(part of the questions, their rows) for kLogitRows of them at a time, all answers together.
template <typename Question, typename Answer>
auto in_parts(std::span<const Question> questions, const Answer& answer) {
  decltype(answer(questions, std::span<const std::int64_t>())) all;
  std::vector<std::int64_t> rows;
  for (std::size_t begin = 0; begin < questions.size(); begin += kLogitRows) {
    const auto part = questions.subspan(begin, std::min<std::size_t>(kLogitRows, questions.size() - begin));
    rows.clear();
    for (const Question& question : part) rows.push_back(question.row);
    auto answers = answer(part, std::span<const std::int64_t>(rows));
    std::move(answers.begin(), answers.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace

std::vector<std::int32_t> CudaRunner::choose(std::span<const TokenChoice> choices, std::int64_t limit) {
  cuda::use_device(device_.cuda);
  return in_parts(choices, [&](std::span<const TokenChoice> part, std::span<const std::int64_t> rows) {
    return choice_.choose(logits_.as<>(), find_logits(rows), part, limit, *stream_);
  });
}

std::vector<TokenScore> CudaRunner::score(std::span<const TokenQuestion> questions, std::int64_t limit) {
  cuda::use_device(device_.cuda);
  return in_parts(questions, [&](std::span<const TokenQuestion> part, std::span<const std::int64_t> rows) {
    return choice_.score(logits_.as<>(), find_logits(rows), part, limit, *stream_);
  });
}

}  // namespace lowp::models
