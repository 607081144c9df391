// What stands in front of the CUDA casts, and what training asks of them, against the scalar reference of kernels/ref
// and the CPU's casts, byte for byte.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <random>

#include "lowp/kernels/cuda/cast.h"
#include "lowp/kernels/cuda/rope.h"
#include "lowp/kernels/front.h"
#include "lowp/kernels/ref/front.h"
#include "lowp/ops/cast_cuda.h"

namespace lowp::ops {
namespace {

namespace cuda = kernels::cuda;
using cuda::Front;
using formats::BlockFormat;
using formats::Scaling;

constexpr DType kInputs[] = {DType::bf16, DType::f16, DType::f32};
constexpr const char* kFormats[] = {"mxfp8", "mxfp4", "nvfp4_single", "nvfp4", "fp8_group128", "fp8", "int8"};

class CudaFrontTest : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::devices().empty()) GTEST_SKIP() << "skipped: no device (" << cuda::why_none() << ")";
    cuda::use_device(0);
    stream.emplace();
  }

  Tensor values(DType type, const Shape& shape, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> v(static_cast<std::size_t>(element_count(shape)));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = normal(rng) * (i % 61 == 0 ? 30.0f : 1.0f);
    Tensor x(type, shape);
    store_rounded(x, 0, v);
    return x;
  }
  const cuda::Memory& upload(const Tensor& host) {
    const cuda::Memory& to = memory.emplace_back(std::max<std::size_t>(host.bytes().size(), 16));
    cuda::copy(to.as<>(), host.bytes().data(), host.bytes().size(), stream->handle());
    return to;
  }
  const cuda::Memory& room(const Tensor& like) {
    const cuda::Memory& to = memory.emplace_back(std::max<std::size_t>(like.bytes().size(), 16));
    cuda::fill(to.as<>(), 0xA5, to.size(), stream->handle());
    return to;
  }
  // Device memory is equal to a tensor.
  testing::AssertionResult same(const cuda::Memory& found, const Tensor& expected) {
    Tensor host(expected.dtype(), expected.shape());
    cuda::copy(host.bytes().data(), found.as<>(), host.bytes().size(), stream->handle());
    stream->synchronize();
    for (std::size_t i = 0; i < host.bytes().size(); ++i)
      if (host.bytes()[i] != expected.bytes()[i])
        return testing::AssertionFailure()
               << "byte " << i << " of " << host.bytes().size() << " is " << static_cast<int>(host.bytes()[i])
               << " instead of " << static_cast<int>(expected.bytes()[i]);
    return testing::AssertionSuccess();
  }
  // A cast with a front end against the CPU's cast of the values that the reference computes. Two-level formats get a
  // given tensor scale.
  void check(const Tensor& x, const cuda::FrontArgs& front, const Tensor& computed, const char* name, Scaling scaling,
             const std::string& what) {
    const BlockFormat format = formats::block_format(name);
    CastOptions options;
    options.scaling = scaling;
    if (format.tensor_scale) options.shared = formats::GroupStats{-3, 5, true, false};
    const QuantizedMatrix expected = quantize(computed.view(), format, options);
    cuda::CastTask task;
    task.x = upload(x).as<>();
    task.input = element_of(x.dtype());
    task.m = x.shape()[0];
    task.k = x.shape()[1];
    task.format = format;
    task.scaling = scaling;
    task.front = front;
    task.static_amax = 5;
    const cuda::Memory &codes = room(expected.codes), &scale = room(expected.scale);
    task.along_k.codes = codes.as<>();
    task.along_k.scale = scale.as<>();
    cuda::cast(task, stream->handle());
    EXPECT_TRUE(same(codes, expected.codes)) << what << " codes";
    EXPECT_TRUE(same(scale, expected.scale)) << what << " scale";
    memory.clear();  // the front's operand too
  }

  std::mt19937 rng{3};
  std::optional<cuda::Stream> stream;  // there is none without a device
  std::deque<cuda::Memory> memory;
};

