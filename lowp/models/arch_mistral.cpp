// Mistral: Llama with a window in all layers, or in none.
#include "lowp/models/architecture.h"

namespace lowp::models {

const Architecture kMistral = {"MistralForCausalLM", slide_all_layers};

}  // namespace lowp::models
