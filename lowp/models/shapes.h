// The shapes of well-known models, for measuring without their files.   <- ADD SHAPES in shapes.cpp
#pragma once

#include <string>
#include <vector>

#include "lowp/models/config.h"

namespace lowp::models {

std::vector<std::string> shape_names();

/// The configuration of a model by name, "llama-3.2-1b". Throws Error(usage) naming the nearest.
Config shape(const std::string& name);

}  // namespace lowp::models
