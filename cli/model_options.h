// Options that commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "lowp/text/tokenizer.h"

namespace lowp::cli {

/// --threads N, for every command that computes.
void add_threads_option(CLI::App& command);

/// "auto" and "cpu" pass; anything else is an Error saying what this build has.
void check_device(const std::string& device);

/// A text for a model to read. Throws Error naming the file if it cannot be read, is empty or is not UTF-8.
std::string read_prose(const std::string& path);

/// tokenizer.json of MODEL. Throws Error.
text::Tokenizer load_tokenizer(const std::string& model);

}  // namespace lowp::cli
