#include "lowp/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "tests/temp_dir.h"

namespace lowp::checkpoint {
namespace {

// A file: any length, header text, data.
std::string raw_file(std::uint64_t length, std::string_view header, std::string_view data = "") {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(header).append(data);
}

// A file whose length field is right and whose data buffer has this many bytes.
std::string file_of(std::string_view header, std::size_t data_bytes = 0) {
  return raw_file(header.size(), header, std::string(data_bytes, '\x5A'));
}

// A file of one tensor 'a'.
std::string one_tensor(std::string_view dtype, std::string_view shape, std::string_view offsets,
                       std::size_t data_bytes = 0) {
  return file_of(fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets),
                 data_bytes);
}

SafetensorsHeader parse(const std::string& file) { return parse_safetensors(std::as_bytes(std::span(file)), "m.st"); }

struct Rejected {
  const char* name;
  std::string file;
  std::string words;  // of the message
};

class SafetensorsReaderRejects : public testing::TestWithParam<Rejected> {};

TEST_P(SafetensorsReaderRejects, File) {
  try {
    parse(GetParam().file);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_input);
    EXPECT_TRUE(std::string_view(error.what()).starts_with("m.st: ")) << error.what();
    EXPECT_PRED_FORMAT2(testing::IsSubstring, GetParam().words, error.what());
  }
}

const auto name_of = [](const auto& info) { return info.param.name; };

