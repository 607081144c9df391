// How well every format keeps tensors of every magnitude: SQNR over the largest magnitude.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/formats/block.h"
#include "lowp/report/html.h"
#include "lowp/report/machine.h"
#include "lowp/tensor/tensor.h"

namespace lowp::report {

/// What the elements of a tensor are drawn from.
enum class Data {
  normal,
  heavy,  // Student's t with 3 degrees of freedom
};
std::string_view name(Data data);

inline constexpr int kLeastExponent = -24, kMostExponent = 12, kExponentStep = 2;  // of the largest magnitude
inline constexpr std::int64_t kNumericsRows = 64, kNumericsColumns = 512;

/// Formats that stand for all: the rows of the table of formats as they are, families with a few parameters each.
std::vector<formats::BlockFormat> numerics_formats();

/// A [64, 512] matrix of f32 or bf16 whose largest magnitude is 2^exponent: the same numbers for every exponent but for
/// that factor, which is exact.
Tensor numerics_tensor(Data data, DType dtype, int exponent);

struct NumericsPanel {
  Data data = Data::normal;
  DType dtype = DType::f32;
  std::vector<std::vector<double>> sqnr;  // [format][exponent], dB; infinite where nothing is lost
};

struct NumericsReport {
  Machine machine;
  std::vector<formats::BlockFormat> formats;
  std::vector<int> exponents;
  std::vector<NumericsPanel> panels;  // normal and heavy-tailed, f32 and bf16
};

/// Takes a few seconds; `progress` gets the share that is done.
NumericsReport measure_numerics(const Machine& machine, const std::function<void(double)>& progress);

/// One table a panel.
std::vector<Grid> grids(const NumericsReport& report);
std::vector<Note> notes(const NumericsReport& report);
Json to_json(const NumericsReport& report);
std::string html(const NumericsReport& report);

}  // namespace lowp::report
