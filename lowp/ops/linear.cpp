#include "lowp/ops/linear.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/formats/codec.h"
#include "lowp/kernels/cpu/gemm/pack.h"
#include "lowp/kernels/cpu/matmul.h"
#include "lowp/kernels/kernel.h"
#include "lowp/ops/cast.h"

namespace lowp::ops {
namespace {

namespace cpu = kernels::cpu;
using formats::Elem;

constexpr std::int64_t kRowBlock = 512;          // rows of a tile
constexpr std::int64_t kManyRows = 64;           // from here on tiles are made several at a time:
constexpr std::int64_t kMostTiles = 4;           // up to so many, whose values are 64 KB each
constexpr std::int64_t kWorkBytes = 128 * 1024;  // of weights that a thread takes at a time, at least
constexpr std::int64_t kWorkProducts = 1 << 20;  // or this much arithmetic

const cpu::GemmKernels& gemm() { return cpu::gemm_kernels(cpu::isa()); }

cpu::Matmul decoded_matmul() {
  return kernels::reference_backend() ? cpu::kMatmulPortable.matmul : cpu::matmul_kernels().matmul;
}

// Padded to whole tiles.
std::vector<float> load_bias(const std::optional<TensorView>& bias, std::int64_t n) {
  if (!bias) return {};
  LOWP_CHECK(element_count(bias->shape) == n, "bias of {} for {} outputs", element_count(bias->shape), n);
  std::vector<float> values(static_cast<std::size_t>(round_up(n, OutputTile::kStride)));
  load_f32(*bias, 0, n, values.data());
  return values;
}

// A worker's memory, kept between calls.
struct Scratch {
  cpu::AlignedBytes decode{static_cast<std::size_t>(cpu::kScratchBytes)};
  std::vector<float> values, rows, row;
};

Scratch& scratch() {
  static thread_local Scratch mine;
  return mine;
}

// Rows of k values that a thread quantizes at a time, at least.
std::int64_t row_grain(std::int64_t k) { return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(k, 1)); }

}  // namespace

Linear::Linear(const TensorView& weight, std::optional<TensorView> bias, Elem compute)
    : n_(weight.shape[0]), k_(weight.shape[1]), compute_(compute), bias_(load_bias(bias, weight.shape[0])) {
  const bool packable = weight.dtype == DType::bf16 && (compute == Elem::bf16 || compute == Elem::f32);
  if (packable && !kernels::reference_backend()) {
    packed_ = cpu::pack(weight, compute == Elem::bf16 ? gemm().wide : cpu::Arithmetic::f32);
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(n_ * k_));
  load_f32(weight, 0, n_ * k_, values.data());
  keep_decoded(std::move(values));
}

Linear::Linear(const QuantizedMatrix& weight, const formats::Recipe& recipe, std::optional<float> activation_scale,
               std::optional<TensorView> bias, Elem compute)
    : n_(weight.m),
      k_(weight.k),
      compute_(compute),
      activation_(recipe.activation),
      activation_scale_(activation_scale),
      bias_(load_bias(bias, weight.m)) {
  LOWP_CHECK(!activation_ || activation_->scope != formats::Scope::calibrated || activation_scale_,
             "calibrated recipe {} without a scale", recipe.name);
  if (!weight.pre_scale.empty()) {
    const auto* scale = weight.pre_scale.as<float>();
    pre_scale_.assign(scale, scale + k_);
  }
  // Packed kernels take groups of neighbours; dequantize() puts columns in activation order back.
  if (!kernels::reference_backend() && weight.column_order.empty())
    if (const auto packing = cpu::packing_for(weight.format, k_, activation_, compute, gemm())) {
      packed_ = cpu::pack(weight, *packing);
      return;
    }
  // The values that torchao's dequantize gives: rounded to `compute` for weight-only recipes and intx, else exact.
  const bool exact = activation_.has_value() && !activation_->format.scale_in_input_dtype;
  const DType type = exact || compute == Elem::f32 ? DType::f32 : DType::bf16;
  const Tensor decoded = dequantize(weight, type);
  std::vector<float> values(static_cast<std::size_t>(n_ * k_));
  load_f32(decoded.view(), 0, n_ * k_, values.data());
  keep_decoded(std::move(values));
}

