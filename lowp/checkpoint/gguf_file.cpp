#include "lowp/checkpoint/gguf_file.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "lowp/base/error.h"
#include "lowp/checkpoint/gguf_blocks.h"
#include "lowp/checkpoint/gguf_config.h"

namespace lowp::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".gguf";
constexpr const char* kRopeFreqs = "rope_freqs.weight";  // becomes a part of the config
constexpr std::int64_t kMaxFiles = 1000;

// The numbers of "PREFIX-00002-of-00003.gguf".
struct SplitName {
  std::string prefix;
  std::int64_t number = 1, count = 1;

  std::string path(std::int64_t i) const { return fmt::format("{}-{:05}-of-{:05}{}", prefix, i, count, kSuffix); }
};

std::optional<SplitName> split_of(const std::string& path) {
  constexpr std::size_t kTail = std::string_view("-00001-of-00001.gguf").size();
  if (path.size() <= kTail || !path.ends_with(kSuffix)) return std::nullopt;
  const std::string_view tail = std::string_view(path).substr(path.size() - kTail);
  SplitName split{path.substr(0, path.size() - kTail)};
  const auto number = [&](std::size_t at, std::int64_t& out) {
    const auto [end, error] = std::from_chars(tail.data() + at, tail.data() + at + 5, out);
    return error == std::errc() && end == tail.data() + at + 5 && out >= 1;
  };
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !number(1, split.number) || !number(10, split.count))
    return std::nullopt;
  return split;
}

void check_split(const GgufFile& file, std::int64_t number, std::int64_t count) {
  const GgufMetadata& metadata = file.header().metadata;
  const std::int64_t found = metadata.count("split.count").value_or(1), at = metadata.count("split.no").value_or(0);
  if (found != count || (count > 1 && at != number - 1))
    fail(ErrorCode::bad_input, "{}: its name says file {} of {}, split.no and split.count say {} of {}", file.path(),
         number, count, at + 1, found);
}

std::vector<std::unique_ptr<GgufFile>> open_files(const std::string& path) {
  std::vector<std::unique_ptr<GgufFile>> files;
  const auto split = split_of(path);
  if (!split) {
    files.push_back(std::make_unique<GgufFile>(path));
    check_split(*files.front(), 1, 1);
    return files;
  }
  if (split->number != 1) fail(ErrorCode::usage, "{}: a part of a model; the first is {}", path, split->path(1));
  if (split->count > kMaxFiles) fail(ErrorCode::bad_input, "{}: a model of {} files", path, split->count);
  for (std::int64_t i = 1; i <= split->count; ++i) {
    files.push_back(std::make_unique<GgufFile>(split->path(i)));
    check_split(*files.back(), i, split->count);
  }
  return files;
}

// A tensor and its file.
struct Found {
  const GgufFile* file = nullptr;
  const GgufTensor* tensor = nullptr;
};

Found find(const std::vector<std::unique_ptr<GgufFile>>& files, std::string_view name) {
  for (const auto& file : files)
    for (const GgufTensor& tensor : file->header().tensors)
      if (tensor.name == name) return {file.get(), &tensor};
  return {};
}

}  // namespace

bool is_gguf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  char magic[4] = {};
  return in.read(magic, 4) && std::memcmp(magic, "GGUF", 4) == 0;
}

GgufFile::GgufFile(const std::string& path) : file_(path), header_(parse_gguf(file_.bytes(), path)) {}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return file_.bytes().subspan(header_.data_offset + tensor.begin, tensor.end - tensor.begin);
}

void GgufFile::name_entries(const GgufArchitecture& architecture, std::int64_t head_dim, std::int64_t experts) {
  head_dim_ = head_dim;
  for (const GgufTensor& tensor : header_.tensors) {
    if (tensor.name == kRopeFreqs) continue;
    const auto name = hugging_face_name(architecture, tensor.name);
    if (!name)
      fail(ErrorCode::unsupported, "{}: tensor {} is not one that lowp knows of architecture {}", path(),
           quote(tensor.name), architecture.gguf);
    const auto star = name->find('*');
    if (star == name->npos) {
      add_entry(architecture, *name, tensor);
      continue;
    }
    if (tensor.shape[0] != experts || tensor.shape.size() > 3)
      fail(ErrorCode::bad_input, "{}: tensor {}: expected {} experts, found {}", path(), quote(tensor.name), experts,
           to_string(tensor.shape));
    GgufTensor part = tensor;
    const std::uint64_t bytes = (tensor.end - tensor.begin) / static_cast<std::uint64_t>(experts);
    if (part.shape.size() > 1)
      part.shape.erase(part.shape.begin());
    else
      part.shape = {1};
    for (std::int64_t e = 0; e < experts; ++e) {
      part.begin = tensor.begin + static_cast<std::uint64_t>(e) * bytes;
      part.end = part.begin + bytes;
      std::string one = *name;
      add_entry(architecture, one.replace(star, 1, std::to_string(e)), part);
    }
  }
}

