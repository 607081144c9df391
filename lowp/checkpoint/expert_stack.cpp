#include "lowp/checkpoint/expert_stack.h"

#include <charconv>
#include <cstring>

#include "lowp/base/error.h"
#include "lowp/base/threads.h"

namespace lowp::checkpoint {
namespace {

std::string stack_of(const ExpertModule& module) {
  return module.block + (module.part == "down_proj" ? "down_proj" : "gate_up_proj");
}

bool is_part(std::string_view part) { return part == "gate_proj" || part == "up_proj" || part == "down_proj"; }

// Of an expert in a stack of this shape.
MatrixSlice slice_of(const StoredTensor& stack, std::int64_t expert, std::string_view part, bool columns) {
  const Shape& shape = stack.entry.shape;
  const std::int64_t size = shape[1] * shape[2], both = part == "down_proj" ? 1 : 2, second = part == "up_proj";
  if (columns) return {&stack, shape[2] / both, shape[1], expert * size + second, both, shape[2]};
  const std::int64_t n = shape[1] / both, k = shape[2];
  return {&stack, n, k, expert * size + second * n * k, k, 1};
}

void check_type(const StoredTensor& tensor, std::size_t dimensions) {
  if (tensor.entry.shape.size() != dimensions || !is_high_precision(tensor.entry.dtype))
    fail(ErrorCode::bad_input, "{}: tensor '{}': expected F16, BF16 or F32 of {} dimensions, found {} {}",
         tensor.file->path(), tensor.entry.name, dimensions, name(tensor.entry.dtype), to_string(tensor.entry.shape));
}

}  // namespace

std::optional<ExpertModule> parse_expert(std::string_view module) {
  const auto at = module.rfind(kExperts);
  if (at == module.npos) return std::nullopt;
  const std::size_t digits = at + kExperts.size(), dot = module.find('.', digits);
  if (dot == module.npos) return std::nullopt;
  ExpertModule found{std::string(module.substr(0, digits)), 0, std::string(module.substr(dot + 1))};
  const auto [end, error] = std::from_chars(module.data() + digits, module.data() + dot, found.expert);
  if (error != std::errc() || end != module.data() + dot || found.expert < 0) return std::nullopt;
  return found;
}

bool stacks_columns(const Checkpoint& checkpoint) {
  if (!checkpoint.config()) return false;
  const auto type = checkpoint.config()->find("model_type");
  return type != checkpoint.config()->end() && *type == "gpt_oss";
}

TensorView MatrixSlice::load(Tensor& holder) const {
  const TensorView whole = tensor->view();
  const std::size_t size = byte_count(whole.dtype, {1});
  const std::byte* from = whole.bytes.data() + static_cast<std::size_t>(first) * size;
  if (contiguous()) return {whole.dtype, {n, k}, {from, byte_count(whole.dtype, {n, k})}};
  holder = Tensor(whole.dtype, {n, k});
  std::byte* to = holder.bytes().data();
  constexpr std::int64_t kBand = 64;  // rows of the result: what is read of a row of the stack lies together
  parallel_for((n + kBand - 1) / kBand, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = 0; j < k; ++j)
      for (std::int64_t i = begin * kBand; i < std::min(end * kBand, n); ++i)
        std::memcpy(to + static_cast<std::size_t>(i * k + j) * size,
                    from + static_cast<std::size_t>(i * row + j * column) * size, size);
  });
  return holder.view();
}

std::vector<StackedMatrix> stacked_matrices(const StoredTensor& stack, bool columns) {
  const std::string& name = stack.entry.name;
  const std::string block = name.substr(0, name.rfind('.') + 1);
  std::vector<StackedMatrix> found;
  for (std::int64_t e = 0; e < stack.entry.shape[0]; ++e)
    for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
      const std::string module = fmt::format("{}{}.{}", block, e, part);
      if (stack_of({block, e, part}) == name) found.push_back({module, slice_of(stack, e, part, columns)});
    }
  return found;
}

std::optional<MatrixSlice> find_stacked(const Checkpoint& checkpoint, const std::string& module) {
  const auto parsed = parse_expert(module);
  if (!parsed || !is_part(parsed->part)) return std::nullopt;
  const StoredTensor* stack = checkpoint.find(stack_of(*parsed));
  if (!stack) return std::nullopt;
  check_type(*stack, 3);
  if (parsed->expert >= stack->entry.shape[0]) return std::nullopt;
  return slice_of(*stack, parsed->expert, parsed->part, stacks_columns(checkpoint));
}

std::optional<MatrixSlice> find_stacked_bias(const Checkpoint& checkpoint, const std::string& module, std::int64_t n) {
  const auto parsed = parse_expert(module);
  if (!parsed || !is_part(parsed->part)) return std::nullopt;
  const StoredTensor* stack = checkpoint.find(stack_of(*parsed) + "_bias");
  if (!stack) return std::nullopt;
  check_type(*stack, 2);
  const Shape& shape = stack->entry.shape;
  const std::int64_t both = parsed->part == "down_proj" ? 1 : 2;
  if (shape[1] != both * n || parsed->expert >= shape[0])
    fail(ErrorCode::bad_input, "{}: tensor '{}': expected more than {} rows of {}, found {}", stack->file->path(),
         stack->entry.name, parsed->expert, both * n, to_string(shape));
  return MatrixSlice{stack, n, 1, parsed->expert * shape[1] + (parsed->part == "up_proj"), both, 1};
}

}  // namespace lowp::checkpoint
