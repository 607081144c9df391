// A folder that appears under its name only when it is complete.
#pragma once

#include <string>

namespace lowp::checkpoint {

/// Collects files in NAME.partial-<pid>; commit() renames. The destructor removes what was not committed, and the
/// constructor what killed processes left beside NAME.
class OutputFolder {
 public:
  /// Throws Error(io) if `path` exists (and overwrite is not set) or its parent is not writable.
  OutputFolder(const std::string& path, bool overwrite);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Where to write for now.
  const std::string& partial() const { return partial_; }
  /// Puts the folder in place; an old one is exchanged for it in one step and then removed.
  void commit();

 private:
  std::string path_;
  std::string partial_;
};

}  // namespace lowp::checkpoint
