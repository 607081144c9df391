#include "lowp/formats/block.h"

#include <gtest/gtest.h>

#include "lowp/base/error.h"

namespace lowp::formats {
namespace {

TEST(Block, EveryListedNameResolvesToItself) {
  for (const std::string& name : block_format_names()) {
    const auto format = find_block_format(name);
    ASSERT_TRUE(format) << name;
    EXPECT_EQ(format->name, name);
  }
}

TEST(Block, RowsAreConsistent) {
  for (const BlockRow& row : block_rows()) {
    EXPECT_FALSE(row.meaning.empty()) << row.pattern;
    EXPECT_EQ(row.spec.zero_point == ZeroPoint::integer, row.spec.rule == Rule::asymmetric) << row.pattern;
    EXPECT_EQ(row.spec.rule == Rule::mx, row.spec.scale == Elem::e8m0) << row.pattern;
    const bool nvfp4 = row.spec.rule == Rule::nvfp4 || row.spec.rule == Rule::nvfp4_training;
    EXPECT_EQ(nvfp4, row.spec.scale == Elem::e4m3) << row.pattern;
    // What the arithmetic of each rule takes for granted.
    const ElementFormat& element = info(row.spec.element);
    switch (row.spec.rule) {
      case Rule::nvfp4:
      case Rule::nvfp4_training:
        EXPECT_EQ(row.spec.element, Elem::e2m1) << row.pattern;
        break;
      case Rule::float8:
        EXPECT_TRUE(element.is_float() && row.spec.scale == Elem::f32) << row.pattern;
        break;
      case Rule::symmetric:
      case Rule::asymmetric:
      case Rule::absmax:
        EXPECT_TRUE(!element.is_float() && element.is_signed) << row.pattern;
        break;
      case Rule::tinygemm:
      case Rule::bias:
      case Rule::shift:
        EXPECT_TRUE(!element.is_float() && !element.is_signed) << row.pattern;
        break;
      case Rule::sym8:
        EXPECT_EQ(row.spec.element, Elem::int4) << row.pattern;
        break;
      case Rule::codebook:
        EXPECT_EQ(row.spec.element, Elem::uint4) << row.pattern;
        break;
      case Rule::plain:
      case Rule::mx:
        break;
    }
    EXPECT_TRUE(!row.calibrated || row.use == Use::activation) << row.pattern;
  }
}

TEST(Block, Families) {
  const BlockFormat asym = block_format("int3_g64_asym");
  EXPECT_EQ(asym.element, Elem::int3);
  EXPECT_EQ(asym.group_cols, 64);
  EXPECT_EQ(asym.zero_point, ZeroPoint::integer);
  const BlockFormat channel = block_format("int5_channel");
  EXPECT_EQ(channel.group_cols, 0);
  EXPECT_EQ(channel.scale_cols(256), 1);
  EXPECT_TRUE(block_format("int4_g64_float_hqq").hqq);
  EXPECT_EQ(block_format("int4_g64_float").element, Elem::uint4);
  EXPECT_EQ(block_format("mxfp6_e2m3").name, "mxfp6");
  // A fixed row wins over the family: torchao's Int8Tensor keeps f32 scales, its intx the input's dtype.
  EXPECT_FALSE(block_format("int8_g32").scale_in_input_dtype);
  EXPECT_TRUE(block_format("int8_g64").scale_in_input_dtype);
}

TEST(Block, UnknownNames) {
  for (const char* name : {"", "mxfp5", "int9_g32", "int0_g32", "int4_g0", "int4_g032", "int4_g-1", "int4_g99999999999",
                           "int4_g32x", "int8_g", "e8m1"})
    EXPECT_FALSE(find_block_format(name)) << name;
  try {
    block_format("mxpf8");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    EXPECT_NE(std::string(error.what()).find("did you mean 'mxfp8'"), std::string::npos) << error.what();
  }
}

TEST(Block, Misfits) {
  EXPECT_EQ(misfit(block_format("mxfp8"), 3, 64), "");
  EXPECT_EQ(misfit(block_format("mxfp8"), 3, 100), "K = 100 is not divisible by the group size 32 of mxfp8");
  EXPECT_EQ(misfit(block_format("fp8_block128"), 130, 256), "");  // the last block of rows may be partial
  EXPECT_NE(misfit(block_format("fp8_block128"), 128, 200), "");
  EXPECT_NE(misfit(block_format("e2m1"), 1, 3), "");
  EXPECT_EQ(misfit(block_format("q4_k"), 1, 320),
            "K = 320 is not divisible by the 256 values of a super-block of q4_k");
  EXPECT_NE(misfit(block_format("fp8"), 0, 8), "");
}

TEST(Block, BitsPerWeight) {
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("mxfp4"), 256, 256, Elem::bf16), 4.25);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("int4_g128"), 256, 256, Elem::bf16), 4.125);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("int4_g32_asym"), 256, 256, Elem::bf16), 4.625);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("fp8"), 256, 256, Elem::bf16), 8.125);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("q8_0"), 256, 256, Elem::bf16), 8.5);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("q4_k"), 256, 256, Elem::bf16), 4.5);
  EXPECT_DOUBLE_EQ(bits_per_weight(block_format("q6_k"), 256, 256, Elem::bf16), 6.5625);
}

}  // namespace
}  // namespace lowp::formats
