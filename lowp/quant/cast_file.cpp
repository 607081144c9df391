#include "lowp/quant/cast_file.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/checkpoint/safetensors.h"
#include "lowp/ops/cast_cuda.h"

namespace lowp::quant {
namespace {

using checkpoint::SafetensorsFile;
using checkpoint::TensorEntry;
using formats::BlockFormat;
using formats::ScaleLayout;

constexpr const char* kNote = "lowp.cast";  // metadata key: how the file was made

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// [r, c] -> [c, r] for each of `count` matrices.
Tensor transposed(const TensorView& x, std::int64_t count, std::int64_t r, std::int64_t c, const Shape& shape) {
  Tensor out(x.dtype, shape);
  const std::int64_t width = info(x.dtype).bits / 8;
  for (std::int64_t e = 0; e < count; ++e)
    transpose(x.bytes.data() + e * r * c * width, r, c, width, out.bytes().data() + e * r * c * width);
  return out;
}

Shape with_experts(const std::optional<std::int64_t>& experts, Shape shape) {
  if (experts) shape.insert(shape.begin(), *experts);
  return shape;
}

// Dimensions of a tensor of one or several matrices.
struct Dims {
  std::optional<std::int64_t> experts;
  std::int64_t n, k;
  std::int64_t count() const { return experts.value_or(1); }
};
Dims dims_of(const Shape& shape) {
  return shape.size() == 3 ? Dims{shape[0], shape[1], shape[2]} : Dims{std::nullopt, shape[0], shape[1]};
}

// The place of every scale of a tensor whose native scale matrix is [h, w] for each expert.
formats::ScaleMap scale_map(const CastFileRequest& request, const BlockFormat& format, const std::string& name,
                            const Dims& dims, std::int64_t h, std::int64_t w, std::vector<std::int64_t> ends) {
  if (info(format.scale).bits != 8 || !format.has_scale())
    fail(ErrorCode::usage, "{}: scale layout {} holds one-byte scales, {} has none", name,
         formats::name(request.layout), format.name);
  const bool grouped = request.layout == ScaleLayout::tiled_m_groups || request.layout == ScaleLayout::tiled_k_groups;
  if (grouped && dims.experts)
    fail(ErrorCode::usage, "{}: scale layout {} is for one 2-D matrix, found three dimensions", name,
         formats::name(request.layout));
  if (request.layout == ScaleLayout::tiled && dims.experts && h % formats::kTileRows != 0)
    fail(ErrorCode::usage, "{}: with {} rows an expert, tiles would hold rows of two experts; use tiled_per_expert",
         name, h);
  if (request.layout == ScaleLayout::tiled_k_groups)
    for (std::int64_t& end : ends) {
      if (end % format.group_cols != 0)
        fail(ErrorCode::usage, "{}: group end {} is not a multiple of the block size {}", name, end, format.group_cols);
      end /= format.group_cols;
    }
  return formats::ScaleMap(request.layout, h, w, ends, dims.count());
}

std::vector<std::int64_t> read_group_ends(const SafetensorsFile& in, const CastFileRequest& request) {
  const bool needed = request.layout == ScaleLayout::tiled_m_groups || request.layout == ScaleLayout::tiled_k_groups;
  if (!needed) {
    if (!request.group_ends.empty())
      fail(ErrorCode::usage, "--group-ends goes with --scale-layout tiled_m_groups or tiled_k_groups");
    return {};
  }
  if (request.group_ends.empty())
    fail(ErrorCode::usage, "--scale-layout {} needs --group-ends TENSOR", formats::name(request.layout));
  const TensorEntry* entry = in.find(request.group_ends);
  if (!entry) fail(ErrorCode::usage, "{}: has no tensor '{}' (--group-ends)", in.path(), request.group_ends);
  if ((entry->dtype != DType::i32 && entry->dtype != DType::i64) || entry->shape.size() != 1)
    fail(ErrorCode::usage, "{}: tensor '{}': expected I32 or I64 [groups], found {} {}", in.path(), entry->name,
         name(entry->dtype), to_string(entry->shape));
  const TensorView view = in.view(*entry);
  std::vector<std::int64_t> ends(static_cast<std::size_t>(entry->shape[0]));
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (entry->dtype == DType::i64) {
      std::memcpy(&ends[i], view.bytes.data() + 8 * i, 8);
    } else {
      std::int32_t end;
      std::memcpy(&end, view.bytes.data() + 4 * i, 4);
      ends[i] = end;
    }
  }
  return ends;
}

// Quantizes all matrices of x [.., n, k] along its last dimension; `suffix` is "" or "_n" (x already transposed).
class TensorCast {
 public:
  TensorCast(const CastFileRequest& request, const BlockFormat& format, std::string where,
             std::vector<std::int64_t> ends)
      : request_(request), format_(format), where_(std::move(where)), ends_(std::move(ends)) {}