Linear::Linear(PackedWeight packed, const std::optional<formats::Recipe>& recipe, std::optional<float> activation_scale,
               std::optional<TensorView> bias, Elem compute)
    : n_(packed.matrix.n),
      k_(packed.matrix.k),
      compute_(compute),
      activation_(recipe ? recipe->activation : std::nullopt),
      activation_scale_(activation_scale),
      pre_scale_(std::move(packed.pre_scale)),
      packed_(std::move(packed.matrix)),
      bias_(load_bias(bias, n_)) {}

void Linear::keep_decoded(std::vector<float> values) {
  const bool narrow = std::all_of(values.begin(), values.end(), [](float v) { return (float_bits(v) & 0xFFFFu) == 0; });
  if (!narrow) {
    weight_f32_ = std::move(values);
    return;
  }
  weight_bf16_.resize(values.size());
  std::transform(values.begin(), values.end(), weight_bf16_.begin(),
                 [](float v) { return static_cast<std::uint16_t>(float_bits(v) >> 16); });
}

std::size_t Linear::memory() const {
  return (packed_ ? packed_->memory() : weight_f32_.size() * 4 + weight_bf16_.size() * 2) + bias_.size() * 4;
}

std::int64_t Linear::tile_bytes() const {
  return packed_ ? packed_->panel_bytes() : OutputTile::kStride * k_ * (weight_f32_.empty() ? 2 : 4);
}

bool Linear::shares_input(const Linear& other) const {
  const auto same_activation = [&] {
    if (activation_.has_value() != other.activation_.has_value()) return false;
    return !activation_ || (activation_->word == other.activation_->word &&
                            activation_->format.scale_in_input_dtype == other.activation_->format.scale_in_input_dtype);
  };
  const auto same_packing = [&] {
    if (packed_.has_value() != other.packed_.has_value()) return false;
    return !packed_ || cpu::PackedRows::same(*packed_, *other.packed_);
  };
  return k_ == other.k_ && compute_ == other.compute_ && activation_scale_ == other.activation_scale_ &&
         pre_scale_ == other.pre_scale_ && same_activation() && same_packing();
}

void Linear::prepare(std::span<const float> x, std::int64_t rows, Input& input) const {
  LOWP_CHECK(static_cast<std::int64_t>(x.size()) == rows * k_, "{} values for [{}, {}]", x.size(), rows, k_);
  input.rows_ = rows;
  std::vector<float> smoothed;
  if (!pre_scale_.empty()) {
    smoothed.resize(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      smoothed[i] = formats::round_to(compute_, x[i] * pre_scale_[i % static_cast<std::size_t>(k_)]);
    x = smoothed;
  }
  if (!packed_) {
    input.values_.assign(x.begin(), x.end());
    if (activation_) fake_quantize(*activation_, compute_, activation_scale_, x, rows, k_, input.values_);
    return;
  }
  formats::GroupStats call;
  if (activation_ && activation_->scope == formats::Scope::tensor)
    for (const float value : x) call.add(value);
  quantize_rows(
      rows, call, [&](std::int64_t row, float*) { return x.data() + row * k_; }, input);
}

void Linear::prepare(const MakeRow& make, std::int64_t rows, Input& input) const {
  if (packed_ && pre_scale_.empty() && (!activation_ || activation_->scope != formats::Scope::tensor)) {
    input.rows_ = rows;
    return quantize_rows(
        rows, {}, [&](std::int64_t row, float* out) { return make(row, out), out; }, input);
  }
  std::vector<float> x(static_cast<std::size_t>(rows * k_));
  parallel_for(rows, row_grain(k_), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) make(r, x.data() + r * k_);
  });
  prepare(x, rows, input);
}

