#include "lowp/text/stream_decoder.h"

namespace lowp::text {

std::string StreamDecoder::push(std::int32_t id) {
  std::string text;
  tokenizer_.decode_token(id, skip_special_, state_, text);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  tokenizer_.decode_end(state_, text);
  return text;
}

}  // namespace lowp::text
