// A template as a tree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowp/text/jinja/value.h"

namespace lowp::text::jinja {

struct Node;
using NodePtr = std::unique_ptr<Node>;

struct Node {
  enum class Kind : std::uint8_t {
    // Expressions
    literal,      // value
    name,         // text
    attribute,    // parts[0].text
    index,        // parts[0][parts[1]]
    slice,        // parts[0][parts[1]:parts[2]:parts[3]], any of the last three may be null
    call,         // parts[0](parts[1..], named)
    filter,       // parts[0] | text(parts[1..], named); in a filter block parts[0] is null
    test,         // parts[0] is text(parts[1..]); negated: "is not"
    unary,        // text: "not", "-", "+"
    binary,       // parts[0] text parts[1]: arithmetic, "~", "and", "or"
    compare,      // parts[0] names[0] parts[1] names[1] parts[2] ...
    conditional,  // parts[0] if parts[1] else parts[2]; the last may be null
    list,         // parts
    dict,         // parts: key, value, key, value ...
    // Statements
    block,         // parts
    output,        // text
    print,         // parts[0]
    branch,        // if parts[0] parts[1] else parts[2]; the last may be null
    loop,          // for names in parts[0] if parts[1]: parts[2] else parts[3]; parts[1] and [3] may be null
    assign,        // set names = parts[0]; text: the attribute of a namespace names[0], or ""
    assign_block,  // set names[0]: parts[0] is a block, parts[1] a chain of filters around it, or null
    macro,         // text(named: parameters with their defaults, or null): parts[0]
    filter_block,  // parts[0]: a chain of filters around parts[1], a block
    loop_break,
    loop_continue,
  };
  Kind kind;
  int line = 0;
  bool negated = false;
  std::string text = {};
  Value value = {};
  std::vector<NodePtr> parts = {};
  std::vector<std::string> names = {};
  std::vector<std::pair<std::string, NodePtr>> named = {};
};

/// The block that is the whole template. Throws Error(bad_input) naming the line for what is not a template, and
/// Error(unsupported) for a tag that lowp does not have.
NodePtr parse(std::string_view source);

}  // namespace lowp::text::jinja