  void run(const TensorView& given, bool along_n, const std::string& name, const std::string& suffix,
           std::vector<NamedTensor>& out) {
    const Dims dims = dims_of(given.shape);
    const Tensor rotated = request_.hadamard ? ops::hadamard16(given, where_) : Tensor();
    const TensorView x = request_.hadamard ? rotated.view() : given;
    std::vector<QuantizedMatrix> parts;
    ops::CastOptions options;
    options.scaling = request_.scaling;
    options.device = request_.device;
    const std::size_t bytes = x.bytes.size() / static_cast<std::size_t>(std::max<std::int64_t>(dims.count(), 1));
    for (std::int64_t e = 0; e < dims.count(); ++e) {
      options.name = dims.experts ? fmt::format("{} (expert {})", where_, e) : where_;
      if (request_.seed)
        options.stochastic = formats::Stochastic{*request_.seed, static_cast<std::uint64_t>(e * dims.n * dims.k)};
      const TensorView slice{x.dtype, {dims.n, dims.k}, x.bytes.subspan(static_cast<std::size_t>(e) * bytes, bytes)};
      parts.push_back(quantize(slice, format_, Algorithm::absmax, options));
      sqnr_.push_back(ops::sqnr(slice, parts.back(), options));
    }
    const QuantizedMatrix& first = parts.front();
    const std::int64_t h = format_.scale_rows(dims.n), w = format_.scale_cols(dims.k);
    const auto gather = [&](const std::function<std::span<const std::byte>(const QuantizedMatrix&)>& field, DType type,
                            const Shape& shape) {
      Tensor all(type, shape);
      std::size_t at = 0;
      for (const QuantizedMatrix& part : parts) {
        const auto from = field(part);
        std::copy(from.begin(), from.end(), all.bytes().begin() + static_cast<std::ptrdiff_t>(at));
        at += from.size();
      }
      return all;
    };
    const auto put = [&](const char* field, Tensor tensor) {
      out.push_back({name + "." + field + suffix, std::move(tensor)});
    };
    // Logical scales of the n axis are [.., n blocks, k]: the transpose of what the transposed matrix has.
    const auto put_scales = [&](const char* field, Tensor native) {
      if (along_n) native = transposed(native.view(), dims.count(), h, w, with_experts(dims.experts, {w, h}));
      put(field, std::move(native));
    };

    put("data", gather([](const QuantizedMatrix& q) { return q.codes.bytes(); }, first.codes.dtype(),
                       with_experts(dims.experts, first.codes.shape())));
    if (format_.has_scale()) {
      Tensor native = gather([](const QuantizedMatrix& q) { return q.scale.bytes(); }, first.scale.dtype(),
                             with_experts(dims.experts, {h, w}));
      if (request_.layout == ScaleLayout::rows) {
        put_scales("scale", std::move(native));
      } else {
        const formats::ScaleMap map = scale_map(request_, format_, where_, dims, h, w, ends_);
        Tensor tiled(DType::u8, map.shape());
        map.apply({native.as<std::uint8_t>(), native.bytes().size()}, {tiled.as<std::uint8_t>(), tiled.bytes().size()});
        put("scale", std::move(tiled));
      }
    }
    if (format_.zero_point != formats::ZeroPoint::none)
      put_scales("zero_point", gather([](const QuantizedMatrix& q) { return q.zero_point.bytes(); },
                                      first.zero_point.dtype(), with_experts(dims.experts, {h, w})));
    if (format_.tensor_scale)
      put("tensor_scale", gather([](const QuantizedMatrix& q) { return std::as_bytes(std::span(&q.tensor_scale, 1)); },
                                 DType::f32, {dims.count()}));
    if (format_.rule == formats::Rule::codebook)
      put("codebook", gather([](const QuantizedMatrix& q) { return q.codebook.bytes(); }, DType::f32,
                             with_experts(dims.experts, {16})));
  }