void GgufFile::add_entry(const GgufArchitecture& architecture, const std::string& name, const GgufTensor& tensor) {
  TensorEntry entry{name, DType::u8, tensor.shape, tensor.begin, tensor.end};
  if (tensor.type->plain) {
    entry.dtype = *tensor.type->plain;
  } else {
    if (tensor.shape.size() > 2)
      fail(ErrorCode::bad_input, "{}: tensor {}: {} {}, expected a matrix", path(), quote(tensor.name),
           tensor.type->name, to_string(tensor.shape));
    entry.blocks = tensor.type->name;
    const std::int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
    entry.shape = {rows, static_cast<std::int64_t>(tensor.end - tensor.begin) / rows};
  }
  if (has_paired_rows(architecture, name) && entry.shape[0] > 1) {
    if (entry.shape[0] % head_dim_ != 0 || head_dim_ % 2 != 0)
      fail(ErrorCode::bad_input, "{}: tensor {}: {} rows are not heads of {}", path(), quote(tensor.name),
           entry.shape[0], head_dim_);
    changes_.emplace(name, Change::rows_in_halves);
  }
  if (has_added_one(architecture, name)) {
    if (tensor.type->plain != DType::f32)
      fail(ErrorCode::unsupported, "{}: tensor {}: expected a norm in F32, found {}", path(), quote(tensor.name),
           tensor.type->name);
    changes_.emplace(name, Change::minus_one);
  }
  entries_.push_back(std::move(entry));
}

std::span<const std::byte> GgufFile::raw(const TensorEntry& entry) const {
  return file_.bytes().subspan(header_.data_offset + entry.begin, entry.end - entry.begin);
}

TensorView GgufFile::view(const TensorEntry& entry) const {
  const auto bytes = raw(entry);
  const auto change = changes_.find(entry.name);
  if (change == changes_.end()) return {entry.dtype, entry.shape, bytes};
  const std::lock_guard lock(mutex_);
  Tensor& out = changed_[entry.name];
  if (!out.empty()) return out.view();
  out = Tensor(entry.dtype, entry.shape);
  if (change->second == Change::rows_in_halves) {
    const std::int64_t rows = entry.shape[0];
    const std::size_t width = bytes.size() / static_cast<std::size_t>(rows);
    for (std::int64_t r = 0; r < rows; ++r)
      std::memcpy(out.bytes().data() + static_cast<std::size_t>(r) * width,
                  bytes.data() + static_cast<std::size_t>(halves_from_pairs(r, head_dim_)) * width, width);
  } else {
    // Adding the 1 again gives what the file says: the difference is exact from 0.5 on, and below, it has been rounded
    // when the file was made.
    const std::int64_t count = element_count(entry.shape);
    load_f32({entry.dtype, entry.shape, bytes}, 0, count, out.as<float>());
    for (std::int64_t i = 0; i < count; ++i) out.as<float>()[i] -= 1;
  }
  return out.view();
}

void GgufFile::release(std::span<const std::byte> part) const {
  const auto all = file_.bytes();
  if (!part.empty() && part.data() >= all.data() && part.data() < all.data() + all.size()) file_.release(part);
}

GgufModel open_gguf(const std::string& path) {
  GgufModel model{open_files(path), {}};
  const GgufMetadata& metadata = model.metadata();
  const auto name = metadata.text("general.architecture");
  if (!name) fail(ErrorCode::bad_input, "{}: general.architecture is missing", path);
  const std::int64_t experts = metadata.count(*name + ".expert_count").value_or(0);
  const GgufArchitecture* architecture = find_gguf_architecture(*name, experts > 0);
  if (!architecture)
    fail(ErrorCode::unsupported, "{}: general.architecture: {}{} is not supported ({} are)", path, quote(*name),
         experts > 0 ? " with experts" : "", gguf_architecture_names());

  GgufTensorFacts facts;
  const Found embedding = find(model.files, "token_embd.weight");
  if (!embedding.tensor || embedding.tensor->shape.size() != 2)
    fail(ErrorCode::bad_input, "{}: token_embd.weight, a matrix, is missing", path);
  facts.vocab_size = embedding.tensor->shape[0];
  facts.tied = !find(model.files, "output.weight").tensor;
  facts.attention_bias =
      find(model.files, "blk.0.attn_q.bias").tensor && find(model.files, "blk.0.attn_output.bias").tensor;
  std::vector<float> factors;
  if (const Found freqs = find(model.files, kRopeFreqs); freqs.tensor) {
    if (freqs.tensor->type->plain != DType::f32 || freqs.tensor->shape.size() != 1)
      fail(ErrorCode::bad_input, "{}: {}: expected F32 of one dimension, found {} {}", path, kRopeFreqs,
           freqs.tensor->type->name, to_string(freqs.tensor->shape));
    factors.resize(static_cast<std::size_t>(freqs.tensor->shape[0]));
    std::memcpy(factors.data(), freqs.file->bytes(*freqs.tensor).data(), 4 * factors.size());
    facts.rope_freqs = factors;
  }
  model.config = config_from_gguf(metadata, *architecture, facts);
  for (const auto& file : model.files)
    file->name_entries(*architecture, model.config["head_dim"].get<std::int64_t>(), experts);
  return model;
}

}  // namespace lowp::checkpoint
