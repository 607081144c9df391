// What a layer can gain by a recipe: expected times from a device's peaks, as torchao's float8_inference_roofline.
// Formulas: torchao benchmarks/float8 (specification section 8.2); its check values are in roofline_test.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/device.h"
#include "lowp/base/json.h"
#include "lowp/formats/recipe.h"

namespace lowp::bench {

/// Rates of a device in operations/s and bytes/s, and which shares of them kernels reach.
struct Peaks {
  std::string name;
  double bf16 = 0, fp8 = 0, fp4 = 0, int8 = 0;  // 0: none, products run in bf16
  double bytes = 0;
  double gemm_share = 1, memory_share = 1;
};

/// The devices whose peaks are known by name: "h100", "b200".
std::vector<std::string> known_peaks();
/// Peaks by such a name, or from a JSON file with the fields of Peaks. Throws Error(usage, io, bad_input).
Peaks peaks(const std::string& name_or_file);

/// What a device's limits measure now; a type without a limit of its own has none.
Peaks measured_peaks(Device& device);

struct LayerShape {
  std::int64_t m = 0, k = 0, n = 0;  // tokens, inputs, outputs
};

/// "pow2" (cubes 1024 to 16384), "sweep" (256 to 32768), "llama" (70B's layers in a quarter, 16384 tokens), or the
/// layers of a model known by name (models::shape) for 1, 64 and 4096 tokens. Throws Error(usage).
std::vector<LayerShape> layer_shapes(const std::string& name);

/// Expected seconds of ReLU -> Linear. Launching a kernel takes 2 us at least.
struct Expected {
  double bf16_gemm = 0, bf16_activation = 0;  // the activation is a kernel of its own without quantization,
  double gemm = 0, cast = 0;                  // and part of the cast with it
  double speedup() const { return (bf16_gemm + bf16_activation) / (gemm + cast); }
};
/// `fusion`: model the activation function and that a cast takes it in; without, both sides are the product alone and
/// the cast.
Expected expected(const Peaks& peaks, const formats::Recipe& recipe, const LayerShape& shape, bool fusion);

/// A measured layer, in seconds.
struct Observed {
  double bf16_gemm = 0, gemm = 0, bf16_whole = 0, whole = 0;
};

struct RooflineRow {
  std::string recipe;
  LayerShape shape;
  Expected expected;
  std::optional<Observed> observed;
};

/// torchao's columns: fwd_M, fwd_K, fwd_N, r_* (expected), b_* (observed) and rb_* (their ratios), -1 where nothing was
/// observed; before them the recipe.
Json to_json(const RooflineRow& row);

/// A page with the table and the speed-ups over the shapes.
std::string roofline_page(const Peaks& peaks, const std::vector<RooflineRow>& rows);

}  // namespace lowp::bench