  // The same on a GPU, all axes and experts at once; x is not transposed. For formats without a codebook, which a GPU
  // does not fit.
  void run_on_cuda(const TensorView& x, const std::string& name, std::vector<NamedTensor>& out) {
    const Dims dims = dims_of(x.shape);
    ops::CudaCastRequest job{
        x, format_, {}, request_.axis != Axis::n, request_.axis != Axis::k, request_.hadamard, nullptr, nullptr, {}};
    job.options.scaling = request_.scaling;
    if (request_.seed) job.options.stochastic = formats::Stochastic{*request_.seed, 0};
    job.options.device = request_.device;
    job.options.name = where_;
    std::optional<formats::ScaleMap> maps[2];
    for (const bool along_n : {false, true}) {
      if (request_.layout == ScaleLayout::rows || !(along_n ? job.along_m : job.along_k)) continue;
      const std::int64_t rows = along_n ? dims.k : dims.n, columns = along_n ? dims.n : dims.k;
      maps[along_n] =
          scale_map(request_, format_, where_, dims, format_.scale_rows(rows), format_.scale_cols(columns), ends_);
      (along_n ? job.map_m : job.map_k) = &*maps[along_n];
    }
    ops::CudaCast cast = ops::cast_on_cuda(job);
    for (const bool along_n : {false, true}) {
      if (!(along_n ? job.along_m : job.along_k)) continue;
      ops::PlacedCast& placed = along_n ? cast.along_m : cast.along_k;
      const std::string suffix = along_n && request_.axis == Axis::both ? "_n" : "";
      compare_on_host(x, dims, along_n, placed, maps[along_n]);
      const auto put = [&](const char* field, Tensor tensor, bool laid_out = false) {
        Shape shape = tensor.shape();
        if (!dims.experts && !laid_out) shape.erase(shape.begin());
        out.push_back({name + "." + field + suffix, std::move(tensor).reinterpret(tensor.dtype(), shape)});
      };
      put("data", std::move(placed.codes));
      if (format_.has_scale()) put("scale", std::move(placed.scale), maps[along_n].has_value());
      if (format_.zero_point != formats::ZeroPoint::none) put("zero_point", std::move(placed.zero_point));
      if (format_.tensor_scale) {
        Tensor scales(DType::f32, {dims.count()});
        std::copy(placed.tensor_scale.begin(), placed.tensor_scale.end(), scales.as<float>());
        put("tensor_scale", std::move(scales), true);
      }
    }
  }

  // Of the worst expert and axis; none if there was a NaN.
  std::optional<double> sqnr() const {
    if (std::any_of(sqnr_.begin(), sqnr_.end(), [](double s) { return std::isnan(s); })) return std::nullopt;
    return *std::min_element(sqnr_.begin(), sqnr_.end());
  }

 private:
  // The SQNR of one orientation of a cast, computed here from what the GPU made.
  void compare_on_host(const TensorView& x, const Dims& dims, bool along_n, const ops::PlacedCast& placed,
                       const std::optional<formats::ScaleMap>& map) {
    const std::int64_t rows = along_n ? dims.k : dims.n, columns = along_n ? dims.n : dims.k;
    const std::int64_t h = format_.scale_rows(rows), w = format_.scale_cols(columns);
    const Tensor flipped =
        along_n ? transposed(x, dims.count(), dims.n, dims.k, {dims.count(), rows, columns}) : Tensor();
    const TensorView plain = along_n ? flipped.view() : x;
    const Tensor rotated = request_.hadamard ? ops::hadamard16(plain, where_) : Tensor();
    const TensorView values = request_.hadamard ? rotated.view() : plain;
    // Scales and zero points as a quantized matrix holds them, [experts, h, w].
    const auto native = [&](const Tensor& t, bool laid_out) {
      const Shape shape = {dims.count(), h, w};
      if (t.empty() || (!laid_out && !along_n)) return t;
      if (!laid_out) return transposed(t.view(), dims.count(), w, h, shape);
      Tensor back(t.dtype(), shape);
      map->invert({t.as<std::uint8_t>(), t.bytes().size()}, {back.as<std::uint8_t>(), back.bytes().size()});
      return back;
    };
    const Tensor scale = native(placed.scale, map.has_value()), zero_point = native(placed.zero_point, false);
    for (std::int64_t e = 0; e < dims.count(); ++e) {
      QuantizedMatrix part = ops::allocate(format_, element_of(x.dtype), rows, columns, where_);
      const auto take = [&](Tensor& to, const Tensor& from) {
        std::copy_n(from.bytes().begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(e) * to.bytes().size()),
                    to.bytes().size(), to.bytes().begin());
      };
      take(part.codes, placed.codes);
      take(part.scale, scale);
      take(part.zero_point, zero_point);
      if (format_.tensor_scale) part.tensor_scale = placed.tensor_scale[static_cast<std::size_t>(e)];
      const std::size_t bytes = values.bytes.size() / static_cast<std::size_t>(dims.count());
      ops::CastOptions options;
      options.name = where_;
      sqnr_.push_back(ops::sqnr(
          {x.dtype, {rows, columns}, values.bytes.subspan(static_cast<std::size_t>(e) * bytes, bytes)}, part, options));
    }
  }

