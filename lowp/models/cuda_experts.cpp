#include "lowp/models/cuda_experts.h"

#include <algorithm>

#include "lowp/base/bits.h"
#include "lowp/kernels/cuda/experts.h"
#include "lowp/kernels/cuda/layers.h"

namespace lowp::models {

namespace cuda = kernels::cuda;

CudaExperts::Places CudaExperts::place(std::int64_t rows) const {
  const Config& c = config_;
  const std::int64_t visits = rows * c.experts_per_token;
  Places p{};
  const auto take = [](auto*& part, void* base, std::size_t& bytes, std::int64_t size) {
    part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(static_cast<std::byte*>(base) + bytes);
    bytes += round_up<std::size_t>(static_cast<std::size_t>(size), 256);
  };
  const auto device = [&](auto*& part, std::int64_t size) { take(part, memory_.as<>(), p.device_bytes, size); };
  const auto host = [&](auto*& part, std::int64_t size) { take(part, host_.as<void>(), p.host_bytes, size); };
  device(p.scores, rows * c.num_experts * 2);
  device(p.visitors, visits * c.hidden_size * 2);
  device(p.gate_up, visits * 2 * c.moe_intermediate_size * 2);
  device(p.gated, visits * c.moe_intermediate_size * 2);
  device(p.outputs, visits * c.hidden_size * 2);
  device(p.visit_rows, visits * 4);
  device(p.visits, visits * 4);
  device(p.weights, visits * 4);
  host(p.host_scores, rows * c.num_experts * 2);
  host(p.host_visit_rows, visits * 4);
  host(p.host_visits, visits * 4);
  host(p.host_weights, visits * 4);
  return p;
}

std::size_t CudaExperts::bytes(std::int64_t rows) const { return place(rows).device_bytes; }

void CudaExperts::run(const CudaLayer& layer, const void* x, std::int64_t rows, void* out, void* workspace,
                      const cuda::Stream& stream) {
  if (const Places needed = place(rows); memory_.size() < needed.device_bytes) {
    memory_ = {};
    memory_ = cuda::Memory(needed.device_bytes);
    host_ = cuda::HostMemory(needed.host_bytes);
  }
  const Places p = place(rows);
  const std::int64_t visits = rows * config_.experts_per_token;
  layer.router->run(x, rows, p.scores, workspace, stream.handle());
  cuda::copy(p.host_scores, p.scores, static_cast<std::size_t>(rows * config_.num_experts) * 2, stream.handle());
  stream.synchronize();
  choose(rows, p);
  const auto bring = [&](auto* to, const auto* from) {
    cuda::copy(to, from, static_cast<std::size_t>(visits) * 4, stream.handle());
  };
  bring(p.visit_rows, p.host_visit_rows);
  bring(p.visits, p.host_visits);
  bring(p.weights, p.host_weights);
  cuda::gather_rows({.table = x,
                     .vocab = rows,
                     .tokens = p.visit_rows,
                     .out = p.visitors,
                     .rows = visits,
                     .width = config_.hidden_size},
                    stream.handle());
  multiply(layer, p, workspace, stream.handle());
  cuda::combine({.outputs = p.outputs,
                 .visits = p.visits,
                 .weights = p.weights,
                 .out = out,
                 .rows = rows,
                 .top = config_.experts_per_token,
                 .width = config_.hidden_size},
                stream.handle());
}

// From the router's scores: the rows in the order of their experts, and for each row its places there.
void CudaExperts::choose(std::int64_t rows, const Places& p) {
  const std::int64_t top = config_.experts_per_token;
  scores_.resize(static_cast<std::size_t>(rows * config_.num_experts));
  const auto count = static_cast<std::int64_t>(scores_.size());
  load_f32({DType::bf16, {count}, std::as_bytes(std::span(p.host_scores, scores_.size()))}, 0, count, scores_.data());
  route(config_, formats::Elem::bf16, scores_, choices_);
  first_.assign(static_cast<std::size_t>(config_.num_experts) + 1, 0);
  for (const Choice& choice : choices_) ++first_[static_cast<std::size_t>(choice.expert) + 1];
  for (std::size_t e = 0; e + 1 < first_.size(); ++e) first_[e + 1] += first_[e];
  std::vector<std::int64_t> next(first_.begin(), first_.end() - 1);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto own = std::span(choices_).subspan(static_cast<std::size_t>(r * top), static_cast<std::size_t>(top));
    std::sort(own.begin(), own.end(), [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
    for (std::int64_t i = 0; i < top; ++i) {
      const Choice& choice = own[static_cast<std::size_t>(i)];
      const std::int64_t visit = next[static_cast<std::size_t>(choice.expert)]++;
      p.host_visit_rows[visit] = static_cast<std::int32_t>(r);
      p.host_visits[r * top + i] = static_cast<std::int32_t>(visit);
      p.host_weights[r * top + i] = choice.weight;
    }
  }
}

void CudaExperts::multiply(const CudaLayer& layer, const Places& p, void* workspace, cuda::StreamHandle stream) const {
  const std::int64_t hidden = config_.hidden_size, width = config_.moe_intermediate_size;
  const auto at = [](void* base, std::int64_t values) { return static_cast<std::uint16_t*>(base) + values; };
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const std::int64_t first = first_[e], rows = first_[e + 1] - first;
    if (rows == 0) continue;
    const CudaLayer::Expert& expert = layer.experts[e];
    std::uint16_t* both = at(p.gate_up, first * 2 * width);
    expert.gate_up.run(at(p.visitors, first * hidden), rows, both, workspace, stream);
    std::uint16_t* gated = at(p.gated, first * width);
    expert.gate_up.gate(config_.gate_activation, rows, both, gated, stream);
    expert.down.run(gated, rows, at(p.outputs, first * hidden), workspace, stream);
  }
}

}  // namespace lowp::models