INSTANTIATE_TEST_SUITE_P(
    Length, SafetensorsReaderRejects,
    testing::ValuesIn(std::vector<Rejected>{
        {"empty_file", "", "0 bytes, a safetensors file has at least 8"},
        {"seven_bytes", "1234567", "7 bytes, a safetensors file has at least 8"},
        {"header_too_large", raw_file(100'000'001, "{}"), "header of 100000001 bytes, at most 100000000 accepted"},
        {"length_overflows", raw_file(UINT64_MAX, "{}"), "header of 18446744073709551615 bytes, at most"},
        {"length_beyond_file", raw_file(3, "{}"), "header of 3 bytes, but only 2 follow"},
        {"length_cuts_json", raw_file(1, "{}"), "header: not valid JSON"},
        {"no_header", raw_file(0, ""), "the header must be a JSON object"},
    }),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    HeaderText, SafetensorsReaderRejects,
    testing::ValuesIn(std::vector<Rejected>{
        {"not_json", file_of("{hello}"), "not valid JSON"},
        {"only_spaces", file_of("   "), "the header must be a JSON object"},
        {"array", file_of("[]"), "the header must be a JSON object, found '[]'"},
        {"byte_order_mark", file_of("\xEF\xBB\xBF{}"), "the header must be a JSON object"},
        {"bytes_after_object", file_of("{} x"), "not valid JSON"},
        {"nul_padding", file_of(std::string("{}\0\0", 4)), "NUL at byte 2"},
        {"not_utf8", file_of("{\"a\xFF\":{}}"), "ill-formed UTF-8"},
        {"duplicate_tensor",
         file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                 R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                 1),
         "duplicate JSON key 'a'"},
        {"duplicate_field", file_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
         "duplicate JSON key 'dtype'"},
        {"duplicate_metadata", file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "duplicate JSON key 'k'"},
        {"nested_too_deep", file_of(R"({"a":{"x":[[[0]]]}})"), "JSON nested deeper than 4"},
        {"metadata_not_object", file_of(R"({"__metadata__":[]})"), "__metadata__ must be an object, found '[]'"},
        {"metadata_null", file_of(R"({"__metadata__":null})"), "__metadata__ must be an object, found 'null'"},
        {"metadata_number", file_of(R"({"__metadata__":{"n":1}})"), "__metadata__ 'n' must be a string, found '1'"},
        {"metadata_object", file_of(R"({"__metadata__":{"n":{}}})"), "__metadata__ 'n' must be a string, found '{}'"},
        {"too_many_tensors", file_of(R"({"a":0,"b":0,"c":0})"), "3 tensors in a header of 19 bytes, at most 1 fit"},
    }),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Entry, SafetensorsReaderRejects,
    testing::ValuesIn(std::vector<Rejected>{
        {"not_object", file_of(R"({"a": "0123456789"})"), "tensor 'a': expected an object, found '\"0123456789\"'"},
        {"no_dtype", file_of(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), "tensor 'a': 'dtype' is missing"},
        {"no_shape", file_of(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), "tensor 'a': 'shape' is missing"},
        {"no_offsets", file_of(R"({"a":{"dtype":"U8","shape":[1]}})", 1), "tensor 'a': 'data_offsets' is missing"},
        {"dtype_number", one_tensor("8", "[1]", "[0,1]", 1), "tensor 'a': dtype must be a string, found '8'"},
        {"dtype_unknown", one_tensor("\"F7_E4M2\"", "[1]", "[0,1]", 1), "tensor 'a': unknown dtype 'F7_E4M2'"},
        {"dtype_lower_case", one_tensor("\"bf16\"", "[1]", "[0,2]", 2), "tensor 'a': unknown dtype 'bf16'"},
        {"shape_number", one_tensor("\"U8\"", "1", "[0,1]", 1), "tensor 'a': shape must be an array, found '1'"},
        {"shape_string", one_tensor("\"U8\"", "[\"1\"]", "[0,1]", 1), "shape must hold integers"},
        {"shape_negative", one_tensor("\"U8\"", "[-1]", "[0,1]", 1), "2^64 - 1, found '-1'"},
        {"shape_negatives_cancel", one_tensor("\"U8\"", "[-1,-1]", "[0,1]", 1), "2^64 - 1, found '-1'"},
        {"shape_minus_zero", one_tensor("\"U8\"", "[-0]", "[0,0]"), "shape must hold integers"},
        {"shape_fraction", one_tensor("\"U8\"", "[1.0]", "[0,1]", 1), "2^64 - 1, found '1.0'"},
        {"shape_exponent", one_tensor("\"U8\"", "[1e0]", "[0,1]", 1), "2^64 - 1, found '1.0'"},
        {"shape_beyond_u64", one_tensor("\"U8\"", "[18446744073709551616]", "[0,1]", 1), "shape must hold integers"},
        {"shape_beyond_i64", one_tensor("\"U8\"", "[9223372036854775808]", "[0,1]", 1),
         "shape holds 9223372036854775808, at most 2^63 - 1"},
        {"shape_rank_9", one_tensor("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), "9 dimensions, at most 8 accepted"},
        {"offsets_object", one_tensor("\"U8\"", "[1]", "{}", 1), "must be [begin, end], found '{}'"},
        {"offsets_one", one_tensor("\"U8\"", "[1]", "[1]", 1), "must be [begin, end], found '[1]'"},
        {"offsets_three", one_tensor("\"U8\"", "[1]", "[0,1,1]", 1), "must be [begin, end], found '[0,1,1]'"},
        {"offsets_negative", one_tensor("\"U8\"", "[1]", "[-1,0]", 1), "data_offsets must hold integers"},
        {"offsets_fraction", one_tensor("\"U8\"", "[1]", "[0,1.5]", 1), "2^64 - 1, found '1.5'"},
        {"offsets_beyond_u64", one_tensor("\"U8\"", "[1]", "[0,18446744073709551617]", 1), "must hold integers"},
        {"offsets_backwards", one_tensor("\"U8\"", "[0]", "[1,0]", 1), "data_offsets [1, 0] end before they begin"},
        {"offsets_exact_above_2_53", one_tensor("\"U8\"", "[1]", "[0,9007199254740993]", 1),
         "data_offsets [0, 9007199254740993] hold 9007199254740993 bytes, but U8 [1] needs 1"},
        {"name_empty", file_of(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), "the name is empty"},
        {"name_nul", file_of(R"({"a\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
         "tensor 'a?b': the name contains NUL"},
        {"name_1025",
         file_of("{\"" + std::string(1025, 'n') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
         "nnn...': the name is longer than 1024 bytes"},
    }),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Size, SafetensorsReaderRejects,
    testing::ValuesIn(std::vector<Rejected>{
        {"too_small", one_tensor("\"BF16\"", "[2,3]", "[0,10]", 10),
         "tensor 'a': data_offsets [0, 10] hold 10 bytes, but BF16 [2, 3] needs 12"},
        {"too_large", one_tensor("\"F32\"", "[]", "[0,8]", 8), "hold 8 bytes, but F32 [] needs 4"},
        {"empty_with_bytes", one_tensor("\"F32\"", "[0]", "[0,4]", 4), "hold 4 bytes, but F32 [0] needs 0"},
        {"product_overflows", one_tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"),
         "U8 [4294967296, 4294967296] has more than 2^63 - 1 bits"},
        {"product_wraps_to_size", one_tensor("\"U8\"", "[9223372036854775807,2,2]", "[0,4]", 4), "more than 2^63 - 1"},
        {"bits_overflow", one_tensor("\"F64\"", "[288230376151711744]", "[0,0]"), "more than 2^63 - 1 bits"},
        {"strides_of_empty_overflow", one_tensor("\"U8\"", "[0,4294967296,4294967296]", "[0,0]"), "more than 2^63 - 1"},
        {"f4_half_byte", one_tensor("\"F4\"", "[3]", "[0,2]", 2), "F4 [3] has 12 bits, not whole bytes"},
        {"f6_part_byte", one_tensor("\"F6_E2M3\"", "[3,2]", "[0,5]", 5), "F6_E2M3 [3, 2] has 36 bits"},
    }),
    name_of);

// Two tensors of four bytes.
std::string two_tensors(std::string_view first, std::string_view second, std::size_t data_bytes) {
  return file_of(fmt::format(R"({{"a":{{"dtype":"I8","shape":[4],"data_offsets":{}}},)"
                             R"("b":{{"dtype":"I8","shape":[4],"data_offsets":{}}}}})",
                             first, second),
                 data_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Layout, SafetensorsReaderRejects,
    testing::ValuesIn(std::vector<Rejected>{
        {"first_not_at_zero", two_tensors("[1,5]", "[5,9]", 9), "tensor 'a': data_offsets [1, 5] leave a hole"},
        {"hole", two_tensors("[0,4]", "[8,12]", 12), "tensor 'b': data_offsets [8, 12] leave a hole"},
        {"hole_in_reverse", two_tensors("[5,9]", "[0,4]", 9), "tensor 'a': data_offsets [5, 9] leave a hole"},
        {"overlap", two_tensors("[0,4]", "[3,7]", 7), "or overlap: expected a begin of 4"},
        {"alias", two_tensors("[0,4]", "[0,4]", 4), "tensor 'b': data_offsets [0, 4] leave a hole or overlap"},
        {"empty_tensor_inside",
         file_of(R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},)"
                 R"("e":{"dtype":"I8","shape":[0],"data_offsets":[2,2]}})",
                 4),
         "tensor 'e': data_offsets [2, 2] leave a hole"},
        {"truncated", two_tensors("[0,4]", "[4,8]", 7),
         "truncated: tensor 'b' ends at byte 8 of the data buffer, but the file holds 7"},
        {"no_data", two_tensors("[0,4]", "[4,8]", 0), "but the file holds 0"},
        {"trailing_bytes", two_tensors("[0,4]", "[4,8]", 9), "1 bytes follow the last tensor, which ends at byte 8"},
        {"trailing_bytes_without_tensors", file_of("{}", 3), "3 bytes follow the last tensor, which ends at byte 0"},
    }),
    name_of);

TEST(SafetensorsReader, AcceptsNoTensors) {
  EXPECT_TRUE(parse(file_of("{}")).tensors.empty());
  EXPECT_TRUE(parse(file_of(R"({"__metadata__":{}})")).tensors.empty());
}

TEST(SafetensorsReader, ReadsAnEntry) {
  const auto header = parse(file_of(
      R"({"__metadata__":{"format":"pt","note":"{\"x\":[[[[[]]]]]}"},"a.b":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})",
      12));
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.metadata.at("note"), R"({"x":[[[[[]]]]]})");
  ASSERT_EQ(header.tensors.size(), 1u);
  EXPECT_EQ(header.tensors[0].name, "a.b");
  EXPECT_EQ(header.tensors[0].dtype, DType::bf16);
  EXPECT_EQ(header.tensors[0].shape, (Shape{2, 3}));
  EXPECT_EQ(header.tensors[0].end, 12u);
}