  const CastFileRequest& request_;
  const BlockFormat& format_;
  std::string where_;
  std::vector<std::int64_t> ends_;
  std::vector<double> sqnr_;
};

void write_file(const std::string& path, const std::vector<NamedTensor>& tensors,
                std::map<std::string, std::string> metadata) {
  std::vector<TensorEntry> entries;
  for (const NamedTensor& t : tensors) entries.push_back({t.name, t.tensor.dtype(), t.tensor.shape()});
  std::error_code ignored;
  if (const auto status = std::filesystem::status(path, ignored); exists(status) && !is_regular_file(status))
    fail(ErrorCode::io, "{}: exists and is not a regular file", path);  // the finished file would replace it
  OutputFile file(path);
  checkpoint::SafetensorsWriter writer(file.writer(), std::move(entries), std::move(metadata));
  for (const NamedTensor& t : tensors) writer.append(t.name, t.tensor.bytes());
  writer.finish();
  file.commit();
}

// Codes of less than a byte have one each, which could hold more.
void check_codes(const TensorView& codes, const BlockFormat& format, const std::string& where) {
  const auto& element = info(format.element);
  if (element.bits >= 8 || format.two_codes_a_byte()) return;
  const bool is_signed = !element.is_float() && element.is_signed;
  const int low = is_signed ? -(1 << (element.bits - 1)) : 0, high = low + (1 << element.bits) - 1;
  for (std::size_t i = 0; i < codes.bytes.size(); ++i) {
    const int code = is_signed ? codes.as<std::int8_t>()[i] : codes.as<std::uint8_t>()[i];
    if (code < low || code > high)
      fail(ErrorCode::bad_input, "{}: value {} at {}: codes of {} are from {} to {}", where, code, i, format.name, low,
           high);
  }
}

// A tensor `T<field>` of a cast file, checked.
TensorView field(const SafetensorsFile& in, const std::string& name, std::optional<Shape> shape,
                 std::initializer_list<DType> types) {
  const TensorEntry* entry = in.find(name);
  if (!entry) fail(ErrorCode::bad_input, "{}: tensor '{}' is missing", in.path(), name);
  if (std::find(types.begin(), types.end(), entry->dtype) == types.end())
    fail(ErrorCode::bad_input, "{}: tensor '{}': unexpected type {}", in.path(), name, lowp::name(entry->dtype));
  if (shape && entry->shape != *shape)
    fail(ErrorCode::bad_input, "{}: tensor '{}': expected {}, found {}", in.path(), name, to_string(*shape),
         to_string(entry->shape));
  return in.view(*entry);
}

