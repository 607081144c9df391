// config.json of a model that is in GGUF, and GGUF's metadata of a model that has a config.json.
#pragma once

#include <functional>
#include <span>

#include "lowp/checkpoint/gguf_architectures.h"

namespace lowp::checkpoint {

/// What the tensors say that the metadata does not.
struct GgufTensorFacts {
  std::int64_t vocab_size = 0;        // rows of the embedding
  bool tied = false;                  // there is no output.weight
  bool attention_bias = false;        // attn_q.bias and attn_output.bias are there
  std::span<const float> rope_freqs;  // what each frequency is divided by; empty: nothing
};

/// The config.json that Hugging Face would have. Throws Error(bad_input) for a key that is missing or of another kind,
/// Error(unsupported) for a RoPE scaling that has no name there.
Json config_from_gguf(const GgufMetadata& metadata, const GgufArchitecture& architecture, const GgufTensorFacts& facts);

/// Adds the keys of an architecture to `out`: what config_from_gguf() reads. `where` names the config in messages.
/// Throws Error(unsupported) for what has no key.
void config_to_gguf(const Json& config, const std::string& where, const GgufArchitecture& architecture,
                    std::map<std::string, GgufValue, std::less<>>& out);

/// rope_freqs.weight of a config with llama3 scaling, else nothing.
std::vector<float> rope_freqs_of(const Json& config, std::int64_t head_dim);

}  // namespace lowp::checkpoint
