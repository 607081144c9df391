#include "lowp/base/temporary_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "lowp/base/error.h"
#include "lowp/base/partial.h"

namespace lowp {
namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() {
  std::error_code error;
  path_ = (fs::temp_directory_path(error) / "lowp-XXXXXX").string();
  if (error) fail(ErrorCode::io, "the folder for temporary files (TMPDIR) cannot be used: {}", error.message());
  if (!::mkdtemp(path_.data())) fail(ErrorCode::io, "{}: cannot create: {}", path_, std::strerror(errno));
}

TemporaryFolder::TemporaryFolder(const std::string& output, const std::string& suffix)
    : path_(claim_partial(output + suffix)) {}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace lowp
