#include "cli/model_options.h"

#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/checkpoint/checkpoint.h"

namespace lowp::cli {
namespace fs = std::filesystem;

void check_device(const std::string& device) {
  if (device != "cpu" && device != "auto")
    fail(ErrorCode::unsupported, "device '{}': this build has no such device; it has cpu", device);
}

text::Tokenizer load_tokenizer(const std::string& model) {
  fs::path path = checkpoint::resolve_model(model);
  if (!fs::is_directory(path)) path = path.parent_path();
  return text::Tokenizer::from_file((path / "tokenizer.json").string());
}

}  // namespace lowp::cli
