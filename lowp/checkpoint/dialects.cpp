// The list of dialects.   <- ADD A DIALECT HERE
#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"

namespace lowp::checkpoint {

std::string Dialect::obstacle(const QuantizedModule& module) const {
  if (module.reordered) return name() + " cannot say that columns are in activation order";
  if (module.pre_scaled) return name() + " cannot say that inputs are multiplied by a scale for each column";
  return refusal(module.recipe);
}

std::vector<TensorEntry> Dialect::unit_layout(std::span<const QuantizedModule> modules) const {
  LOWP_CHECK(modules.size() == 1, "{} modules in a unit of {}", modules.size(), name());
  return layout(modules[0]);
}

std::vector<Tensor> Dialect::unit_encode(std::span<const QuantizedModule> modules,
                                         std::span<const QuantizedMatrix> weights) const {
  LOWP_CHECK(modules.size() == 1 && weights.size() == 1, "{} modules in a unit of {}", modules.size(), name());
  return encode(modules[0], weights[0]);
}

std::map<std::string, Json> Dialect::side_files(std::span<const QuantizedModule>, std::span<const std::string>) const {
  return {};
}

std::map<std::string, std::string> Dialect::metadata(std::span<const QuantizedModule>,
                                                     std::span<const std::string>) const {
  return {};
}

std::vector<std::string> Dialect::sources(const Checkpoint& checkpoint, const QuantizedModule& module) const {
  std::vector<std::string> names;
  for (TensorEntry& entry : layout(module))
    if (checkpoint.find(entry.name)) names.push_back(std::move(entry.name));
  return names;
}

void Dialect::check_output(const std::string&, bool) const {
  check_failed("is_file()", __FILE__, __LINE__, name() + " is a folder");
}

FileReport Dialect::write_file(const Checkpoint&, const std::string&,
                               const std::function<void(std::uint64_t, std::uint64_t)>&) const {
  check_failed("is_file()", __FILE__, __LINE__, name() + " is a folder");
}

std::string ReadOnlyDialect::refusal(const formats::Recipe&) const { return "lowp reads " + name() + " only"; }

namespace {
[[noreturn]] void never_written(const Dialect& dialect) {
  check_failed("writes()", __FILE__, __LINE__, dialect.name() + " is read only");
}
}  // namespace

std::vector<TensorEntry> ReadOnlyDialect::layout(const QuantizedModule&) const { never_written(*this); }
std::vector<Tensor> ReadOnlyDialect::encode(const QuantizedModule&, const QuantizedMatrix&) const {
  never_written(*this);
}
Json ReadOnlyDialect::config(std::span<const QuantizedModule>, std::span<const std::string>) const {
  never_written(*this);
}
std::map<std::string, std::string> ReadOnlyDialect::metadata(std::span<const QuantizedModule>,
                                                             std::span<const std::string>) const {
  never_written(*this);
}

std::span<const Dialect* const> dialects() {
  static const Dialect* const list[] = {&compressed_tensors_dialect(),
                                        &torchao_dialect(),
                                        &gguf_dialect(),
                                        &lowp_dialect(),
                                        &modelopt_dialect(),
                                        &gpt_oss_dialect(),
                                        &fp8_block_dialect(),
                                        &gptq_dialect(),
                                        &awq_dialect(),
                                        &bitsandbytes_dialect(),
                                        &hqq_dialect(),
                                        &mlx_dialect()};
  return list;
}

std::string dialect_list() {
  std::vector<std::string> names;
  for (const Dialect* dialect : dialects())
    if (dialect->writes()) names.push_back(dialect->name());
  return fmt::format("{}", fmt::join(names, ", "));
}

const Dialect& find_dialect(const std::string& name) {
  std::vector<std::string> names;
  for (const Dialect* dialect : dialects()) {
    if (!dialect->writes()) continue;
    if (dialect->name() == name) return *dialect;
    names.push_back(dialect->name());
  }
  fail(ErrorCode::usage, "unknown dialect {}{}; lowp writes {}", quote(name), did_you_mean(name, names),
       dialect_list());
}

const Dialect* detect_dialect(const Checkpoint& checkpoint) {
  for (const Dialect* dialect : dialects())
    if (dialect->recognizes(checkpoint)) return dialect;
  if (const std::string method = quant_method(checkpoint); !method.empty())
    fail(ErrorCode::unsupported, "{}: quant_method {} is not one that lowp reads", checkpoint.path(), quote(method));
  if (quantization_config(checkpoint))
    fail(ErrorCode::unsupported, "{}: config.json has a quantization_config without quant_method", checkpoint.path());
  return nullptr;
}

const Dialect& default_dialect(std::span<const formats::Recipe> recipes) {
  for (const Dialect* dialect : {&compressed_tensors_dialect(), &torchao_dialect()})
    if (std::all_of(recipes.begin(), recipes.end(),
                    [&](const formats::Recipe& recipe) { return dialect->refusal(recipe).empty(); }))
      return *dialect;
  return lowp_dialect();  // refuses nothing
}

}  // namespace lowp::checkpoint
