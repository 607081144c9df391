// parse_json refuses any text with Error, or returns a value that survives writing and reading.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/json.h"

std::vector<std::string> fuzz_seeds() {
  return {
      "",
      "{}",
      R"([null, true, false, 0, -1, 18446744073709551615, 1.5e-3, "text", [], {}])",
      R"({"a": {"b": [{"c": "\u00e9\n\"\\\ud83d\ude00"}]}, "d": -9223372036854775808})",
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})",
      "\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\"",
      std::string(64, '[') + std::string(64, ']'),
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  lowp::Json value;
  try {
    value = lowp::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const lowp::Error&) {
    return 0;
  }
  const std::string text = value.dump();
  if (lowp::parse_json(text, "fuzz again") != value) std::abort();
  return 0;
}
