// A checkpoint of floats into a checkpoint of low precision, tensor by tensor.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowp/checkpoint/dialect.h"
#include "lowp/quant/method.h"
#include "lowp/quant/rules.h"

namespace lowp::quant {

/// Over what tensor-level scales (nvfp4, fp8_tensor) are shared.
enum class ScaleSharing {
  fused,       // q/k/v, gate/up and an expert's w1/w3: what vLLM fuses into one matrix
  per_matrix,  // each matrix its own, as torchao
};

struct QuantizeRequest {
  std::string model;   // folder, file or org/name
  std::string output;  // folder that must not exist yet, unless overwrite
  Rules rules;
  formats::Scaling scaling = formats::Scaling::rceil;
  ScaleSharing sharing = ScaleSharing::fused;
  std::string dialect;  // "" takes the default
  bool overwrite = false;
  bool requantize = false;
  bool allow_skip = false;
  Preparation preparation = Preparation::none;
  Calibrate calibrate;  // for what needs the inputs of layers: calibrated activations, gptq, awq, ...; may be empty
  std::uint64_t shard_bytes = std::uint64_t{5} * 1000 * 1000 * 1000;
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress;
};

struct LayerReport {
  std::string module;
  std::string recipe;
  std::int64_t m = 0, k = 0;
  std::uint64_t bytes = 0;  // of codes, scales, zero points and tables in the file
  double bits_per_weight = 0;
  double sqnr = 0;  // dB, of the weights
};

struct QuantizeReport {
  std::string dialect;
  std::vector<LayerReport> layers;
  std::vector<std::string> kept;       // Linears left in high precision by rule or by default
  std::vector<std::string> skipped;    // "module: reason", under allow_skip
  std::vector<std::string> unmatched;  // rules that matched nothing
  std::vector<std::string> warnings;
  std::uint64_t quantized_weights = 0;
  std::uint64_t quantized_bytes = 0;
  std::uint64_t file_bytes = 0;  // of all safetensors files written
  double bits_per_weight() const {
    return quantized_weights ? 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized_weights) : 0;
  }
};

/// Writes to OUT.partial-<pid> and renames at the end: OUT is complete or absent. Partial folders of processes that no
/// longer live are removed first. Throws Error; what it has written by then is removed.
QuantizeReport quantize_checkpoint(QuantizeRequest request);

}  // namespace lowp::quant
