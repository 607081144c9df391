// What llama.cpp calls the parts of a model, and what Hugging Face calls them (checkpoint-formats 8.6 to 8.8).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/checkpoint/gguf.h"

namespace lowp::checkpoint {

/// An architecture that has a name in both worlds.
struct GgufArchitecture {
  std::string_view gguf, hugging_face, model_type;
  bool has_experts;
  bool interleaved;    // rows of q and k stand in the order of interleaved RoPE
  bool norms_add_one;  // norm weights are stored with their 1 added
  bool output_norms;   // two more norms a layer
};

/// By general.architecture; `experts`: whether there are any. nullptr if there is none.
const GgufArchitecture* find_gguf_architecture(std::string_view gguf, bool experts);
/// By architectures[0] of config.json.
const GgufArchitecture* find_gguf_architecture(std::string_view hugging_face);
/// "llama, qwen2, ...".
std::string gguf_architecture_names();

/// The name in a Hugging Face checkpoint, with "experts" where the tensor stacks them: "blk.3.attn_q.weight" is
/// "model.layers.3.self_attn.q_proj.weight", "blk.3.ffn_up_exps.weight" "model.layers.3.mlp.experts.*.up_proj.weight".
/// nullopt if there is none.
std::optional<std::string> hugging_face_name(const GgufArchitecture& architecture, std::string_view gguf);
/// The inverse, for names of single experts as well; *expert is set to the number in the name, or -1.
std::optional<std::string> gguf_name(const GgufArchitecture& architecture, std::string_view hugging_face,
                                     std::int64_t* expert);

/// Row i of `heads` heads of `rows / heads` rows comes from row source_row() of a matrix in the other order: from
/// interleaved RoPE's pairs (2 i, 2 i + 1) to halves (i, i + d / 2), and back.
std::int64_t halves_from_pairs(std::int64_t row, std::int64_t head_dim);
std::int64_t pairs_from_halves(std::int64_t row, std::int64_t head_dim);

/// Whether the rows of a tensor (by its Hugging Face name) are in another order in GGUF.
bool has_paired_rows(const GgufArchitecture& architecture, std::string_view hugging_face);
/// Whether a tensor (by its Hugging Face name) is a norm's weight that GGUF stores with 1 added.
bool has_added_one(const GgufArchitecture& architecture, std::string_view hugging_face);

}  // namespace lowp::checkpoint
