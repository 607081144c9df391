// Errors: broken promises of ours (LOWP_CHECK) and a world that is not as asked (Error).
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace lowp {

/// The kind of failure; maps to an exit code in the command line and to an HTTP status in the server.
enum class ErrorCode {
  usage,        ///< the caller asked for something that does not exist or does not fit together
  bad_input,    ///< a file or tensor is not what it claims to be
  unsupported,  ///< valid, but outside what lowp does
  io,           ///< the operating system refused
};

/// The world is not as asked. Thrown only while loading, planning or starting; the text names the file, the tensor,
/// what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message) : std::runtime_error(std::move(message)), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);

}  // namespace lowp

/// A promise of ours: always on, aborts with the values. Never reachable by user input.
#define LOWP_CHECK(condition, ...)                                                                    \
  do {                                                                                                \
    if (!(condition)) ::lowp::check_failed(#condition, __FILE__, __LINE__, fmt::format(__VA_ARGS__)); \
  } while (false)