TEST(SafetensorsReader, ToleratesSpaceAroundTheHeader) {
  const auto header = parse(file_of(" \t\r\n{} \t\r\n"));
  EXPECT_EQ(header.data_offset, 18u);
}

TEST(SafetensorsReader, PutsTensorsIntoFileOrder) {
  const auto header = parse(two_tensors("[4,8]", "[0,4]", 8));
  EXPECT_EQ(header.tensors[0].name, "b");
  EXPECT_EQ(header.tensors[1].name, "a");
}

TEST(SafetensorsReader, AcceptsEveryDType) {
  for (const DTypeInfo& type : kDTypes) {
    const auto header =
        parse(one_tensor(fmt::format("\"{}\"", type.name), "[8]", fmt::format("[0,{}]", type.bits), type.bits));
    EXPECT_EQ(name(header.tensors[0].dtype), type.name);
  }
}

TEST(SafetensorsReader, AcceptsScalarsEmptyTensorsAndEightDimensions) {
  EXPECT_EQ(parse(one_tensor("\"F32\"", "[]", "[0,4]", 4)).tensors[0].shape, Shape{});
  EXPECT_EQ(parse(one_tensor("\"F32\"", "[3,0]", "[0,0]")).tensors[0].shape, (Shape{3, 0}));
  EXPECT_EQ(parse(one_tensor("\"F4\"", "[3,0]", "[0,0]")).tensors[0].shape, (Shape{3, 0}));
  EXPECT_EQ(parse(one_tensor("\"U8\"", "[1,1,1,1,1,1,1,2]", "[0,2]", 2)).tensors[0].shape.size(), 8u);
}

