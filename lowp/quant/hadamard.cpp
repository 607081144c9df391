#include "lowp/quant/hadamard.h"

#include "lowp/base/error.h"
#include "lowp/quant/sites.h"

namespace lowp::quant {
namespace {

using checkpoint::Checkpoint;

int largest_power_of_two(std::int64_t size) { return static_cast<int>(size & -size); }

class Rotator {
 public:
  explicit Rotator(const Checkpoint& checkpoint) : checkpoint_(checkpoint), config_(rewritable_config(checkpoint)) {
    if (norms_add_one(config_))
      fail(ErrorCode::unsupported,
           "{}: {} normalises the outputs of its blocks, which does not commute with a rotation", checkpoint.path(),
           config_.architecture);
    stream_ = largest_power_of_two(config_.hidden_size);
    head_ = largest_power_of_two(config_.head_dim);
  }

  Rewriting run() {
    const std::string embedding = "model.embed_tokens.weight";
    change(embedding).rotate_columns = stream_;
    for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) rotate_layer(fmt::format("model.layers.{}.", i));
    const std::string norm = "model.norm.weight", head = "lm_head.weight";
    if (!checkpoint_.find(head)) {
      change(head).source = embedding;
      result_.untie_head = true;
    }
    reads_stream(head, weight(norm));
    change(norm).ones = true;
    return std::move(result_);
  }

 private:
  Rewrite& change(const std::string& tensor) { return result_.tensors[tensor]; }

  std::vector<float> weight(const std::string& norm) const {
    const checkpoint::StoredTensor* tensor = checkpoint_.find(norm);
    LOWP_CHECK(tensor, "{} has no {}", checkpoint_.path(), norm);  // the shapes were checked
    std::vector<float> values(static_cast<std::size_t>(element_count(tensor->entry.shape)));
    load_f32(tensor->view(), 0, static_cast<std::int64_t>(values.size()), values.data());
    return values;
  }

  void reads_stream(const std::string& tensor, const std::vector<float>& norm) {
    change(tensor).columns = norm;
    change(tensor).rotate_columns = stream_;
  }

  void writes_stream(const std::string& module) {
    change(module + ".weight").rotate_rows = stream_;
    if (checkpoint_.find(module + ".bias")) change(module + ".bias").rotate_columns = stream_;
  }

  void rotate_layer(const std::string& layer) {
    const std::string attention = layer + "self_attn.", norm = layer + "input_layernorm.weight";
    for (const char* part : {"q_proj", "k_proj", "v_proj"}) reads_stream(attention + part + ".weight", weight(norm));
    change(norm).ones = true;
    change(attention + "v_proj.weight").rotate_rows = head_;
    if (checkpoint_.find(attention + "v_proj.bias")) change(attention + "v_proj.bias").rotate_columns = head_;
    writes_stream(attention + "o_proj");
    change(attention + "o_proj.weight").rotate_columns = head_;
    const std::string second = mlp_norm(checkpoint_, layer);
    const MlpModules mlp = mlp_modules(checkpoint_, layer);
    for (const std::string& module : mlp.readers) reads_stream(module + ".weight", weight(second));
    change(second).ones = true;
    for (const auto& [up, down] : mlp.pairs) writes_stream(down);
  }

  const Checkpoint& checkpoint_;
  checkpoint::ModelConfig config_;
  int stream_ = 0, head_ = 0;  // sizes of the rotations
  Rewriting result_;
};

}  // namespace

Rewriting hadamard(const Checkpoint& checkpoint) { return Rotator(checkpoint).run(); }

}  // namespace lowp::quant
