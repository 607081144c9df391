// A quantized checkpoint from one dialect into another: the same numbers, spelled differently.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowp/checkpoint/dialect.h"

namespace lowp::quant {

struct ConvertRequest {
  std::string model;    // folder, file or org/name
  std::string output;   // folder (with gguf, file .gguf) that must not exist yet, unless overwrite
  std::string dialect;  // to write
  bool overwrite = false;
  std::uint64_t shard_bytes = std::uint64_t{5} * 1000 * 1000 * 1000;
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

struct ConvertReport {
  std::string from, to;  // dialects
  std::uint64_t modules = 0;
  std::vector<std::string> kept;  // Linears in high precision
  std::uint64_t file_bytes = 0;   // of all files of tensors written
  std::vector<std::string> warnings;
};

/// Weights keep their codes, scales and zero points bit for bit; tensors that are not quantized keep their bytes. One
/// unit of the dialect (a module, or the experts that it stacks) is in memory at a time. The folder is complete or
/// absent. Throws Error(bad_input) if the model is not quantized, Error(unsupported) naming modules and reasons for
/// what the dialect cannot hold, before anything is written.
ConvertReport convert_checkpoint(const ConvertRequest& request);

}  // namespace lowp::quant
