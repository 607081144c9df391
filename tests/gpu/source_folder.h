// Where the models and golden data of the tests lie.
#pragma once

#include <filesystem>
#include <string>

namespace lowp {

/// The working folder where it has them, as on a machine that the test's binary was carried to; else the folder of the
/// sources it was built from.
inline std::string source_folder() { return std::filesystem::exists("models/bookworm-8m") ? "." : LOWP_SOURCE_DIR; }

}  // namespace lowp