// `row_at(row, room)` gives the values of a row, in a place of its own or in `room` [k].
template <typename RowAt>
void Linear::quantize_rows(std::int64_t rows, const formats::GroupStats& call, const RowAt& row_at,
                           Input& input) const {
  const formats::Activation* const activation = activation_ ? &*activation_ : nullptr;
  input.packed_.fit(*packed_, activation, rows, gemm().tiles);
  const cpu::RowsTask task(activation, compute_, activation_scale_, call, &input.packed_);
  parallel_for(rows, row_grain(k_), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float>& room = scratch().row;
    room.resize(static_cast<std::size_t>(2 * k_));
    for (std::int64_t r = begin; r < end; ++r)
      gemm().quantize_rows(task, row_at(r, room.data() + k_), r, 1, room.data());
  });
}

void Linear::make_tiles(const Input& input, std::int64_t index, std::int64_t count, std::int64_t row, std::int64_t rows,
                        float* values, OutputTile* made) const {
  constexpr std::int64_t kStride = OutputTile::kStride;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = (index + i) * kStride;
    made[i] = {.row = row,
               .rows = rows,
               .column = first,
               .columns = std::min(kStride, n_ - first),
               .values = values + i * rows * kStride};
  }
  const float* bias = bias_.empty() ? nullptr : bias_.data() + index * kStride;
  if (packed_) {
    gemm().panels(*packed_, index, count, input.packed_, row, rows, bias, compute_ == Elem::bf16,
                  scratch().decode.data(), values);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [tile_row, tile_rows, first, columns, to] = made[i];
    const float* w = nullptr;
    std::vector<float>& wide = scratch().rows;
    if (!weight_f32_.empty()) {
      w = weight_f32_.data() + first * k_;
    } else {
      wide.resize(static_cast<std::size_t>(kStride * k_));
      for (std::int64_t e = 0; e < columns * k_; ++e)
        wide[e] = bits_float(static_cast<std::uint32_t>(weight_bf16_[first * k_ + e]) << 16);
      w = wide.data();
    }
    decoded_matmul()(input.values_.data() + row * k_, rows, w, columns, k_, to, kStride);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) {
        float& value = to[r * kStride + c];
        if (bias) value += bias[i * kStride + c];
        value = formats::round_to(compute_, value);
      }
  }
}

namespace {

// Tiles that are made together: several where there are many rows, but some for every thread.
std::int64_t group_of(std::int64_t rows, std::int64_t tiles) {
  return rows < kManyRows ? 1 : std::clamp<std::int64_t>(tiles / (2 * thread_count()), 1, kMostTiles);
}

// Threads take tiles in order; each covers all rows, so that a weight is read once for kRowBlock rows.
std::int64_t grain(std::int64_t rows, std::int64_t bytes, std::int64_t k, std::int64_t group) {
  const std::int64_t products = std::max<std::int64_t>(rows, 1) * k * OutputTile::kStride;
  return std::max(group, std::min(kWorkBytes / std::max<std::int64_t>(bytes, 1),
                                  kWorkProducts / std::max<std::int64_t>(products, 1)));
}

}  // namespace

