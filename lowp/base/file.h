// Files: mapped input, whole small files, and output that appears only when it is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lowp {

/// Reads a whole file. Throws Error(io) with the path and the system's reason, Error(bad_input) beyond max_bytes.
std::string read_text(const std::string& path, std::size_t max_bytes = std::size_t{256} << 20);

/// A read-only mapping of a regular file; the size is taken once from the open file.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  /// Tells the kernel that these pages are no longer needed, so that resident memory stays small while streaming.
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Writes at given offsets of a new file. Throws Error(io). The name given should be temporary: see OutputFile.
class FileWriter {
 public:
  explicit FileWriter(const std::string& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text.data(), text.size()))); }
  std::uint64_t size() const { return size_; }
  /// Flushes to the disk and closes; throws what the system reports late.
  void close();

 private:
  std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

/// A file that appears under its name only when commit() is called; the temporary is removed otherwise.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  FileWriter& writer() { return writer_; }
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  FileWriter writer_;
  bool committed_ = false;
};

}  // namespace lowp
