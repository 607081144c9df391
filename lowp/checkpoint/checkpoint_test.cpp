#include "lowp/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "lowp/base/error.h"
#include "tests/temp_dir.h"

namespace lowp::checkpoint {
namespace {

namespace fs = std::filesystem;

// Sets an environment variable for the life of the object; "" unsets it.
class ScopedEnv {
 public:
  ScopedEnv(std::string name, const std::string& value) : name_(std::move(name)) {
    if (const char* before = std::getenv(name_.c_str())) before_ = before;
    set(value);
  }
  ~ScopedEnv() { set(before_); }

 private:
  void set(const std::string& value) {
    value.empty() ? ::unsetenv(name_.c_str()) : ::setenv(name_.c_str(), value.c_str(), 1);
  }
  std::string name_, before_;
};

// Writes a file in which every tensor is a U8 [1] that holds `value`.
void write_tensors(const TempDir& folder, std::string_view file, const std::vector<std::string>& names, int value = 0,
                   std::map<std::string, std::string> metadata = {}) {
  const std::string path = folder.write(file, "");
  std::vector<TensorEntry> entries;
  for (const auto& name : names) entries.push_back({.name = name, .dtype = DType::u8, .shape = {1}});
  FileWriter out(path);
  SafetensorsWriter writer(out, entries, std::move(metadata));
  for (const auto& name : names) writer.append(name, std::vector{static_cast<std::byte>(value)});
  writer.finish();
  out.close();
}

void write_index(const TempDir& folder, std::string_view weight_map) {
  folder.write("model.safetensors.index.json",
               fmt::format(R"({{"metadata":{{"total_size":99}},"weight_map":{}}})", weight_map));
}

std::string names_of(const Checkpoint& checkpoint) {
  std::string names;
  for (const auto& tensor : checkpoint.tensors()) names += tensor.entry.name + " ";
  return names;
}

int value_of(const Checkpoint& checkpoint, const std::string& name) {
  return std::to_integer<int>(checkpoint.find(name)->view().bytes[0]);
}

void expect_error(ErrorCode code, const std::vector<std::string>& words, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const auto& part : words) EXPECT_PRED_FORMAT2(testing::IsSubstring, part, error.what());
    return;
  }
  ADD_FAILURE() << "no error with " << words[0];
}

TEST(Checkpoint, OpensOneFile) {
  const TempDir folder;
  write_tensors(folder, "x.safetensors", {"b", "a"});
  write_tensors(folder, "y.safetensors", {"c"});
  folder.write("config.json", R"({"model_type": "llama"})");
  const Checkpoint checkpoint(folder / "x.safetensors");
  EXPECT_FALSE(checkpoint.is_folder());
  EXPECT_EQ(names_of(checkpoint), "b a ");
  EXPECT_EQ(checkpoint.config()->at("model_type"), "llama");
  EXPECT_EQ(checkpoint.find("c"), nullptr);
}

TEST(Checkpoint, OpensAFileOfTheCurrentFolder) {
  const TempDir folder;
  write_tensors(folder, "x.safetensors", {"a"});
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  EXPECT_EQ(names_of(Checkpoint("x.safetensors")), "a ");
  EXPECT_EQ(names_of(Checkpoint(".")), "a ");
  fs::current_path(before);
}

TEST(Checkpoint, PrefersTheSingleFile) {
  const TempDir folder;
  write_tensors(folder, "model.safetensors", {"a"});
  write_tensors(folder, "other.safetensors", {"b"});
  const Checkpoint checkpoint(folder.path());
  EXPECT_TRUE(checkpoint.is_folder());
  EXPECT_EQ(names_of(checkpoint), "a ");
  EXPECT_FALSE(checkpoint.config().has_value());
}

