#include "lowp/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace lowp {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  std::fprintf(stderr, "lowp: broken promise at %s:%d: %s: %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace lowp