// Every 16-bit input of SiLU, and ReLU, into every format.
TEST_F(CudaFrontTest, ActivationsOfEveryValue) {
  for (const DType type : kInputs)
    for (const Front kind : {Front::silu_mul, Front::relu}) {
      Tensor gate = values(type, {128, 512}, 4), up = values(type, {128, 512});
      if (type != DType::f32)
        for (std::uint32_t i = 0; i < 65536; ++i) {
          const std::uint32_t special = type == DType::bf16 ? 0x7F80u : 0x7C00u;
          gate.as<std::uint16_t>()[i] = static_cast<std::uint16_t>((i & special) == special ? 0 : i);
          // Extreme products would be infinite, which some formats refuse.
          if (std::fabs(load_one(gate.view(), i)) > 1000) gate.as<std::uint16_t>()[i] = 0;
          if (i % 2) up.as<std::uint16_t>()[i] = type == DType::bf16 ? 0x3F80 : 0x3C00;
        }
      const Tensor computed =
          kind == Front::relu ? kernels::ref::relu(gate.view()) : kernels::ref::silu_mul(gate.view(), up.view());
      for (const char* name : kFormats) {
        cuda::FrontArgs front;
        front.kind = kind;
        if (kind == Front::silu_mul) front.other = upload(up).as<>();
        const auto kept = std::move(memory);
        check(gate, front, computed, name, Scaling::rceil,
              std::string(name) + " " + std::string(info(type).name) + (kind == Front::relu ? " relu" : " silu"));
      }
    }
}

TEST_F(CudaFrontTest, NormsOfRowsOfAllLengths) {
  for (const DType type : kInputs)
    for (const std::int64_t k : {128, 640, 4096, 8192, 14336, 32768})
      for (const bool round_quotient : {true, false}) {
        if (type == DType::f32 && k > 8192) continue;
        const std::int64_t m = k > 8192 ? 5 : 37;
        const Tensor x = values(type, {m, k}, 0.7f), weight = values(type, {1, k});
        const Tensor computed = kernels::ref::rms_norm(x.view(), weight.view(), 1e-5f, round_quotient);
        for (const char* name : kFormats) {
          cuda::FrontArgs front;
          front.kind = Front::rms_norm;
          front.eps = 1e-5f;
          front.round_quotient = round_quotient;
          front.other = upload(weight).as<>();
          check(x, front, computed, name, Scaling::floor, std::string(name) + " " + to_string(x.shape()));
        }
      }
}

TEST_F(CudaFrontTest, HeadsForAttention) {
  for (const DType type : kInputs)
    for (const std::int64_t dim : {64, 128, 256})
      for (const int kind :
           {0, 1, 2, 3, 4}) {  // rotated, with Hadamard; neighbouring pairs, with Hadamard; Hadamard alone
        kernels::ref::HeadsCast heads;
        heads.batch = 2;
        heads.seq = 70;
        heads.heads = 6;
        heads.dim = dim;
        heads.heads_per_scale = kind % 2 ? 3 : 1;
        heads.interleaved = kind == 2 || kind == 3;
        heads.hadamard = kind % 2 || kind == 4;
        Tensor x = values(type, {heads.batch, heads.seq, heads.heads, dim});
        if (kind == 0)  // a head of zeros
          for (std::int64_t t = 0; t < heads.batch * heads.seq; ++t)
            std::memset(
                x.bytes().data() + static_cast<std::size_t>(t * heads.heads * dim) * x.bytes().size() /
                                       static_cast<std::size_t>(element_count(x.shape())),
                0,
                static_cast<std::size_t>(dim) * x.bytes().size() / static_cast<std::size_t>(element_count(x.shape())));
        Tensor cos(DType::f32, {heads.seq, dim / 2}), sin(DType::f32, {heads.seq, dim / 2});
        for (std::int64_t i = 0; i < heads.seq * dim / 2; ++i) {
          const double angle = static_cast<double>(i / (dim / 2)) * std::pow(10000.0, -2.0 * (i % (dim / 2)) / dim);
          cos.as<float>()[i] = static_cast<float>(std::cos(angle));
          sin.as<float>()[i] = static_cast<float>(std::sin(angle));
        }
        if (kind < 4) heads.cos = cos.as<float>(), heads.sin = sin.as<float>();
        const kernels::ref::HeadsResult expected = kernels::ref::rope_cast(x.view(), heads);
        cuda::HeadsTask task;
        task.x = upload(x).as<>();
        task.input = element_of(type);
        task.batch = heads.batch;
        task.seq = heads.seq;
        task.heads = heads.heads;
        task.dim = dim;
        task.heads_per_scale = heads.heads_per_scale;
        if (kind < 4) task.cos = upload(cos).as<float>(), task.sin = upload(sin).as<float>();
        task.interleaved = heads.interleaved;
        task.hadamard = heads.hadamard;
        const cuda::Memory &codes = room(expected.codes), &descale = room(expected.descale);
        task.codes = codes.as<>();
        task.descale = descale.as<float>();
        task.amax = room(expected.descale).as<std::uint32_t>();
        cuda::rope_cast(task, stream->handle());
        const std::string what =
            std::string(info(type).name) + " dim " + std::to_string(dim) + " kind " + std::to_string(kind);
        EXPECT_TRUE(same(codes, expected.codes)) << what;
        EXPECT_TRUE(same(descale, expected.descale)) << what;
        memory.clear();
      }
}