void run_tiles(std::span<const Product> products,
               const std::function<void(std::size_t product, std::span<const OutputTile>)>& done) {
  constexpr std::size_t kMost = 4;
  std::vector<std::int64_t> ends;  // of the products' tiles among all
  std::int64_t tiles = 0, most_rows = 0, bytes = 0, k = 0;
  for (const Product& product : products) {
    const auto linears = product.linears;
    LOWP_CHECK(!linears.empty() && linears.size() <= kMost, "{} Linears", linears.size());
    for (const Linear* linear : linears)
      LOWP_CHECK(linear->n() == linears[0]->n() && linears[0]->shares_input(*linear), "Linears that share no input");
    ends.push_back(tiles += linears[0]->tiles());
    most_rows = std::max(most_rows, product.input->rows());
    bytes = std::max(bytes, linears[0]->tile_bytes());
    k = std::max(k, linears[0]->k());
  }
  const std::int64_t group = group_of(most_rows, tiles);
  parallel_for(tiles, grain(most_rows, bytes, k, group), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float>& values = scratch().values;
    const std::int64_t most = group * std::min(most_rows, kRowBlock) * OutputTile::kStride;
    values.resize(kMost * static_cast<std::size_t>(most));
    auto p = static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
    for (std::int64_t t = begin, count; t < end; t += count) {
      while (t >= ends[p]) ++p;
      count = std::min({group, end - t, ends[p] - t});
      const auto [linears, input] = products[p];
      const std::int64_t index = t - (p == 0 ? 0 : ends[p - 1]), rows = input->rows();
      for (std::int64_t r = 0; r < rows; r += kRowBlock) {
        std::array<std::array<OutputTile, kMostTiles>, kMost> made;
        for (std::size_t i = 0; i < linears.size(); ++i)
          linears[i]->make_tiles(*input, index, count, r, std::min(kRowBlock, rows - r),
                                 values.data() + static_cast<std::int64_t>(i) * most, made[i].data());
        for (std::size_t c = 0; c < static_cast<std::size_t>(count); ++c) {
          std::array<OutputTile, kMost> same;  // columns
          for (std::size_t i = 0; i < linears.size(); ++i) same[i] = made[i][c];
          done(p, {same.data(), linears.size()});
        }
      }
    }
  });
}

void run_all(std::span<const Linear* const> linears, const Input& input, std::span<const std::span<float>> outputs) {
  LOWP_CHECK(linears.size() == outputs.size(), "{} outputs of {} Linears", outputs.size(), linears.size());
  const std::int64_t rows = input.rows();
  std::int64_t tiles = 0;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    LOWP_CHECK(linears[0]->shares_input(*linears[i]), "Linears that share no input");
    LOWP_CHECK(static_cast<std::int64_t>(outputs[i].size()) == rows * linears[i]->n(), "output of {} values",
               outputs[i].size());
    tiles += linears[i]->tiles();
  }
  if (tiles == 0 || rows == 0) return;
  const std::int64_t group = group_of(rows, tiles);
  parallel_for(tiles, grain(rows, linears[0]->tile_bytes(), linears[0]->k(), group),
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<float>& values = scratch().values;
                 values.resize(static_cast<std::size_t>(group * std::min(rows, kRowBlock) * OutputTile::kStride));
                 std::int64_t first = 0;  // tile of the Linear among all
                 for (std::size_t i = 0; i < linears.size(); first += linears[i++]->tiles()) {
                   const Linear& linear = *linears[i];
                   const std::int64_t last = std::min(end - first, linear.tiles());
                   for (std::int64_t t = std::max(begin - first, std::int64_t{0}), count; t < last; t += count) {
                     count = std::min(group, last - t);
                     for (std::int64_t r = 0; r < rows; r += kRowBlock) {
                       std::array<OutputTile, kMostTiles> made;
                       linear.make_tiles(input, t, count, r, std::min(kRowBlock, rows - r), values.data(), made.data());
                       for (std::int64_t c = 0; c < count; ++c) {
                         const OutputTile& tile = made[static_cast<std::size_t>(c)];
                         for (std::int64_t i_row = 0; i_row < tile.rows; ++i_row)
                           std::memcpy(&outputs[i][(r + i_row) * linear.n() + tile.column], tile.row_at(i_row),
                                       static_cast<std::size_t>(tile.columns) * sizeof(float));
                       }
                     }
                   }
                 }
               });
}

void Linear::run(std::span<const float> x, std::int64_t rows, std::span<float> y) const {
  Input input;
  prepare(x, rows, input);
  const Linear* const self = this;
  const std::span<float> output = y;
  run_all({&self, 1}, input, {&output, 1});
}

}  // namespace lowp::ops
