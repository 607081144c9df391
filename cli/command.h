// The commands of `lowp`: each file cmd_*.cpp adds one.   <- ADD A COMMAND
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace lowp::cli {

/// A count on the command line. (The message of CLI::PositiveNumber spells the largest double in all its digits.)
inline const CLI::Range kAtLeastOne(std::int64_t{1}, std::int64_t{1} << 31);

void add_bench(CLI::App& app);
void add_cast(CLI::App& app);
void add_chat(CLI::App& app);
void add_convert(CLI::App& app);
void add_env(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_inspect(CLI::App& app);
void add_pack(CLI::App& app);
void add_quantize(CLI::App& app);
void add_recipes(CLI::App& app);
void add_report(CLI::App& app);
void add_roofline(CLI::App& app);
void add_serve(CLI::App& app);
void add_tune(CLI::App& app);

/// `lowp bench serve`, `throughput` and `latency`.
void add_serving_benches(CLI::App& bench);

}  // namespace lowp::cli