// Rounding by chance and the Hadamard transform, along both axes of experts, against the CPU's casts.
TEST_F(CudaFrontTest, TrainingOptions) {
  const std::int64_t experts = 2, m = 96, k = 160;
  for (const char* name : {"mxfp8", "mxfp8_e5m2", "mxfp6", "mxfp4", "nvfp4", "nvfp4_single", "nvfp4_training",
                           "nvfp4_training_block16", "fp8", "fp8_tensor"})
    for (const DType type : kInputs)
      for (const int options_of : {0, 1, 2, 3}) {
        const bool stochastic = options_of & 1, hadamard = options_of & 2;
        const BlockFormat format = formats::block_format(name);
        const Tensor x = values(type, {experts, m, k});
        CudaCastRequest request{x.view(), format,  {},      true, format.group_rows == 1 && format.group_cols > 0,
                                hadamard, nullptr, nullptr, {}};
        request.options.device = Device{0};
        if (stochastic) request.options.stochastic = formats::Stochastic{0x123456789ABCDEFull, 0};
        const CudaCast found = cast_on_cuda(request);
        for (const bool axis_m : {false, true}) {
          if (axis_m && !request.along_m) continue;
          const std::int64_t rows = axis_m ? k : m, columns = axis_m ? m : k;
          for (std::int64_t e = 0; e < experts; ++e) {
            Tensor one(type, {rows, columns});
            const std::size_t bytes = one.bytes().size(), width = bytes / static_cast<std::size_t>(rows * columns);
            const std::byte* from = x.bytes().data() + static_cast<std::size_t>(e) * bytes;
            if (axis_m)
              transpose(from, m, k, static_cast<std::int64_t>(width), one.bytes().data());
            else
              std::memcpy(one.bytes().data(), from, bytes);
            if (hadamard) one = hadamard16(one.view(), "x");
            CastOptions options;
            if (stochastic)
              options.stochastic = formats::Stochastic{0x123456789ABCDEFull, static_cast<std::uint64_t>(e * m * k)};
            const QuantizedMatrix expected = quantize(one.view(), format, options);
            const PlacedCast& placed = axis_m ? found.along_m : found.along_k;
            const std::size_t size = expected.codes.bytes().size();
            const std::string what = std::string(name) + " " + std::string(info(type).name) + " options " +
                                     std::to_string(options_of) + (axis_m ? " along m" : " along k");
            ASSERT_EQ(placed.codes.bytes().size(), size * experts) << what;
            EXPECT_EQ(std::memcmp(placed.codes.bytes().data() + static_cast<std::size_t>(e) * size,
                                  expected.codes.bytes().data(), size),
                      0)
                << what;
            if (format.tensor_scale)
              EXPECT_EQ(placed.tensor_scale[static_cast<std::size_t>(e)], expected.tensor_scale) << what;
          }
        }
      }
}

// Magnitude and cast in one launch, where blocks wait for each other.
TEST_F(CudaFrontTest, AmaxAndCastInOneLaunch) {
  for (const char* name : {"nvfp4", "nvfp4_training"})
    for (const DType type : kInputs)
      for (const auto& [m, k] : {std::pair<std::int64_t, std::int64_t>{1, 16}, {33, 208}, {3000, 4096}}) {
        const BlockFormat format = formats::block_format(name);
        const Tensor x = values(type, {m, k});
        const QuantizedMatrix expected = quantize(x.view(), format, {});
        cuda::CastTask task;
        task.x = upload(x).as<>();
        task.input = element_of(type);
        task.m = m;
        task.k = k;
        task.format = format;
        const cuda::Memory &codes = room(expected.codes), &scale = room(expected.scale);
        const cuda::Memory& amax = memory.emplace_back(sizeof(cuda::MatrixAmax));
        task.along_k.codes = codes.as<>();
        task.along_k.scale = scale.as<>();
        task.amax = amax.as<cuda::MatrixAmax>();
        ASSERT_TRUE(cuda::amax_and_cast(task, amax.as<cuda::MatrixAmax>(), stream->handle()));
        EXPECT_TRUE(same(codes, expected.codes)) << name << " " << to_string(x.shape());
        EXPECT_TRUE(same(scale, expected.scale)) << name << " " << to_string(x.shape());
        memory.clear();
      }
}

}  // namespace
}  // namespace lowp::ops
