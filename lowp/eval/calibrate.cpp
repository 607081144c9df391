#include "lowp/eval/calibrate.h"

#include <algorithm>
#include <cmath>

#include "lowp/base/error.h"
#include "lowp/eval/encode.h"

namespace lowp::eval {

std::map<std::string, float> input_amax(models::Model& model, const text::Tokenizer& tokenizer, const std::string& text,
                                        std::int64_t tokens,
                                        const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::vector<std::int32_t> ids = encode(model, tokenizer, text, true);
  if (ids.empty()) fail(ErrorCode::bad_input, "the calibration text has no tokens");
  ids.resize(std::min(ids.size(), static_cast<std::size_t>(tokens)));
  std::map<std::string, float> largest;
  model.set_tap(
      [&](const std::string& module, std::span<const float> input, std::int64_t, std::span<const float>, std::int64_t) {
        float& amax = largest[module];
        for (const float x : input) amax = std::max(amax, std::fabs(x));
      });
  const auto window = static_cast<std::size_t>(std::min<std::int64_t>(512, model.config().max_position_embeddings));
  for (std::size_t at = 0; at < ids.size(); at += window) {
    models::Cache cache(model);
    const models::Chunk chunk{std::span(ids).subspan(at, std::min(window, ids.size() - at)), &cache};
    model.forward({&chunk, 1});
    if (progress) progress(std::min(at + window, ids.size()), ids.size());
  }
  model.set_tap(nullptr);
  return largest;
}

}  // namespace lowp::eval
