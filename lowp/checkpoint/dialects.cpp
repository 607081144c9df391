// The list of dialects.   <- ADD A DIALECT HERE
#include <algorithm>

#include "lowp/base/error.h"
#include "lowp/base/nearest.h"
#include "lowp/checkpoint/dialect.h"
#include "lowp/checkpoint/dialect_support.h"

namespace lowp::checkpoint {

std::span<const Dialect* const> dialects() {
  static const Dialect* const list[] = {&compressed_tensors_dialect(), &torchao_dialect(), &gguf_dialect(),
                                        &lowp_dialect()};
  return list;
}

const Dialect& find_dialect(const std::string& name) {
  std::vector<std::string> names;
  for (const Dialect* dialect : dialects()) {
    if (dialect->name() == name) return *dialect;
    names.push_back(dialect->name());
  }
  fail(ErrorCode::usage, "unknown dialect {}{}; there are {}", quote(name), did_you_mean(name, names),
       fmt::join(names, ", "));
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
  for (const Dialect* dialect : dialects())
    if (std::all_of(recipes.begin(), recipes.end(),
                    [&](const formats::Recipe& recipe) { return dialect->refusal(recipe).empty(); }))
      return *dialect;
  return lowp_dialect();  // refuses nothing
}

}  // namespace lowp::checkpoint