TEST(Checkpoint, TakesAllModelFilesInNameOrder) {
  const TempDir folder;
  write_tensors(folder, "z.safetensors", {"a", "c"}, 0, {{"from", "z"}, {"z", "1"}});
  write_tensors(folder, "b.safetensors", {"d", "b"}, 0, {{"from", "b"}});
  for (const char* other : {"consolidated.safetensors", "consolidated.00.safetensors", "adapter_model.safetensors",
                            "optimizer.safetensors", "original/x.safetensors", "._z.safetensors", "x.bin"})
    folder.write(other, "not a tensor file");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(names_of(checkpoint), "d b a c ");
  EXPECT_EQ(checkpoint.metadata().at("from"), "b") << "the first file wins";
  EXPECT_EQ(checkpoint.metadata().at("z"), "1");
  EXPECT_TRUE(checkpoint.warnings().empty());
}

TEST(Checkpoint, RefusesOneNameInTwoFilesWithoutAnIndex) {
  const TempDir folder;
  write_tensors(folder, "a.safetensors", {"x"});
  write_tensors(folder, "b.safetensors", {"x"});
  expect_error(ErrorCode::bad_input, {"tensor 'x'", "a.safetensors", "b.safetensors"},
               [&] { Checkpoint checkpoint(folder.path()); });
}

TEST(Checkpoint, NamesAFolderWithoutAModel) {
  const TempDir folder;
  write_tensors(folder, "adapter_model.safetensors", {"x"});
  expect_error(ErrorCode::io, {folder.path(), "model.safetensors"}, [&] { Checkpoint checkpoint(folder.path()); });
  expect_error(ErrorCode::io, {folder / "none", "No such file"}, [&] { Checkpoint checkpoint(folder / "none"); });
}

TEST(Checkpoint, FollowsTheIndex) {
  const TempDir folder;
  write_tensors(folder, "m-00000-of-00002.safetensors", {"c", "a"}, 1);
  write_tensors(folder, "m-00001-of-00002.safetensors", {"b"}, 2);
  write_tensors(folder, "model.safetensors", {"stale"}, 3);
  write_index(folder, R"({"a":"m-00000-of-00002.safetensors","b":"m-00001-of-00002.safetensors",
                          "c":"m-00000-of-00002.safetensors"})");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(names_of(checkpoint), "c a b ");
  EXPECT_EQ(value_of(checkpoint, "b"), 2);
  EXPECT_TRUE(checkpoint.warnings().empty());
}

TEST(Checkpoint, IndexDecidesBetweenTwoCopies) {
  const TempDir folder;
  write_tensors(folder, "1.safetensors", {"a", "b"}, 1);
  write_tensors(folder, "2.safetensors", {"a", "c"}, 2);
  write_index(folder, R"({"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors"})");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(value_of(checkpoint, "a"), 2);
  EXPECT_EQ(names_of(checkpoint), "b a c ");
  ASSERT_EQ(checkpoint.warnings().size(), 1u);
  EXPECT_EQ(checkpoint.warnings()[0], "1.safetensors: ignored 1 tensors that the index assigns to another file: 'a'");
}

TEST(Checkpoint, WarnsOfUnlistedTensors) {
  const TempDir folder;
  write_tensors(folder, "1.safetensors", {"a", "u1", "u2", "u3", "u4", "u5"});
  write_index(folder, R"({"a":"1.safetensors"})");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(names_of(checkpoint), "a ");
  ASSERT_EQ(checkpoint.warnings().size(), 1u);
  EXPECT_EQ(checkpoint.warnings()[0],
            "1.safetensors: ignored 5 tensors that the index does not list: 'u1', 'u2', 'u3' and 2 more");
}

TEST(Checkpoint, FollowsLinks) {
  const TempDir folder;
  write_tensors(folder, "blobs/1", {"a"}, 5);
  folder.write("blobs/2", R"({"model_type": "x"})");
  folder.write("blobs/3", R"({"weight_map": {"a": "1.safetensors"}})");
  fs::create_directories(folder / "snapshots/r");
  fs::create_symlink("../../blobs/1", folder / "snapshots/r/1.safetensors");
  fs::create_symlink("../../blobs/2", folder / "snapshots/r/config.json");
  fs::create_symlink("../../blobs/3", folder / "snapshots/r/model.safetensors.index.json");
  const Checkpoint checkpoint(folder / "snapshots/r");
  EXPECT_EQ(value_of(checkpoint, "a"), 5);
  EXPECT_TRUE(checkpoint.config().has_value());
}

