#include "lowp/text/stream_decoder.h"

#include "lowp/base/utf8.h"

namespace lowp::text {

std::string StreamDecoder::push(std::int32_t id) {
  const std::string& bytes = tokenizer_.bytes(id);
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  pending_ += bytes;
  std::string text;
  pending_.erase(0, pending_.size() - append_lossy(text, pending_));
  return text;
}

std::string StreamDecoder::flush() {
  const std::string text(pending_.empty() ? "" : kReplacement);
  pending_.clear();
  return text;
}

}  // namespace lowp::text
