// The name of output that is not complete yet.
#pragma once

#include <string>

namespace lowp {

/// Where an output of this process lies until it is complete: NAME.partial-<pid>, beside NAME. What processes that are
/// gone have left under such names, files and folders, is removed.
std::string claim_partial(const std::string& path);

}  // namespace lowp
