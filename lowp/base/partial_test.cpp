#include "lowp/base/partial.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "lowp/base/error.h"
#include "tests/temp_dir.h"

namespace lowp {
namespace {

TEST(ClaimPartial, RemovesWhatKilledProcessesLeft) {
  const TempDir folder;
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ::waitpid(gone, nullptr, 0);
  const std::string file = fmt::format("a.partial-{}", gone), inside = fmt::format("b.partial-{}/c", gone);
  // Of another output, of process 1, which runs, and no name of ours.
  for (const std::string& name : {inside, file, std::string("a.partial-1"), std::string("a.partial-x")})
    folder.write(name, "");
  EXPECT_EQ(claim_partial(folder / "a"), folder / fmt::format("a.partial-{}", ::getpid()));
  EXPECT_FALSE(std::filesystem::exists(folder / file));
  for (const std::string& name : {inside, std::string("a.partial-1"), std::string("a.partial-x")})
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
  claim_partial(folder / "b");
  EXPECT_FALSE(std::filesystem::exists(folder / fmt::format("b.partial-{}", gone)));
}

}  // namespace
}  // namespace lowp
