#include "lowp/base/temporary_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/temp_dir.h"

namespace lowp {
namespace {

namespace fs = std::filesystem;

TEST(TemporaryFolder, GoesWithItsContents) {
  std::string path;
  {
    const TemporaryFolder folder;
    path = folder.path();
    fs::create_directories(path + "/a/b");
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(TemporaryFolder, BesideAnOutput) {
  const TempDir dir;
  std::string path;
  {
    const TemporaryFolder folder(dir / "model", ".prepared");
    path = folder.path();
    EXPECT_TRUE(path.starts_with(dir / "model.prepared.partial-")) << path;
    EXPECT_FALSE(fs::exists(path));
    fs::create_directories(path);
  }
  EXPECT_FALSE(fs::exists(path));
}

}  // namespace
}  // namespace lowp
