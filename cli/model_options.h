// Options that commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "lowp/base/json.h"
#include "lowp/engine/generation_config.h"
#include "lowp/models/model.h"
#include "lowp/text/chat_template.h"
#include "lowp/text/tokenizer.h"

namespace lowp::cli {

/// --threads N, for every command that computes.
void add_threads_option(CLI::App& command);

/// How a model is loaded and run.
struct ModelOptions {
  std::string recipe = "bf16", compute = "bf16", kv_cache = "auto", head = "bf16", device = "auto", invariance = "none",
              operands = "rebased", attention = "bf16";
};
/// --compute and --head: what the weights depend on.
void add_weight_options(CLI::App& command, ModelOptions& options);
/// --recipe: of a checkpoint of floats, quantized while it loads.
void add_recipe_option(CLI::App& command, ModelOptions& options);
/// All of them.
void add_model_options(CLI::App& command, ModelOptions& options);
/// Throws Error(usage) for a head that is no recipe and a device that is not there.
models::LoadOptions load_options(const ModelOptions& options);

/// --max-num-batched-tokens, and what it is unless given.
void add_step_tokens(CLI::App& command, std::optional<std::int64_t>& tokens);
std::int64_t step_tokens(const ops::Device& device);

/// For what only the CPU does: "auto" and "cpu" pass; anything else is an Error(unsupported).
void check_cpu(const std::string& device);

/// "cpu", "NVIDIA H100 (cuda:0)".
std::string device_name(const ops::Device& device);

/// A text for a model to read. Throws Error naming the file if it cannot be read, is empty or is not UTF-8.
std::string read_prose(const std::string& path);

/// The folder that MODEL is in; "" for GGUF, which has everything in it. Throws Error.
std::string model_folder(const std::string& model);
/// Its generation_config.json, and its tokenizer_config.json (null if it has none). Throws Error.
engine::GenerationConfig generation_config(const std::string& model);
Json read_tokenizer_config(const std::string& model);
/// The texts of bos_token, eos_token and so on in a tokenizer_config.json.
Json special_tokens(const Json& tokenizer_config);
/// The chat template in the file `given`, or "plain", or if that is empty the model's own, if it has one. Throws Error.
std::optional<text::ChatTemplate> load_chat_template(const std::string& model, const std::string& given);
/// tokenizer.json of MODEL. Throws Error.
text::Tokenizer load_tokenizer(const std::string& model);

}  // namespace lowp::cli
