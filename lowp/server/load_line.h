// What a server did lately, as one line for people.
#pragma once

#include <string>

#include "lowp/engine/engine.h"

namespace lowp::server {

/// "prompts 512 tok/s, answers 128 tok/s, running 8, waiting 2, keys and values 12 %, prefixes found 40 %" between two
/// looks at the engine `seconds` apart; "" if nothing ran and nothing waits. Tokens of prompts are those that were
/// computed; prefixes count among the prompts' tokens since the first look, and are left out if there were none.
std::string load_line(const engine::Metrics& before, const engine::Metrics& now, double seconds);

}  // namespace lowp::server
