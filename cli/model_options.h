// Options that commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::cli {

/// --threads N, for every command that computes.
void add_threads_option(CLI::App& command);

/// How a model is loaded and run.
struct ModelOptions {
  std::string compute = "bf16", kv_cache = "auto", head = "bf16", device = "auto";
};
void add_model_options(CLI::App& command, ModelOptions& options);
/// Throws Error(usage) for a head that is no recipe.
models::LoadOptions load_options(const ModelOptions& options);

/// "auto" and "cpu" pass; anything else is an Error saying what this build has.
void check_device(const std::string& device);

/// A text for a model to read. Throws Error naming the file if it cannot be read, is empty or is not UTF-8.
std::string read_prose(const std::string& path);

/// tokenizer.json of MODEL. Throws Error.
text::Tokenizer load_tokenizer(const std::string& model);

}  // namespace lowp::cli
