#include "lowp/quant/rewrite.h"

#include "lowp/base/error.h"
#include "lowp/base/threads.h"
#include "lowp/checkpoint/model_writer.h"
#include "lowp/kernels/head_hadamard.h"

namespace lowp::quant {
namespace {

using checkpoint::StoredTensor;

// One bit of a fixed, well mixed sequence (splitmix64).
bool negative(std::uint64_t i) {
  std::uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return (z >> 63) != 0;
}

void scale(std::vector<float>& values, const Rewrite& change, std::int64_t rows, std::int64_t columns) {
  LOWP_CHECK(change.columns.empty() || static_cast<std::int64_t>(change.columns.size()) == columns, "{} factors for {}",
             change.columns.size(), columns);
  LOWP_CHECK(change.rows.empty() || static_cast<std::int64_t>(change.rows.size()) == rows, "{} factors for {}",
             change.rows.size(), rows);
  const float one = change.adds_one ? 1.0f : 0.0f;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      float& value = values[static_cast<std::size_t>(r * columns + c)];
      value += one;
      if (!change.columns.empty()) value *= change.columns[static_cast<std::size_t>(c)];
      if (!change.rows.empty()) value *= change.rows[static_cast<std::size_t>(r)];
      value -= one;
    }
}

void rotate_rows_of(std::vector<float>& values, int block, std::int64_t rows, std::int64_t columns) {
  parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      rotate(std::span(values).subspan(static_cast<std::size_t>(r * columns), static_cast<std::size_t>(columns)),
             block);
  });
}

void rotate_columns_of(std::vector<float>& values, int block, std::int64_t rows, std::int64_t columns) {
  parallel_for(columns, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> column(static_cast<std::size_t>(rows));
    for (std::int64_t c = begin; c < end; ++c) {
      for (std::int64_t r = 0; r < rows; ++r) column[r] = values[r * columns + c];
      rotate(column, block);
      for (std::int64_t r = 0; r < rows; ++r) values[r * columns + c] = column[r];
    }
  });
}

Tensor changed(const StoredTensor& tensor, const Rewrite& change) {
  const Shape& shape = tensor.entry.shape;
  if (!is_high_precision(tensor.entry.dtype) || shape.empty() || shape.size() > 2)
    fail(ErrorCode::unsupported,
         "{}: tensor '{}' {} {} cannot be rewritten: expected F16, BF16 or F32, a matrix or vector",
         tensor.file->path(), tensor.entry.name, name(tensor.entry.dtype), to_string(shape));
  const std::int64_t columns = shape.back(), rows = element_count(shape) / std::max<std::int64_t>(columns, 1);
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  load_f32(tensor.view(), 0, rows * columns, values.data());
  scale(values, change, rows, columns);
  if (change.rotate_columns) rotate_rows_of(values, change.rotate_columns, rows, columns);
  if (change.rotate_rows) rotate_columns_of(values, change.rotate_rows, rows, columns);
  if (change.ones) std::fill(values.begin(), values.end(), 1.0f);
  Tensor result(tensor.entry.dtype, shape);
  store_rounded(result, 0, values);
  tensor.file->release(tensor.view().bytes);
  return result;
}

checkpoint::OutputItem changed_item(const StoredTensor& tensor, const std::string& name, const Rewrite& change) {
  return {{{name, tensor.entry.dtype, tensor.entry.shape}},
          [&tensor, name, &change](checkpoint::SafetensorsWriter& writer) {
            writer.append(name, changed(tensor, change).bytes());
          }};
}

}  // namespace

void rotate(std::span<float> x, int block) {
  const auto size = static_cast<std::size_t>(block);
  LOWP_CHECK(block > 0 && (size & (size - 1)) == 0 && x.size() % size == 0, "rotating {} values in blocks of {}",
             x.size(), block);
  for (std::size_t at = 0; at < x.size(); at += size) {
    float* v = x.data() + at;
    for (std::size_t i = 0; i < size; ++i) v[i] = negative(i) ? -v[i] : v[i];
    kernels::hadamard_head(v, block);
  }
}

void write_rewritten(const checkpoint::Checkpoint& checkpoint, const Rewriting& rewriting, const std::string& output) {
  checkpoint::OutputModel model;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const auto change = rewriting.tensors.find(tensor.entry.name);
    model.items.push_back(change == rewriting.tensors.end() ? checkpoint::copied(tensor, [](auto) {})
                                                            : changed_item(tensor, tensor.entry.name, change->second));
  }
  for (const auto& [name, change] : rewriting.tensors)
    if (!change.source.empty()) model.items.push_back(changed_item(*checkpoint.find(change.source), name, change));
  model.config = checkpoint.config();
  if (model.config && rewriting.untie_head) (*model.config)["tie_word_embeddings"] = false;
  checkpoint::ModelWriter(checkpoint, output, false).write(model);
}

}  // namespace lowp::quant
