#include "lowp/models/packed_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "lowp/base/error.h"
#include "lowp/formats/recipes.h"
#include "lowp/ops/cast.h"
#include "tests/temp_dir.h"

namespace lowp::models {
namespace {

namespace fs = std::filesystem;
using formats::Elem;

Tensor random(std::int64_t n, std::int64_t k, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n * k));
  for (float& v : values) v = normal(rng);
  Tensor tensor(DType::bf16, {n, k});
  store_rounded(tensor, 0, values);
  return tensor;
}

class PackedFileTest : public testing::Test {
 protected:
  static constexpr std::int64_t kN = 45, kK = 256;
  TempDir folder;
  const std::string path = folder / "packed";

  static std::string key() { return "key"; }

  // A Linear of each recipe under its name; the first is of bf16 weights.
  static std::vector<std::pair<std::string, ops::Linear>> linears() {
    std::vector<std::pair<std::string, ops::Linear>> all;
    const Tensor weight = random(kN, kK, 1);
    all.emplace_back("bf16", ops::Linear(weight.view(), std::nullopt, Elem::bf16));
    for (const char* name : {"int8-int8", "int4_g32-int8_asym", "int3_g64_asym-bf16", "mxfp4-mxfp4", "nvfp4-bf16",
                             "int4_g128_float-bf16", "fp8-fp8", "codebook4_g64-bf16"}) {
      const formats::Recipe recipe = formats::recipe(name);
      all.emplace_back(name, ops::Linear(ops::quantize(weight.view(), recipe.weight, {}), recipe, std::nullopt,
                                         std::nullopt, Elem::bf16));
    }
    return all;
  }

  static void write(const std::string& to, const std::vector<std::pair<std::string, ops::Linear>>& all) {
    std::vector<std::pair<std::string, const ops::Linear*>> pointers;
    for (const auto& [name, linear] : all) pointers.emplace_back(name, &linear);
    const std::uint64_t bytes = write_packed(to, key(), pointers);
    EXPECT_EQ(bytes, fs::file_size(to));
  }

  static std::vector<float> product(const ops::Linear& linear) {
    const Tensor x = random(3, kK, 2);
    std::vector<float> values(3 * kK), y(3 * kN);
    load_f32(x.view(), 0, 3 * kK, values.data());
    linear.run(values, 3, y);
    return y;
  }
};

TEST_F(PackedFileTest, ProductsAreTheSame) {
  const auto all = linears();
  if (!all[0].second.packed()) GTEST_SKIP() << "skipped: the reference backend packs nothing";
  write(path, all);
  std::unique_ptr<PackedFile> file = PackedFile::open(path, key);
  ASSERT_TRUE(file);
  std::vector<ops::Linear> read;
  for (const auto& [name, linear] : all) {
    std::optional<ops::PackedWeight> weight = file->find(name, kN, kK);
    ASSERT_TRUE(weight) << name;
    const auto recipe = name == "bf16" ? std::nullopt : std::optional(formats::recipe(name));
    read.emplace_back(std::move(*weight), recipe, std::nullopt, std::nullopt, Elem::bf16);
  }
  file.reset();  // the Linears keep what they need
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(product(read[i]), product(all[i].second)) << all[i].first;
}

TEST_F(PackedFileTest, OfAnotherModelOrAbsent) {
  EXPECT_FALSE(PackedFile::open(path, key));
  write(path, linears());
  EXPECT_FALSE(PackedFile::open(path, [] { return "another"; }));
  EXPECT_FALSE(PackedFile::open(path, key)->find("elsewhere", kN, kK));
}

TEST_F(PackedFileTest, DamageIsNamed) {
  const auto all = linears();
  if (!all[0].second.packed()) GTEST_SKIP() << "skipped: the reference backend packs nothing";
  write(path, all);
  EXPECT_THROW(PackedFile::open(path, key)->find("bf16", kN + 1, kK), Error);
  const std::string text = read_text(path);
  const auto refused = [&](const std::string& bytes, const char* word) {
    const std::string damaged = folder / "damaged";
    std::ofstream(damaged, std::ios::binary) << bytes;
    try {
      const auto file = PackedFile::open(damaged, key);
      if (file) file->find("bf16", kN, kK);
      ADD_FAILURE() << word;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::bad_input);
      EXPECT_NE(std::string(e.what()).find(damaged), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  };
  refused(text.substr(0, text.size() - 100), "");
  // The JSON in the metadata is escaped once.
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string copy = text;
    copy.replace(copy.find(from), from.size(), to);
    return copy;
  };
  refused(changed(R"(\"bits\":16)", R"(\"bits\":11)"), "bits");
  refused(changed(R"(\"block\":512)", R"(\"block\":500)"), "block");
  refused(changed("bf16.row_scale", "bf16.row_scalf"), "row_scale");
  refused(changed("lowp_packed", "lowp_qacked"), "lowp_packed");
}

TEST(PackedFields, WhatKernelsCannotReadIsRefused) {
  const auto fields = [] {
    return Json{{"n", 64},          {"k", 64},   {"arithmetic", "int8"}, {"bits", 4}, {"block", 32}, {"scale", "f32"},
                {"offset", "none"}, {"bias", 8}, {"lookup", false}};
  };
  EXPECT_EQ(parse_packed_fields(fields(), "x").data_bytes(), 2 * 2 * (32 * 4 + 32 * 32 / 2) + 1024);
  const std::pair<const char*, Json> wrong[] = {{"n", 0},
                                                {"n", "64"},
                                                {"k", std::int64_t{1} << 62},
                                                {"arithmetic", "int9"},
                                                {"bits", 9},
                                                {"bits", 16},
                                                {"block", 0},
                                                {"block", 48},
                                                {"block", 2048},
                                                {"scale", nullptr},
                                                {"scale", "none"},
                                                {"offset", 3},
                                                {"bias", "8"},
                                                {"lookup", 1}};
  for (const auto& [key, value] : wrong) {
    Json bad = fields();
    bad[key] = value;
    if (std::string(key) == "scale" && value == "none") bad["offset"] = "zero_point";
    EXPECT_THROW(parse_packed_fields(bad, "x"), Error) << key << " " << value;
    bad.erase(key);
    EXPECT_THROW(parse_packed_fields(bad, "x"), Error) << key;
  }
}

}  // namespace
}  // namespace lowp::models