// The quantized matrices of tensor `base` of a cast file, as they were before writing.
std::vector<QuantizedMatrix> read_parts(const SafetensorsFile& in, const CastFileRequest& request,
                                        const BlockFormat& format, const std::string& base,
                                        const std::vector<std::int64_t>& ends, Dims& dims) {
  const TensorEntry* data = in.find(base + ".data");
  if (data->shape.size() != 2 && data->shape.size() != 3)
    fail(ErrorCode::bad_input, "{}: tensor '{}': expected two or three dimensions, found {}", in.path(), data->name,
         to_string(data->shape));
  dims = dims_of(data->shape);
  if (format.two_codes_a_byte()) dims.k *= 2;
  std::vector<QuantizedMatrix> parts;
  for (std::int64_t e = 0; e < dims.count(); ++e)
    parts.push_back(ops::allocate(format, formats::Elem::bf16, dims.n, dims.k, in.path() + ": " + base));
  if (parts.empty()) return parts;
  const auto scatter = [&](const TensorView& from, auto&& field_of) {
    std::size_t at = 0;
    for (QuantizedMatrix& part : parts) {
      const std::span<std::byte> to = field_of(part);
      std::copy_n(from.bytes.begin() + static_cast<std::ptrdiff_t>(at), to.size(), to.begin());
      at += to.size();
    }
  };
  const DType code_type = parts[0].codes.dtype();
  const bool bytes = info(code_type).bits == 8;  // one-byte codes may also come as U8
  const TensorView codes = field(in, base + ".data", std::nullopt, {code_type, bytes ? DType::u8 : code_type});
  check_codes(codes, format, in.path() + ": tensor '" + base + ".data'");
  scatter(codes, [](QuantizedMatrix& q) { return q.codes.bytes(); });
  const std::int64_t h = format.scale_rows(dims.n), w = format.scale_cols(dims.k);
  const bool along_n = request.axis == Axis::n;
  const auto scales = [&](const char* name, DType type, auto&& field_of) {
    const Shape shape = with_experts(dims.experts, along_n ? Shape{w, h} : Shape{h, w});
    const TensorView stored = field(in, base + name, shape, {type, DType::u8});
    const Tensor back = along_n ? transposed(stored, dims.count(), w, h, with_experts(dims.experts, {h, w})) : Tensor();
    scatter(along_n ? back.view() : stored, field_of);
  };
  if (format.has_scale()) {
    if (request.layout == ScaleLayout::rows) {
      scales(".scale", parts[0].scale.dtype(), [](QuantizedMatrix& q) { return q.scale.bytes(); });
    } else {
      const formats::ScaleMap map = scale_map(request, format, base, dims, h, w, ends);
      const TensorView stored = field(in, base + ".scale", map.shape(), {DType::u8});
      Tensor native(DType::u8, with_experts(dims.experts, {h, w}));
      map.invert({stored.as<std::uint8_t>(), stored.bytes.size()}, {native.as<std::uint8_t>(), native.bytes().size()});
      scatter(native.view(), [](QuantizedMatrix& q) { return q.scale.bytes(); });
    }
  }
  if (format.zero_point != formats::ZeroPoint::none)
    scales(".zero_point", parts[0].zero_point.dtype(), [](QuantizedMatrix& q) { return q.zero_point.bytes(); });
  if (format.tensor_scale)
    scatter(field(in, base + ".tensor_scale", Shape{dims.count()}, {DType::f32}),
            [](QuantizedMatrix& q) { return std::as_writable_bytes(std::span(&q.tensor_scale, 1)); });
  if (format.rule == formats::Rule::codebook)
    scatter(field(in, base + ".codebook", with_experts(dims.experts, {16}), {DType::f32}),
            [](QuantizedMatrix& q) { return q.codebook.bytes(); });
  return parts;
}

}  // namespace

