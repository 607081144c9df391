#include "lowp/text/post_processor.h"

#include <map>

#include "lowp/base/error.h"
#include "lowp/text/fields.h"

namespace lowp::text {
namespace {

using SpecialTokens = std::map<std::string, std::vector<std::int32_t>>;

// Offsets and type ids are not ours; the fields are read so that they are known.
void read_byte_level(Fields& fields) {
  for (const char* option : {"add_prefix_space", "trim_offsets", "use_regex"}) fields.flag(option, true);
}

SpecialTokens read_special_tokens(Fields& fields, const Vocabulary& vocabulary) {
  SpecialTokens tokens;
  for (const auto& [name, value] : fields.object("special_tokens").items()) {
    Fields token(value, fields.path("special_tokens") + ": " + quote(name));
    token.find("id"), token.find("tokens");  // spellings; the ids count
    for (const Json& element : token.array("ids")) {
      const std::int32_t id = read_token_id(element, token.path("ids"));
      if (!vocabulary.token(id)) fail(ErrorCode::bad_input, "{}: no token has the id {}", token.path("ids"), id);
      tokens[name].push_back(id);
    }
    token.done();
  }
  return tokens;
}

// One of {"SpecialToken": {"id": "<s>"}} and {"Sequence": {"id": "A"}}.
void read_piece(const Json& json, const std::string& where, const SpecialTokens& tokens, bool& has_text,
                PostProcessor& out) {
  Fields piece(json, where);
  const bool is_text = piece.find("Sequence") != nullptr;
  Fields content(piece.required(is_text ? "Sequence" : "SpecialToken"), where);
  const std::string name = content.string("id");
  content.find("type_id");
  content.done();
  piece.done();
  if (is_text) {
    if (name != "A" || has_text) fail(ErrorCode::unsupported, "{}: a template of more than the text", where);
    has_text = true;
    return;
  }
  const auto token = tokens.find(name);
  if (token == tokens.end()) fail(ErrorCode::bad_input, "{}: no special token {}", where, quote(name));
  auto& side = has_text ? out.suffix : out.prefix;
  side.insert(side.end(), token->second.begin(), token->second.end());
}

void read_template(Fields& fields, const Vocabulary& vocabulary, PostProcessor& out) {
  fields.find("pair");  // for two sequences, which lowp never encodes together
  const SpecialTokens tokens = read_special_tokens(fields, vocabulary);
  bool has_text = false;
  int index = 0;
  for (const Json& piece : fields.array("single"))
    read_piece(piece, fmt::format("{}[{}]", fields.path("single"), index++), tokens, has_text, out);
  if (!has_text) fail(ErrorCode::unsupported, "{}: a template without the text", fields.path("single"));
}

}  // namespace

PostProcessor PostProcessor::parse(const Json& json, const std::string& where, const Vocabulary& vocabulary) {
  PostProcessor result;
  bool has_template = false;
  visit_components(json, where, "processors", [&](const std::string& type, Fields& fields) {
    if (type == "ByteLevel") return read_byte_level(fields);
    if (type != "TemplateProcessing" || has_template)
      fail(ErrorCode::unsupported, "{}: {} is not supported{}", fields.where(), quote(type),
           has_template ? " here" : "");
    has_template = true;
    read_template(fields, vocabulary, result);
  });
  return result;
}

}  // namespace lowp::text
