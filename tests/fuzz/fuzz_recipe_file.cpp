// Recipe files: any bytes give rules or an Error; rules can be asked about any module.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lowp/base/error.h"
#include "lowp/base/json.h"
#include "lowp/quant/rules.h"

std::vector<std::string> fuzz_seeds() {
  return {
      R"([{"match": "*", "recipe": "int4"}])",
      R"([{"match": "re:.*layers\\.[01]\\..*", "recipe": null}, {"match": "lm_head", "recipe": "int8-bf16"}])",
      R"([{"match": "a?b*", "recipe": "int4_g64_float-bf16", "algorithm": "hqq"}])",
      R"([{"match": "re:(a|b)+?(?=c)[^x]{2,3}$", "recipe": "int7_channel_asym-bf16"}])",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    lowp::quant::Rules rules = lowp::quant::Rules::parse(lowp::parse_json(text, "input"), "input");
    using lowp::quant::Role;
    for (const char* module : {"lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.gate", ""})
      for (const Role role : {Role::linear, Role::head, Role::embedding, Role::router}) {
        try {
          rules.choose(module, role);
        } catch (const lowp::Error&) {  // a head cannot have this recipe; the next module can
        }
      }
    rules.unmatched();
  } catch (const lowp::Error&) {
  }
  return 0;
}
