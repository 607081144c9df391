// A checkpoint as a GGUF file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lowp/checkpoint/dialect.h"

namespace lowp::checkpoint {

/// Throws Error(usage) if `path` does not end in .gguf, Error(io) if it exists and may not be replaced.
void check_gguf_name(const std::string& path, bool overwrite);

/// Writes a checkpoint of any dialect to `path`, which appears when it is complete: quantized weights as the ggml type
/// with the same values, other matrices in their own type, vectors and routers in F32, with the metadata and the
/// tokenizer that llama.cpp wants. Values and codes are the checkpoint's; rows of q and k are put in llama.cpp's order,
/// 1 is added to Gemma's norms. Memory: the largest tensor. Throws Error(unsupported) naming what GGUF cannot hold,
/// before anything is written where names, shapes and formats tell.
FileReport write_gguf(const Checkpoint& checkpoint, const std::string& path,
                      const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);

}  // namespace lowp::checkpoint