TEST(Checkpoint, DoesNotDoWithoutWhatALinkPromises) {
  const TempDir folder;
  write_tensors(folder, "model.safetensors", {"a"});
  fs::create_symlink("gone", folder / "config.json");
  expect_error(ErrorCode::io, {folder / "config.json"}, [&] { Checkpoint checkpoint(folder.path()); });
  fs::create_symlink("gone", folder / "model.safetensors.index.json");
  expect_error(ErrorCode::io, {"index.json", "No such file"}, [&] { Checkpoint checkpoint(folder.path()); });
}

struct RejectedIndex {
  const char* name;
  ErrorCode code;
  std::string weight_map;
  std::vector<std::string> words;
};

class CheckpointRejectsIndex : public testing::TestWithParam<RejectedIndex> {};

TEST_P(CheckpointRejectsIndex, WeightMap) {
  const TempDir folder;
  write_tensors(folder, "1.safetensors", {"a"});
  write_tensors(folder, "sub/2.safetensors", {"b"});
  write_index(folder, GetParam().weight_map);
  std::vector<std::string> words = GetParam().words;
  words.push_back(folder / "model.safetensors.index.json: ");
  expect_error(GetParam().code, words, [&] { Checkpoint checkpoint(folder.path()); });
}

constexpr ErrorCode kBad = ErrorCode::bad_input;

