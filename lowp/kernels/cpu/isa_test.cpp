#include "lowp/kernels/cpu/isa.h"

#include <gtest/gtest.h>

#include <set>

#include "lowp/base/error.h"

namespace lowp::kernels::cpu {
namespace {

TEST(Isa, EveryMachineRunsThePortableLevel) { EXPECT_TRUE(runs(Isa::portable)); }

TEST(Isa, LevelsBuildOnEachOther) {
  if (runs(Isa::avx2_vnni) || runs(Isa::avx512)) EXPECT_TRUE(runs(Isa::avx2));
  if (runs(Isa::avx512_bf16)) EXPECT_TRUE(runs(Isa::avx512));
  if (runs(Isa::amx)) EXPECT_TRUE(runs(Isa::avx512_bf16));
}

TEST(Isa, NamesAreDistinct) {
  std::set<std::string_view> names;
  for (const Isa level : isa_levels()) names.insert(name(level));
  EXPECT_EQ(names.size(), isa_levels().size());
}

TEST(IsaDeathTest, ForcedLevelIsTakenOrRefusedWithTheChoices) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto outcome = [](const char* level) {
    ::setenv("LOWP_FORCE_ISA", level, 1);
    try {
      std::fprintf(stderr, "took %s", std::string(name(isa())).c_str());
    } catch (const Error& e) {
      std::fprintf(stderr, "%s", e.what());
    }
    std::exit(0);
  };
  EXPECT_EXIT(outcome("portable"), testing::ExitedWithCode(0), "took portable");
  EXPECT_EXIT(outcome("sse9"), testing::ExitedWithCode(0), "LOWP_FORCE_ISA: expected one of portable, avx2.*'sse9'");
}

}  // namespace
}  // namespace lowp::kernels::cpu
