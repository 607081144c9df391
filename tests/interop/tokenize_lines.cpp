// Token ids of texts, for checks against other tokenizers: `tokenize_lines MODEL` reads a JSON string a line and writes
// a JSON array of ids a line. MODEL is a .gguf file, or a folder with a tokenizer.json.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

#include "lowp/base/error.h"
#include "lowp/checkpoint/checkpoint.h"
#include "lowp/text/tokenizer.h"

namespace {

lowp::text::Tokenizer load(const std::string& model) {
  if (std::filesystem::is_directory(model)) return lowp::text::Tokenizer::from_file(model + "/tokenizer.json");
  return lowp::text::Tokenizer::from_parsed(*lowp::checkpoint::Checkpoint(model).companion("tokenizer.json"), model);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) lowp::fail(lowp::ErrorCode::usage, "usage: tokenize_lines MODEL");
  const lowp::text::Tokenizer tokenizer = load(argv[1]);
  for (std::string line; std::getline(std::cin, line);)
    std::cout << lowp::Json(tokenizer.encode(lowp::parse_json(line, "line").get<std::string>())).dump() << '\n';
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