CastFileReport cast_file(const CastFileRequest& request) {
  const BlockFormat format = formats::block_format(request.format);
  const SafetensorsFile in(request.input);
  const std::vector<std::int64_t> ends = read_group_ends(in, request);
  CastFileReport report{format.name, {}, {}};
  std::vector<NamedTensor> out;
  for (const TensorEntry& entry : in.header().tensors) {
    const bool matrix = is_high_precision(entry.dtype) && (entry.shape.size() == 2 || entry.shape.size() == 3);
    if (!matrix) {
      if (entry.name != request.group_ends)
        report.skipped.push_back(fmt::format("{} ({} {})", entry.name, name(entry.dtype), to_string(entry.shape)));
      continue;
    }
    if (entry.shape[0] == 0)
      fail(ErrorCode::bad_input, "{}: tensor '{}' {} is empty", request.input, entry.name, to_string(entry.shape));
    TensorCast cast(request, format, request.input + ": tensor '" + entry.name + "'", ends);
    const TensorView x = in.view(entry);
    const std::size_t before = out.size();
    const bool on_cuda = request.device.is_cuda() && format.rule != formats::Rule::codebook;
    if (on_cuda) cast.run_on_cuda(x, entry.name, out);
    if (!on_cuda && request.axis != Axis::n) cast.run(x, false, entry.name, "", out);
    if (!on_cuda && request.axis != Axis::k) {
      const Dims dims = dims_of(entry.shape);
      const Tensor flipped = transposed(x, dims.count(), dims.n, dims.k, with_experts(dims.experts, {dims.k, dims.n}));
      cast.run(flipped.view(), true, entry.name, request.axis == Axis::both ? "_n" : "", out);
    }
    CastReport row{entry.name, entry.shape, 0, std::nullopt};
    for (std::size_t i = before; i < out.size(); ++i) row.bytes += out[i].tensor.bytes().size();
    row.sqnr = cast.sqnr();
    report.tensors.push_back(std::move(row));
  }
  if (report.tensors.empty())
    fail(ErrorCode::bad_input, "{}: holds no F16, BF16 or F32 tensor of two or three dimensions", request.input);
  Json note = {{"format", format.name},
               {"axis", request.axis == Axis::n ? "n" : "k"},
               {"scale_layout", formats::name(request.layout)},
               {"group_ends", ends}};
  write_file(request.output, out, {{kNote, note.dump()}});
  return report;
}

CastFileReport decode_file(const CastFileRequest& asked, DType dtype) {
  const SafetensorsFile in(asked.input);
  CastFileRequest request = asked;
  std::vector<std::int64_t> ends;
  if (const auto at = in.header().metadata.find(kNote); at != in.header().metadata.end()) {
    const std::string where = in.path() + ": metadata " + kNote;
    const Json note = parse_json(at->second, where, {4, 1 << 20});
    try {
      request.format = note.at("format").get<std::string>();
      const auto axis = note.at("axis").get<std::string>(), layout = note.at("scale_layout").get<std::string>();
      const auto known = formats::find_scale_layout(layout);
      if ((axis != "k" && axis != "n") || !known)
        fail(ErrorCode::bad_input, "{}: expected axis k or n and a known scale layout, found {} and {}", where,
             quote(axis), quote(layout));
      request.axis = axis == "n" ? Axis::n : Axis::k;
      request.layout = *known;
      ends = note.at("group_ends").get<std::vector<std::int64_t>>();
    } catch (const Json::exception& error) {
      fail(ErrorCode::bad_input, "{}: {}", where, error.what());
    }
  } else if (request.format.empty()) {
    fail(ErrorCode::usage, "{}: was not written by `lowp cast`; say --format (and --axis, --scale-layout)", in.path());
  } else {
    ends = read_group_ends(in, request);
  }
  const BlockFormat format = formats::block_format(request.format);
  CastFileReport report{format.name, {}, {}};
  std::vector<NamedTensor> out;
  constexpr std::string_view kData = ".data";
  for (const TensorEntry& entry : in.header().tensors) {
    if (!entry.name.ends_with(kData)) continue;
    const std::string base = entry.name.substr(0, entry.name.size() - kData.size());
    if (base.empty())
      fail(ErrorCode::bad_input, "{}: tensor '{}' is of no tensor: expected T.data", in.path(), entry.name);
    Dims dims{};
    const std::vector<QuantizedMatrix> parts = read_parts(in, request, format, base, ends, dims);
    Tensor all(dtype, with_experts(dims.experts, {dims.n, dims.k}));
    std::size_t at = 0;
    for (const QuantizedMatrix& part : parts) {
      const Tensor values = ops::dequantize(part, dtype, request.device);
      std::copy(values.bytes().begin(), values.bytes().end(), all.bytes().begin() + static_cast<std::ptrdiff_t>(at));
      at += values.bytes().size();
    }
    if (request.axis == Axis::n)
      all = transposed(all.view(), dims.count(), dims.n, dims.k, with_experts(dims.experts, {dims.k, dims.n}));
    report.tensors.push_back({base, all.shape(), all.bytes().size(), std::nullopt});
    out.push_back({base, std::move(all)});
  }
  if (out.empty()) fail(ErrorCode::bad_input, "{}: holds no tensor named *.data", in.path());
  write_file(request.output, out, {});
  return report;
}

}  // namespace lowp::quant