INSTANTIATE_TEST_SUITE_P(
    All, CheckpointRejectsIndex,
    testing::ValuesIn(std::vector<RejectedIndex>{
        {"not_object", kBad, "[]", {"an object 'weight_map'"}},
        {"empty", kBad, "{}", {"'weight_map' is empty"}},
        {"file_not_string", kBad, R"({"a":1})", {"tensor 'a'", "expected a file name, found '1'"}},
        {"missing_shard",
         ErrorCode::io,
         R"({"a":"1.safetensors","b":"2.safetensors"})",
         {"tensor 'b'", "'2.safetensors'"}},
        {"missing_tensor",
         kBad,
         R"({"a":"1.safetensors","b":"1.safetensors"})",
         {"tensor 'b' is not in '1.safetensors'"}},
        {"duplicate_tensor", kBad, R"({"a":"1.safetensors","a":"1.safetensors"})", {"duplicate JSON key 'a'"}},
        {"subfolder",
         kBad,
         R"({"b":"sub/2.safetensors"})",
         {"tensor 'b'", "'sub/2.safetensors' contains a path separator"}},
        {"absolute", kBad, R"({"a":"/etc/passwd"})", {"'/etc/passwd' contains a path separator"}},
        {"parent", kBad, R"({"a":"../1.safetensors"})", {"'../1.safetensors' contains a path separator"}},
        {"parent_itself", kBad, R"({"a":".."})", {"'..' is a folder"}},
        {"folder_itself", kBad, R"({"a":"."})", {"'.' is a folder"}},
        {"backslash", kBad, R"({"a":"..\\1.safetensors"})", {"contains a path separator"}},
        {"nul", kBad, R"({"a":"1.safetensors\u0000x"})", {"'1.safetensors?x' contains a control character"}},
        {"control", kBad, R"({"a":"1\n.safetensors"})", {"contains a control character"}},
        {"empty_name", kBad, R"({"a":""})", {"the file name '' is empty"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST(Checkpoint, RefusesAnIndexWithoutMap) {
  const TempDir folder;
  for (const char* text : {"{}", "[]", "7"}) {
    folder.write("model.safetensors.index.json", text);
    expect_error(kBad, {"an object 'weight_map'"}, [&] { Checkpoint checkpoint(folder.path()); });
  }
}

TEST(Checkpoint, RefusesABadShardByName) {
  const TempDir folder;
  folder.write("1.safetensors", "short");
  write_index(folder, R"({"a":"1.safetensors"})");
  expect_error(kBad, {folder / "1.safetensors: 5 bytes"}, [&] { Checkpoint checkpoint(folder.path()); });
}

TEST(Checkpoint, RefusesAConfigThatIsNoObject) {
  const TempDir folder;
  write_tensors(folder, "model.safetensors", {"a"});
  folder.write("config.json", "[]");
  expect_error(kBad, {folder / "config.json", "expected a JSON object, found '[]'"},
               [&] { Checkpoint checkpoint(folder.path()); });
}

// A Hugging Face cache with one model, org/name, at revision 0123abcd.
class ResolveModel : public testing::Test {
 protected:
  ResolveModel() {
    cache_.write("hub/models--org--name/refs/main", "0123abcd\n");
    cache_.write("hub/models--org--name/snapshots/0123abcd/config.json", "{}");
  }
  void expect_refusal(const std::string& model, const std::vector<std::string>& words, ErrorCode code = ErrorCode::io) {
    expect_error(code, words, [&] { resolve_model(model); });
  }

  TempDir cache_;
  const std::string snapshot_ = cache_ / "hub/models--org--name/snapshots/0123abcd";
  ScopedEnv home_{"HOME", "/nonexistent"}, hf_home_{"HF_HOME", ""}, hub_{"HF_HUB_CACHE", ""},
      xdg_{"XDG_CACHE_HOME", ""};
};

TEST_F(ResolveModel, TakesPathsAsTheyAre) {
  EXPECT_EQ(resolve_model(cache_.path()), cache_.path());
  EXPECT_EQ(resolve_model(snapshot_ + "/config.json"), snapshot_ + "/config.json");
}

TEST_F(ResolveModel, LooksIntoTheHubCache) {
  const ScopedEnv hub("HF_HUB_CACHE", cache_ / "hub"), home("HF_HOME", "/nonexistent");
  EXPECT_EQ(resolve_model("org/name"), snapshot_);
}

TEST_F(ResolveModel, LooksIntoHfHome) {
  const ScopedEnv home("HF_HOME", cache_.path());
  EXPECT_EQ(resolve_model("org/name"), snapshot_);
}

TEST_F(ResolveModel, LooksIntoTheHomeFolder) {
  const ScopedEnv home("HOME", cache_.path());
  fs::create_directories(cache_ / ".cache/huggingface");
  fs::create_directory_symlink(cache_ / "hub", cache_ / ".cache/huggingface/hub");
  EXPECT_EQ(resolve_model("org/name"), cache_ / ".cache/huggingface/hub/models--org--name/snapshots/0123abcd");
}

TEST_F(ResolveModel, LooksIntoTheCacheOfTheDesktop) {
  const ScopedEnv xdg("XDG_CACHE_HOME", cache_.path());
  fs::create_directories(cache_ / "huggingface");
  fs::create_directory_symlink(cache_ / "hub", cache_ / "huggingface/hub");
  EXPECT_EQ(resolve_model("org/name"), cache_ / "huggingface/hub/models--org--name/snapshots/0123abcd");
}

TEST_F(ResolveModel, SaysWhereItLooked) {
  const ScopedEnv home("HF_HOME", cache_.path());
  expect_refusal("org/other", {"org/other: no such file or folder", cache_ / "hub/models--org--other"});
  for (const char* path : {"nothing", "/no/such", "a/b/c", "../x", "org/..", "org/", "", "org/na me"})
    expect_refusal(path, {"no such file or folder, and not an org/name"});
}

TEST_F(ResolveModel, NamesWhatTheCacheLacks) {
  const ScopedEnv home("HF_HOME", cache_.path());
  cache_.write("hub/models--org--name/refs/main", "ffff");
  expect_refusal("org/name", {"refs/main names a snapshot that is not there", "snapshots/ffff"});
  cache_.write("hub/models--org--name/refs/main", "../../../evil");
  expect_refusal("org/name", {"refs/main: expected the name of a snapshot, found '../../../evil'"}, kBad);
  fs::remove(cache_ / "hub/models--org--name/refs/main");
  expect_refusal("org/name", {"has no main revision", "models--org--name/refs/main"});
}

}  // namespace
}  // namespace lowp::checkpoint
