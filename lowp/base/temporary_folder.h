// A folder for as long as an object lives.
#pragma once

#include <string>

namespace lowp {

/// Removed with all it holds by the destructor.
class TemporaryFolder {
 public:
  /// Made below the system's folder for temporary files (TMPDIR or /tmp). Throws Error(io).
  TemporaryFolder();
  /// A name beside `output`, for what may be as large as it: claim_partial(output + suffix). The folder is not made.
  TemporaryFolder(const std::string& output, const std::string& suffix);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace lowp