TEST(SafetensorsReader, AcceptsManyEmptyTensorsAtOnePlace) {
  const auto header = parse(file_of(
      R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"e":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},)"
      R"("f":{"dtype":"I8","shape":[0],"data_offsets":[4,4]},"g":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})",
      4));
  std::string order;
  for (const auto& tensor : header.tensors) order += tensor.name;
  EXPECT_EQ(order, "egaf");
}

TEST(SafetensorsReader, AcceptsOddAddresses) {
  const TempDir folder;
  const SafetensorsFile file(folder.write(
      "m", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],)"
                   R"("data_offsets":[1,5]}})",
                   5)));
  float value;
  load_f32(file.view(*file.find("b")), 0, 1, &value);
  EXPECT_EQ(float_bits(value), 0x5A5A5A5Au);
}

TEST(SafetensorsReader, IgnoresUnknownFields) {
  EXPECT_EQ(parse(file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"crc":[[7]]}})", 1)).tensors.size(),
            1u);
}

TEST(SafetensorsReader, AcceptsLongAndForeignNames) {
  const std::string name(1024, 'n');
  const std::string entry = R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  const auto header = parse(file_of("{\"" + name + entry + ",\"\\u00e9 \\\"x\\\"" + entry + "}"));
  EXPECT_EQ(header.tensors[0].name, name);
  EXPECT_EQ(header.tensors[1].name, "\u00e9 \"x\"");
}

TEST(SafetensorsFile, FindsAndViews) {
  const TempDir folder;
  const SafetensorsFile file(folder.write("m.safetensors", two_tensors("[4,8]", "[0,4]", 8)));
  EXPECT_EQ(file.find("c"), nullptr);
  const TensorView view = file.view(*file.find("a"));
  EXPECT_EQ(view.bytes.size(), 4u);
  EXPECT_EQ(view.shape, Shape{4});
  EXPECT_EQ(view.as<char>()[3], '\x5A');
  file.release(view.bytes);
  EXPECT_EQ(view.as<char>()[3], '\x5A') << "released pages come back from the file";
}

TEST(SafetensorsFile, NamesTheFile) {
  const TempDir folder;
  try {
    SafetensorsFile file(folder.write("m.safetensors", "x"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_PRED_FORMAT2(testing::IsSubstring, folder / "m.safetensors: 1 bytes", error.what());
  }
}

std::string written(std::vector<TensorEntry> tensors, std::map<std::string, std::string> metadata = {}) {
  const TempDir folder;
  FileWriter out(folder / "m");
  SafetensorsWriter writer(out, tensors, std::move(metadata));
  for (const TensorEntry& tensor : tensors)
    writer.append(tensor.name, std::vector<std::byte>(byte_count(tensor.dtype, tensor.shape), std::byte{7}));
  writer.finish();
  out.close();
  return read_text(folder / "m");
}

TEST(SafetensorsWriter, RoundTrips) {
  const auto header = parse(written({{.name = "z", .dtype = DType::bf16, .shape = {2, 3}},
                                     {.name = "scalar \"\n\u00e9", .dtype = DType::f32, .shape = {}},
                                     {.name = "empty", .dtype = DType::f4, .shape = {3, 0}},
                                     {.name = "a", .dtype = DType::u8, .shape = {5}}},
                                    {{"note", "{\"a\": 1}"}}));
  ASSERT_EQ(header.tensors.size(), 4u);
  EXPECT_EQ(header.tensors[0].name, "z");
  EXPECT_EQ(header.tensors[1].name, "scalar \"\n\u00e9");
  EXPECT_EQ(header.tensors[2].shape, (Shape{3, 0}));
  EXPECT_EQ(header.tensors[3].begin, 16u);
  EXPECT_EQ(header.tensors[3].end, 21u);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"note", "{\"a\": 1}"}}));
}

