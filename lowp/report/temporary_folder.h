// A folder for as long as an object lives.
#pragma once

#include <string>

namespace lowp::report {

/// Made below the system's folder for temporary files (TMPDIR or /tmp), removed with all it holds by the destructor.
class TemporaryFolder {
 public:
  /// Throws Error(io).
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace lowp::report
