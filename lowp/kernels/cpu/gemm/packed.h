// A Linear's weight in the layout of the CPU kernels, the rows it is multiplied with, and the table of kernels.
//
// The layout. Panels of 32 outputs, one vector lane an output. Along k a panel is one forward stream: where the format
// has group scales, each step of max(block, 32) values of k starts with the scales (then the offsets) of its blocks,
// [block, 32]; then come the codes, chunk by chunk of 32 values of k. Codes of 16 bits, and of 8 bits under int8
// arithmetic, stand as the kernels multiply them: [k / 2, 32, 2] words or [k / 4, 32, 4] bytes. Other codes come in two
// halves of 16 outputs, each in planes of 4, 2 and 1 bits of all codes, so that shifts take a register of codes apart.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "lowp/base/bits.h"
#include "lowp/formats/quantize.h"
#include "lowp/formats/recipe.h"
#include "lowp/kernels/cpu/isa.h"

namespace lowp::kernels::cpu {

inline constexpr std::int64_t kPanel = 32;     // outputs that are computed together
inline constexpr std::int64_t kTileRows = 16;  // rows of x in a tile, of 64 bytes each
inline constexpr std::int64_t kChunk = 32;     // k is padded to a multiple of this with zero activations

/// What products are computed in. Operands are exact in each: elements without their scales, which multiply the sums
/// over a block of k.
enum class Arithmetic : std::uint8_t {
  int8,  // unsigned weight codes x signed activation codes, summed in int32
  bf16,  // pairs of bf16 products, summed in f32 by the CPU's bf16 instructions
  f32,   // bf16 weights x f32 activations, by f32 multiply-add
};

/// How the scales of blocks stand in the stream.
enum class ScaleType : std::uint8_t { none, e8m0, e4m3, bf16, f32 };

/// How the offsets of blocks stand in the stream: zero points (offset = -zero * scale), or offsets themselves.
enum class OffsetType : std::uint8_t { none, zero_point, bf16, f32 };

/// Memory aligned to a cache line, not initialised.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t size);
  std::uint8_t* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::uint8_t* bytes) const;
  };
  std::unique_ptr<std::uint8_t, Free> bytes_;
  std::size_t size_ = 0;
};

/// Bytes that do not change any more, in memory or in a mapped file; aligned to a cache line.
class PackedBytes {
 public:
  PackedBytes() = default;
  explicit PackedBytes(AlignedBytes bytes)
      : data_(bytes.data()), size_(bytes.size()), owner_(std::make_shared<AlignedBytes>(std::move(bytes))) {}
  /// Bytes of something that `owner` keeps alive.
  PackedBytes(const std::uint8_t* data, std::size_t size, std::shared_ptr<void> owner)
      : data_(data), size_(size), owner_(std::move(owner)) {}
  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<void> owner_;
};

/// A packed weight [n, k]. The value of code c of output j in block b is row_scale[j] * (scale[b, j] * (decoded(c) -
/// bias) + offset[b, j]).
struct PackedMatrix {
  std::int64_t n = 0, k = 0;
  Arithmetic arithmetic = Arithmetic::bf16;
  int bits = 16;           // of a stored code: 1 to 8, or 16
  std::int64_t block = 0;  // values of k that are summed before scales are applied: 16 or a multiple of 32
  ScaleType scale = ScaleType::none;
  OffsetType offset = OffsetType::none;
  float bias = 0;
  bool lookup = false;  // int8 arithmetic: bytes[c] is the decoded code, otherwise c is
  std::array<std::uint8_t, 16> bytes{};
  std::array<std::uint16_t, 128>
      words{};                   // other arithmetics: decoded codes as bf16; of 8 bits the top one is the sign
  std::vector<float> row_scale;  // [panels * 32]
  std::vector<float> row_sum;    // [panels * 32] sums over k of the values, for activations with zero points
  PackedBytes data;              // [panels, panel_bytes()], and a little that may be read beyond

  std::int64_t padded_k() const { return round_up(k, kChunk); }
  std::int64_t panels() const { return ceil_div(n, kPanel); }
  std::int64_t blocks() const { return ceil_div(padded_k(), block); }
  std::int64_t step() const { return block < kChunk ? kChunk : block; }
  /// Codes that are multiplied as they stand in memory.
  bool direct() const { return bits == 16 || (bits == 8 && arithmetic == Arithmetic::int8); }
  /// Bytes of the scales (and offsets) of one block, and of the codes of 32 values of k.
  std::int64_t scale_bytes() const;
  std::int64_t offset_bytes() const;
  std::int64_t chunk_bytes() const { return kPanel * kChunk * bits / 8; }
  std::int64_t panel_bytes() const {
    return blocks() * (scale_bytes() + offset_bytes()) + padded_k() / kChunk * chunk_bytes();
  }
  /// Bytes of `data`: what tiles may read beyond the last panel included, and whole cache lines.
  std::int64_t data_bytes() const { return round_up<std::int64_t>(panels() * panel_bytes() + kChunk * kPanel, 64); }
  std::size_t memory() const { return data.size() + (row_scale.size() + row_sum.size()) * sizeof(float); }
};