TEST(SafetensorsWriter, AlignsTheDataBuffer) {
  for (int length = 1; length <= 130; ++length) {
    const std::string file = written({{.name = std::string(length, 'n'), .dtype = DType::u8, .shape = {1}}});
    EXPECT_EQ(file[8], '{');
    EXPECT_EQ(parse(file).data_offset % 64, 0u) << length;
    EXPECT_LT(parse(file).data_offset - file.find_last_of('}') - 1, 64u) << length;
  }
}

TEST(SafetensorsWriter, WritesAnEmptyFile) {
  const auto header = parse(written({}));
  EXPECT_TRUE(header.tensors.empty());
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsWriter, TakesTensorsInPieces) {
  const TempDir folder;
  FileWriter out(folder / "m");
  SafetensorsWriter writer(out,
                           {{.name = "none", .dtype = DType::u8, .shape = {0}},
                            {.name = "a", .dtype = DType::u8, .shape = {4}},
                            {.name = "b", .dtype = DType::u8, .shape = {2}}},
                           {});
  const std::string bytes = "abcdef";
  const auto piece = [&](std::size_t begin, std::size_t count) {
    return std::as_bytes(std::span(bytes)).subspan(begin, count);
  };
  writer.append("a", piece(0, 1));
  writer.append("a", piece(1, 0));
  writer.append("a", piece(1, 3));
  writer.append("b", piece(4, 2));
  writer.finish();
  out.close();
  const std::string file = read_text(folder / "m");
  EXPECT_EQ(file.substr(parse(file).data_offset), bytes);
}

TEST(SafetensorsWriter, RefusesWhatNoReaderAccepts) {
  const TempDir folder;
  FileWriter out(folder / "m");
  EXPECT_THROW(SafetensorsWriter(out, {}, {{"big", std::string(100'000'000, 'x')}}), Error);
  EXPECT_THROW(SafetensorsWriter(out, {{.name = "\xFF", .dtype = DType::u8, .shape = {1}}}, {}), Error);
  EXPECT_EQ(out.size(), 0u);
}

class SafetensorsWriterDeathTest : public testing::Test {
 protected:
  void append(const std::string& name, std::size_t bytes) { writer_.append(name, std::vector<std::byte>(bytes)); }

  TempDir folder_;
  FileWriter out_{folder_ / "m"};
  SafetensorsWriter writer_{
      out_, {{.name = "a", .dtype = DType::u8, .shape = {4}}, {.name = "b", .dtype = DType::u8, .shape = {2}}}, {}};
};

TEST_F(SafetensorsWriterDeathTest, HoldsCallersToTheirAnnouncement) {
  EXPECT_DEATH(append("b", 2), "tensor 'b' while 'a' has 0 of 4 bytes");
  EXPECT_DEATH(append("a", 5), "tensor 'a': 5 bytes after 0 of 4");
  EXPECT_DEATH(writer_.finish(), "tensor 'a' has 0 of 4 bytes");
  append("a", 3);
  EXPECT_DEATH(append("a", 2), "tensor 'a': 2 bytes after 3 of 4");
  EXPECT_DEATH(append("b", 2), "tensor 'b' while 'a' has 3 of 4 bytes");
  append("a", 1);
  EXPECT_DEATH(append("c", 1), "tensor 'c' while 'b' has 0 of 2 bytes");
  append("b", 2);
  EXPECT_DEATH(append("a", 1), "tensor 'a' was not announced, or its turn is over");
}

TEST_F(SafetensorsWriterDeathTest, WantsAnnouncementsThatCanBeWritten) {
  const auto announce = [&](TensorEntry tensor) {
    FileWriter out(folder_ / "other");
    SafetensorsWriter(out, {{.name = "a", .dtype = DType::u8, .shape = {1}}, std::move(tensor)}, {});
  };
  EXPECT_DEATH(announce({.name = "a", .dtype = DType::u8, .shape = {1}}), "'a' given twice");
  EXPECT_DEATH(announce({.name = "", .dtype = DType::u8, .shape = {1}}), "the name is empty");
  EXPECT_DEATH(announce({.name = "x", .dtype = DType::f4, .shape = {3}}), "not whole bytes");
}

}  // namespace
}  // namespace lowp::checkpoint
