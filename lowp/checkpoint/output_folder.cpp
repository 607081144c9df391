#include "lowp/checkpoint/output_folder.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "lowp/base/error.h"
#include "lowp/base/partial.h"

namespace lowp::checkpoint {
namespace fs = std::filesystem;
namespace {

// What --overwrite may remove: an empty folder, or one with tensors or a config.
bool looks_like_model(const fs::path& folder) {
  std::error_code ignored;
  if (fs::is_empty(folder, ignored) || fs::exists(folder / "config.json", ignored)) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".safetensors") return true;
  return false;
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path, bool overwrite) {
  fs::path target = fs::path(path);
  if (!target.has_filename()) target = target.parent_path();  // a trailing slash
  if (target.filename().empty() || target.filename() == "." || target.filename() == "..")
    fail(ErrorCode::usage, "'{}' does not name an output folder", path);
  path_ = target.string();
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (fs::exists(status)) {
    if (!overwrite) fail(ErrorCode::io, "{}: exists already; --overwrite replaces it", path_);
    if (!fs::is_directory(status)) fail(ErrorCode::io, "{}: exists and is not a folder", path_);
    if (!looks_like_model(target))
      fail(ErrorCode::io, "{}: is not a model folder, so --overwrite does not remove it", path_);
  }
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (!fs::is_directory(parent, error)) fail(ErrorCode::io, "{}: the folder {} does not exist", path_, parent.string());
  partial_ = claim_partial(path_);
  if (!fs::create_directory(partial_, error)) fail(ErrorCode::io, "{}: cannot create: {}", partial_, error.message());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
}

void OutputFolder::commit() {
  std::error_code error;
  if (fs::exists(path_, error)) {
    if (::renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0)
      fail(ErrorCode::io, "{}: cannot replace: {}", path_, std::strerror(errno));
    fs::remove_all(partial_, error);  // holds the old folder now
  } else if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    fail(ErrorCode::io, "{}: cannot rename the finished folder: {}", path_, std::strerror(errno));
  }
  partial_.clear();
}

}  // namespace lowp::checkpoint
