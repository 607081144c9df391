#include "lowp/base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>

#include "lowp/base/error.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

// `action` throws an Error of this kind whose message starts with `start`, the file, and contains `words`, the reason.
void expect_error(ErrorCode code, const std::string& start, const std::string& words,
                  const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).substr(0, start.size()), start);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, words, error.what());
    return;
  }
  ADD_FAILURE() << "no error about " << start;
}

std::size_t entry_count(const TempDir& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()));
}

TEST(MappedFile, HoldsTheBytes) {
  const TempDir folder;
  MappedFile first(folder.write("a", std::string("x\0y", 3)));
  const MappedFile file(std::move(first));
  ASSERT_EQ(file.bytes().size(), 3u);
  EXPECT_EQ(file.bytes()[2], std::byte{'y'});
  file.release(file.bytes());
  EXPECT_EQ(file.bytes()[0], std::byte{'x'});
}

TEST(MappedFile, MayBeEmpty) {
  const TempDir folder;
  const MappedFile file(folder.write("a", ""));
  EXPECT_TRUE(file.bytes().empty());
  file.release(file.bytes());
}

TEST(MappedFile, FollowsLinks) {
  const TempDir folder;
  folder.write("blobs/1", "abc");
  std::filesystem::create_symlink("blobs/1", folder / "a");
  EXPECT_EQ(MappedFile(folder / "a").bytes().size(), 3u);
}

TEST(ReadText, NamesWhatIsMissing) {
  const TempDir folder;
  expect_error(ErrorCode::io, folder / "none", "No such file", [&] { read_text(folder / "none"); });
}

TEST(ReadText, NamesAFolder) {
  const TempDir folder;
  expect_error(ErrorCode::io, folder.path(), "not a regular file", [&] { read_text(folder.path()); });
}

TEST(ReadText, RefusesAPipeAtOnce) {
  const TempDir folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::io, folder / "pipe", "not a regular file", [&] { read_text(folder / "pipe"); });
}

TEST(ReadText, LimitsTheSize) {
  const TempDir folder;
  const std::string path = folder.write("a", "12345");
  EXPECT_EQ(read_text(path, 5), "12345");
  expect_error(ErrorCode::bad_input, path, "5 bytes, at most 4 accepted", [&] { read_text(path, 4); });
}

TEST(FileWriter, CountsWhatItWrites) {
  const TempDir folder;
  FileWriter writer(folder / "a");
  writer.append("abc");
  writer.append(std::string_view());
  writer.append("de");
  EXPECT_EQ(writer.size(), 5u);
  writer.close();
  writer.close();
  EXPECT_EQ(read_text(folder / "a"), "abcde");
}

TEST(FileWriter, ReportsAFullDisk) {
  FileWriter writer("/dev/full");
  expect_error(ErrorCode::io, "/dev/full: ", "No space", [&] { writer.append("abc"); });
}

TEST(FileWriter, NamesWhatItCannotCreate) {
  const TempDir folder;
  expect_error(ErrorCode::io, folder / "none/a", "No such file", [&] { FileWriter writer(folder / "none/a"); });
  expect_error(ErrorCode::io, folder.path(), "directory", [&] { FileWriter writer(folder.path()); });
}

TEST(OutputFile, AppearsOnCommit) {
  const TempDir folder;
  OutputFile file(folder / "a");
  file.writer().append("abc");
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "abc");
  EXPECT_EQ(entry_count(folder), 1u);
}

TEST(OutputFile, LeavesNothingWithoutCommit) {
  const TempDir folder;
  {
    OutputFile file(folder / "a");
    file.writer().append("abc");
    EXPECT_EQ(entry_count(folder), 1u);
  }
  EXPECT_EQ(entry_count(folder), 0u);
}

TEST(OutputFile, KeepsTheOldFileWithoutCommit) {
  const TempDir folder;
  folder.write("a", "old");
  { OutputFile(folder / "a").writer().append("new"); }
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(entry_count(folder), 1u);
}

TEST(OutputFile, ReplacesTheOldFileOnCommit) {
  const TempDir folder;
  folder.write("a", "old file");
  const MappedFile before(folder / "a");
  OutputFile file(folder / "a");
  file.writer().append("new");
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "new");
  EXPECT_EQ(before.bytes()[0], std::byte{'o'}) << "who has mapped the old file keeps it";
}

TEST(OutputFile, LeavesNothingWhenTheNameIsTaken) {
  const TempDir folder;
  folder.write("a/b", "");
  {
    OutputFile file(folder / "a");
    expect_error(ErrorCode::io, folder / "a", "cannot rename", [&] { file.commit(); });
  }
  EXPECT_EQ(entry_count(folder), 1u);
}

}  // namespace
}  // namespace lowp
