#include "cli/model_options.h"

#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/base/threads.h"
#include "lowp/base/utf8.h"
#include "lowp/checkpoint/checkpoint.h"

namespace lowp::cli {
namespace fs = std::filesystem;

void add_threads_option(CLI::App& command) {
  command
      .add_option_function<int>("--threads", set_thread_count,
                                "threads that compute; LOWP_THREADS, or the cores this process may use, if not given")
      ->check(CLI::Range(1, kMostThreads));
}

void check_device(const std::string& device) {
  if (device != "cpu" && device != "auto")
    fail(ErrorCode::unsupported, "device '{}': this build has no such device; it has cpu", device);
}

std::string read_prose(const std::string& path) {
  std::string text = read_text(path);
  if (text.empty()) fail(ErrorCode::bad_input, "{}: is empty", path);
  if (const std::size_t at = find_invalid_utf8(text); at != std::string::npos)
    fail(ErrorCode::bad_input, "{}: is not UTF-8: byte {:#04x} at offset {}", path,
         static_cast<unsigned char>(text[at]), at);
  return text;
}

text::Tokenizer load_tokenizer(const std::string& model) {
  fs::path path = checkpoint::resolve_model(model);
  if (!fs::is_directory(path)) path = path.parent_path();
  return text::Tokenizer::from_file((path / "tokenizer.json").string());
}

}  // namespace lowp::cli