/// Allocates at cache lines, so that no load of 64 bytes takes two.
template <typename T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t(64)); }
  bool operator==(const LineAllocator&) const = default;
};
using LineBytes = std::vector<std::uint8_t, LineAllocator<std::uint8_t>>;

/// Rows of activations [rows, k] as kernels read them: int8 codes, bf16 or f32 elements.
struct PackedRows {
  Arithmetic arithmetic = Arithmetic::bf16;
  std::int64_t rows = 0, k = 0;
  std::int64_t block = 0;   // of the weight
  std::int64_t stride = 0;  // bytes of a row; never a power of two, so that rows fall into different cache sets
  LineBytes data;           // [rows, stride], zero beyond k
  // The same once more for levels with tiles, if there are 16 rows: [rows / 16, stride / 64, 16, 64], so that a tile is
  // one stretch of memory. Else empty.
  LineBytes tiles;
  float bias = 0;                 // of the weight
  std::vector<float> row_scale;   // [rows]
  std::vector<float> zero_point;  // [rows], subtracted from every code; empty if there are none
  // Of blocks, [blocks, rows], and kBeyond more that may be read; empty if there are none:
  std::vector<float> block_scale;
  std::vector<std::int32_t> starts;  // int8: what the bias adds to the block's sum, where the sum begins
  std::vector<float> float_starts;   // the same of other arithmetics
  std::vector<float> scaled_sums;    // sums of elements times the block's scale, for weights with offsets

  static constexpr std::int64_t kBeyond = 15;
  std::int64_t blocks() const { return ceil_div(round_up(k, kChunk), block); }
  /// Room for `count` rows that a weight multiplies, quantized as `activation` says (or not at all), by a level that
  /// has tiles or not.
  void fit(const PackedMatrix& weight, const formats::Activation* activation, std::int64_t count, bool with_tiles);
  /// Whether rows that fit one of two weights fit the other.
  static bool same(const PackedMatrix& a, const PackedMatrix& b) {
    return a.k == b.k && a.arithmetic == b.arithmetic && a.block == b.block && a.bias == b.bias &&
           (a.offset == OffsetType::none) == (b.offset == OffsetType::none);
  }
};

/// Rounds to a float element's grid: encode() and decode() of formats/codec.h in one, saturating.
struct Grid {
  std::uint32_t half = 0, lsb = 0, largest = 0, smallest_normal = 0;
  float magic = 0;  // added to a magnitude below smallest_normal, it rounds to the subnormal step
  bool has_nan = false;
};

/// What quantizing rows into PackedRows needs. A level's kernels are compiled for its instructions, so they call
/// nothing inline that other code shares: what depends on formats is here.
struct RowsTask {
  RowsTask(const formats::Activation* activation, formats::Elem compute, std::optional<float> calibrated,
           const formats::GroupStats& call, PackedRows* out);

  /// Parameters of a group of a row with these statistics.
  formats::GroupParams params(const formats::GroupStats& stats, float tensor_scale) const;
  /// The second-level scale of a row with these statistics; 1 if the format has none.
  float tensor_scale(const formats::GroupStats& stats) const;

  const formats::Activation* activation;  // nullptr: x as it is, exact in the arithmetic's element
  formats::Elem compute;
  std::optional<float> calibrated;  // Scope::calibrated
  formats::GroupStats call;         // Scope::tensor: of all rows
  PackedRows* out;                  // sized
  Grid grid;                        // of float elements
  bool integers = false;
  float low = 0, high = 0;  // of integers
};

/// Kernels of one instruction level.
struct GemmKernels {
  const char* name;
  Arithmetic wide;  // the arithmetic of bf16 operands: bf16 where the level has it, otherwise f32
  bool tiles;       // reads PackedRows::tiles
  /// values [count, rows, 32] = rows row .. row + rows of x times the outputs of `count` panels from `panel` on, all
  /// scales applied, plus bias [count, 32] (or nullptr), rounded to bf16 if `round`. All panels meet a stretch of x
  /// before the next one, which many rows of would not stay in the cache for one panel after the other. `scratch` has
  /// kScratchBytes aligned to 64. The order of summation depends on the weight alone, not on rows or count.
  void (*panels)(const PackedMatrix& weight, std::int64_t panel, std::int64_t count, const PackedRows& x,
                 std::int64_t row, std::int64_t rows, const float* bias, bool round, std::uint8_t* scratch,
                 float* values);
  /// Quantizes x [rows, k] into rows row .. row + rows, bit for bit as formats/quantize.h does. `scratch` has k floats.
  void (*quantize_rows)(const RowsTask& task, const float* x, std::int64_t row, std::int64_t rows, float* scratch);
};

inline constexpr std::int64_t kMaxSpan = 1024;  // values of k that are decoded at a time, at most
inline constexpr std::int64_t kScratchBytes = kMaxSpan * kPanel * 2 + 2 * (kMaxSpan / 16) * kPanel * 4;

extern const GemmKernels kGemmPortable, kGemmAvx2, kGemmAvx2Vnni, kGemmAvx512, kGemmAvx512Bf16, kGemmAmx;

/// The packed kernels of a level.
const GemmKernels& gemm_kernels(Isa isa);

}  // namespace lowp::kernels::cpu
