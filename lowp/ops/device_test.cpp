#include "lowp/ops/device.h"

#include <gtest/gtest.h>

#include "lowp/base/error.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::ops {
namespace {

TEST(Device, NamesWhatThereIs) {
  EXPECT_EQ(choose_device("cpu").name(), "cpu");
  EXPECT_EQ(choose_device("auto").name(), kernels::cuda::devices().empty() ? "cpu" : "cuda:0");
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "cuda:99", "cuda:99999999999"})
    EXPECT_THROW(choose_device(wrong), Error) << wrong;
}

TEST(Device, SaysWhyThereIsNone) {
  if (!kernels::cuda::devices().empty()) GTEST_SKIP() << "skipped: there is one";
  try {
    choose_device("cuda");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(kernels::cuda::why_none()), std::string::npos) << error.what();
    EXPECT_EQ(error.code(), ErrorCode::usage);
  }
}

}  // namespace
}  // namespace lowp::ops
