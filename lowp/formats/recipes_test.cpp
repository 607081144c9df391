#include "lowp/formats/recipes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lowp/base/error.h"

namespace lowp::formats {
namespace {

TEST(Recipes, EveryPromisedNameExists) {
  std::vector<std::string> names = {"fp8-fp8",
                                    "fp8_tensor-fp8_tensor",
                                    "fp8_block128-fp8_group128",
                                    "fp8_tensor-fp8_static",
                                    "fp8-bf16",
                                    "int8-int8",
                                    "int8-int8_static",
                                    "int8-int8_asym",
                                    "int8-bf16",
                                    "int4_g32-int8",
                                    "int4_g32-int8_g32",
                                    "int8_g32-int8_g32",
                                    "int4_g128_sym8-fp8",
                                    "mxfp8-mxfp8",
                                    "mxfp8-bf16",
                                    "mxfp6-mxfp6",
                                    "mxfp6-bf16",
                                    "mxfp6_e3m2-mxfp6_e3m2",
                                    "mxfp6_e3m2-bf16",
                                    "mxfp4-mxfp4",
                                    "mxfp4-bf16",
                                    "mxfp4-mxfp8",
                                    "mxfp4-fp8",
                                    "mxfp4-int8",
                                    "mxfp4-int8_g32",
                                    "nvfp4-nvfp4",
                                    "nvfp4-nvfp4_tensor",
                                    "nvfp4-nvfp4_static",
                                    "nvfp4_single-nvfp4_single",
                                    "nvfp4-bf16",
                                    "nvfp4-int8",
                                    "nvfp4-int8_g32",
                                    "codebook4_g64-bf16",
                                    "bf16"};
  for (const char* group : {"32", "64", "128", "256"}) {
    names.push_back(fmt::format("int4_g{}_float-bf16", group));
    for (int bits = 1; bits <= 8; ++bits)
      for (const char* asym : {"", "_asym"}) {
        names.push_back(fmt::format("int{}_g{}{}-bf16", bits, group, asym));
        names.push_back(fmt::format("int{}_g{}{}-int8_asym", bits, group, asym));
        names.push_back(fmt::format("int{}_channel{}-bf16", bits, asym));
      }
  }
  const std::vector<std::string> listed = recipe_names();
  for (const std::string& name : names) {
    EXPECT_EQ(recipe(name).name, name);
    EXPECT_NE(std::find(listed.begin(), listed.end(), name), listed.end()) << name;
  }
}

TEST(Recipes, EveryListedNameResolvesToItself) {
  for (const std::string& name : recipe_names()) EXPECT_EQ(recipe(name).name, name);
  for (const std::string& name : demo_recipe_names()) EXPECT_EQ(recipe(name).name, name);
}

TEST(Recipes, Aliases) {
  EXPECT_EQ(recipe("int4").name, "int4_g128-bf16");
  EXPECT_EQ(recipe("int4-fp8").name, "int4_g128_sym8-fp8");
  EXPECT_EQ(recipe("nvfp4").name, "nvfp4-nvfp4");
  EXPECT_EQ(recipe("mxfp6_e2m3-bf16").name, "mxfp6-bf16");
  EXPECT_EQ(recipe("mxfp6_e2m3-mxfp6_e2m3").name, "mxfp6-mxfp6");
}

TEST(Recipes, Scopes) {
  EXPECT_EQ(recipe("nvfp4-nvfp4").activation->scope, Scope::token);
  EXPECT_EQ(recipe("nvfp4-nvfp4_tensor").activation->scope, Scope::tensor);
  EXPECT_EQ(recipe("nvfp4-nvfp4_tensor").activation->format.name, "nvfp4");
  EXPECT_EQ(recipe("fp8_tensor-fp8_tensor").activation->scope, Scope::tensor);
  EXPECT_EQ(recipe("int8-int8_static").activation->scope, Scope::calibrated);
  EXPECT_EQ(recipe("mxfp4-mxfp8").activation->scope, Scope::token);
  EXPECT_FALSE(recipe("mxfp4-bf16").activation);
  EXPECT_TRUE(recipe("bf16").keeps());
}

TEST(Recipes, UnknownNamesSuggest) {
  const auto message = [](const std::string& name) {
    try {
      recipe(name);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message("mxfp8-mxfp9").find("did you mean 'mxfp8-mxfp8'"), std::string::npos) << message("mxfp8-mxfp9");
  EXPECT_NE(message("itn4").find("did you mean 'int4'"), std::string::npos);
  for (const char* name : {"", "-", "fp8-", "-fp8", "int8-mxfp4", "bf16-bf16", "fp8_static-bf16", "int8_asym-bf16",
                           "fp8_block128-fp8_block128"})
    EXPECT_NE(message(name), "") << name;
}

}  // namespace
}  // namespace lowp::formats
