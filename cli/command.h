// The commands of `lowp`: each file cmd_*.cpp adds one.   <- ADD A COMMAND
#pragma once

#include <CLI/CLI.hpp>

namespace lowp::cli {

void add_cast(CLI::App& app);
void add_chat(CLI::App& app);
void add_env(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_inspect(CLI::App& app);
void add_quantize(CLI::App& app);
void add_recipes(CLI::App& app);
void add_report(CLI::App& app);

}  // namespace lowp::cli
