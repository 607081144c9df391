#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "lowp/base/error.h"
#include "lowp/text/jinja/ast.h"
#include "lowp/text/jinja/lexer.h"

namespace lowp::text::jinja {
namespace {

using Kind = Node::Kind;
constexpr int kMaxDepth = 100;  // of expressions and blocks within another
constexpr int kMaxChain = 200;  // operators in a row: the tree of them is as deep

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  NodePtr run() {
    NodePtr all = block({});
    if (peek().kind != TokenKind::end) wrong("unexpected " + quote(tokens_[at_ + 1].text));
    return all;
  }

 private:
  // Counts how deep the parser is; a template of a million brackets is refused, not run into the end of the stack.
  class Deeper {
   public:
    explicit Deeper(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.wrong("nested too deep");
    }
    ~Deeper() { --parser_.depth_; }

   private:
    Parser& parser_;
  };

  [[noreturn]] void wrong(const std::string& what) const {
    lowp::fail(ErrorCode::bad_input, "template line {}: {}", peek().line, what);
  }

  void check_chain(int count) const {
    if (count > kMaxChain) wrong("an expression is too long");
  }

  // ---- tokens
  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token take() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }
  bool is(TokenKind kind, std::string_view text) const { return peek().kind == kind && peek().text == text; }
  bool is_op(std::string_view text) const { return is(TokenKind::op, text); }
  bool is_word(std::string_view text) const { return is(TokenKind::name, text); }
  bool accept(TokenKind kind, std::string_view text) {
    if (!is(kind, text)) return false;
    ++at_;
    return true;
  }
  bool accept_op(std::string_view text) { return accept(TokenKind::op, text); }
  bool accept_word(std::string_view text) { return accept(TokenKind::name, text); }
  void expect(TokenKind kind, std::string_view text) {
    if (!accept(kind, text)) wrong(fmt::format("expected {}, found {}", quote(text), quote(peek().text)));
  }
  std::string name() {
    if (peek().kind != TokenKind::name) wrong("expected a name, found " + quote(peek().text));
    return take().text;
  }
  void end_tag() {
    if (peek().kind != TokenKind::block_end) wrong("unexpected " + quote(peek().text) + " in a tag");
    ++at_;
  }
  NodePtr make(Kind kind, std::string text = "") const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = peek().line;
    node->text = std::move(text);
    return node;
  }
  NodePtr make(Kind kind, std::string text, NodePtr part) const {
    NodePtr node = make(kind, std::move(text));
    node->parts.push_back(std::move(part));
    return node;
  }

  // ---- statements

  // Until a tag that begins with one of the words, which stays.
  NodePtr block(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    NodePtr all = make(Kind::block);
    for (;;) {
      if (peek().kind == TokenKind::end) {
        if (ends.size() > 0) wrong(fmt::format("expected {{% {} %}}, found the end", *ends.begin()));
        return all;
      }
      if (peek().kind == TokenKind::text) {
        all->parts.push_back(make(Kind::output, peek().text));
        ++at_;
      } else if (peek().kind == TokenKind::print_begin) {
        ++at_;
        all->parts.push_back(make(Kind::print, "", tuple()));
        if (peek().kind != TokenKind::print_end) wrong("unexpected " + quote(peek().text));
        ++at_;
      } else {
        const std::string& word = peek(1).text;
        if (peek(1).kind == TokenKind::name && std::find(ends.begin(), ends.end(), word) != ends.end()) return all;
        if (NodePtr node = statement()) all->parts.push_back(std::move(node));
      }
    }
  }

  // {% WORD %}, which is there.
  void close(std::string_view word) {
    ++at_;
    expect(TokenKind::name, word);
    end_tag();
  }

  NodePtr statement() {
    ++at_;  // block_begin
    const std::string word = name();
    if (word == "if") return branch();
    if (word == "for") return loop();
    if (word == "set") return assign();
    if (word == "macro") return macro();
    if (word == "filter") {
      NodePtr node = make(Kind::filter_block, "", filters(nullptr));
      end_tag();
      node->parts.push_back(block({"endfilter"}));
      close("endfilter");
      return node;
    }
    if (word == "generation") {  // marks what the model said, for training; as text it is what is in it
      end_tag();
      NodePtr node = block({"endgeneration"});
      close("endgeneration");
      return node;
    }
    if (word == "break" || word == "continue") {
      NodePtr node = make(word == "break" ? Kind::loop_break : Kind::loop_continue);
      if (loops_ == 0) wrong(word + " outside of a loop");
      end_tag();
      return node;
    }
    for (const char* known :
         {"block", "extends", "include", "import", "from", "call", "with", "do", "autoescape", "trans"})
      if (word == known)
        lowp::fail(ErrorCode::unsupported, "template line {}: the tag {} is not supported", peek().line, quote(word));
    wrong("unexpected tag " + quote(word));
  }

  NodePtr branch() {
    const Deeper deeper(*this);
    NodePtr node = make(Kind::branch, "", expression());
    end_tag();
    node->parts.push_back(block({"elif", "else", "endif"}));
    ++at_;
    const std::string word = name();
    if (word == "elif") {
      node->parts.push_back(branch());
    } else {
      end_tag();
      if (word == "else") {
        node->parts.push_back(block({"endif"}));
        close("endif");
      } else {
        node->parts.push_back(nullptr);
      }
    }
    return node;
  }

  NodePtr loop() {
    NodePtr node = make(Kind::loop);
    targets(node->names);
    expect(TokenKind::name, "in");
    // No conditional expression here: "if" filters the loop.
    node->parts.push_back(either());
    node->parts.push_back(accept_word("if") ? expression() : nullptr);
    if (is_word("recursive"))
      lowp::fail(ErrorCode::unsupported, "template line {}: recursive loops are not supported", peek().line);
    end_tag();
    ++loops_;
    node->parts.push_back(block({"else", "endfor"}));
    --loops_;
    ++at_;
    const std::string word = name();
    end_tag();
    if (word == "else") {
      node->parts.push_back(block({"endfor"}));
      close("endfor");
    } else {
      node->parts.push_back(nullptr);
    }
    return node;
  }

  void targets(std::vector<std::string>& names) {
    const bool bracket = accept_op("(");
    do names.push_back(name());
    while (accept_op(","));
    if (bracket) expect(TokenKind::op, ")");
  }

  NodePtr assign() {
    NodePtr node = make(Kind::assign);
    targets(node->names);
    if (node->names.size() == 1 && accept_op(".")) node->text = name();
    if (accept_op("=")) {
      node->parts.push_back(tuple());
      end_tag();
      return node;
    }
    node->kind = Kind::assign_block;
    if (node->names.size() > 1 || !node->text.empty()) wrong("expected '='");
    NodePtr chain = is_op("|") ? filter_chain(nullptr) : nullptr;
    end_tag();
    node->parts.push_back(block({"endset"}));
    node->parts.push_back(std::move(chain));
    close("endset");
    return node;
  }

  NodePtr macro() {
    NodePtr node = make(Kind::macro, name());
    expect(TokenKind::op, "(");
    while (!accept_op(")")) {
      if (!node->named.empty()) expect(TokenKind::op, ",");
      if (accept_op(")")) break;
      std::string parameter = name();
      node->named.emplace_back(std::move(parameter), accept_op("=") ? expression() : nullptr);
    }
    end_tag();
    const int loops = std::exchange(loops_, 0);
    node->parts.push_back(block({"endmacro"}));
    loops_ = loops;
    ++at_;
    expect(TokenKind::name, "endmacro");
    if (peek().kind == TokenKind::name) ++at_;
    end_tag();
    return node;
  }

  // ---- expressions, loosest first

  NodePtr tuple() {
    NodePtr first = expression();
    if (!is_op(",")) return first;
    NodePtr list = make(Kind::list, "", std::move(first));
    while (accept_op(",")) {
      if (peek().kind == TokenKind::block_end || peek().kind == TokenKind::print_end || is_op(")")) break;
      list->parts.push_back(expression());
    }
    return list;
  }

  NodePtr expression() {
    const Deeper deeper(*this);
    NodePtr node = either();
    while (accept_word("if")) {
      node = make(Kind::conditional, "", std::move(node));
      node->parts.push_back(either());
      node->parts.push_back(accept_word("else") ? expression() : nullptr);
    }
    return node;
  }

  using Level = NodePtr (Parser::*)();
  NodePtr infix(Level operand, std::initializer_list<std::string_view> ops, TokenKind kind) {
    NodePtr left = (this->*operand)();
    for (int count = 0; peek().kind == kind && std::find(ops.begin(), ops.end(), peek().text) != ops.end();
         check_chain(++count)) {
      left = make(Kind::binary, peek().text, std::move(left));
      ++at_;
      left->parts.push_back((this->*operand)());
    }
    return left;
  }
  NodePtr either() { return infix(&Parser::both, {"or"}, TokenKind::name); }
  NodePtr both() { return infix(&Parser::negation, {"and"}, TokenKind::name); }

  NodePtr negation() {
    if (!is_word("not")) return comparison();
    const Deeper deeper(*this);
    ++at_;
    return make(Kind::unary, "not", negation());
  }

  NodePtr comparison() {
    NodePtr node = sum();
    NodePtr chain;
    for (;;) {
      std::string op;
      if (peek().kind == TokenKind::op) {
        for (const std::string_view known : {"==", "!=", "<", "<=", ">", ">="})
          if (peek().text == known) op = known;
      } else if (is_word("in")) {
        op = "in";
      } else if (is_word("not") && peek(1).kind == TokenKind::name && peek(1).text == "in") {
        op = "not in";
        ++at_;
      }
      if (op.empty()) return chain ? std::move(chain) : std::move(node);
      if (!chain) chain = make(Kind::compare, "", std::move(node));
      ++at_;
      chain->names.push_back(op);
      chain->parts.push_back(sum());
    }
  }

  NodePtr sum() { return infix(&Parser::concatenation, {"+", "-"}, TokenKind::op); }
  NodePtr concatenation() { return infix(&Parser::product, {"~"}, TokenKind::op); }
  NodePtr product() { return infix(&Parser::power, {"*", "/", "//", "%"}, TokenKind::op); }
  NodePtr power() { return infix(&Parser::filtered, {"**"}, TokenKind::op); }
  NodePtr filtered() { return filters(unary()); }

  NodePtr unary() {
    const Deeper deeper(*this);
    if (is_op("-") || is_op("+")) {
      const std::string sign = take().text;
      return make(Kind::unary, sign, unary());
    }
    return postfix(primary());
  }

  NodePtr primary() {
    const Token token = peek();
    const auto literal = [&](Value value) {
      NodePtr node = make(Kind::literal);
      node->value = std::move(value);
      return node;
    };
    if (token.kind == TokenKind::name) {
      NodePtr node = make(Kind::name, token.text);
      ++at_;
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(nullptr);
      return node;
    }
    if (token.kind == TokenKind::string) {
      std::string text;
      while (peek().kind == TokenKind::string) text += take().text;
      return literal(std::move(text));
    }
    if (token.kind == TokenKind::integer) {
      std::int64_t value = 0;
      const auto [end, error] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
      if (error != std::errc()) wrong("a number is too large");
      ++at_;
      return literal(value);
    }
    if (token.kind == TokenKind::real) {
      double value = 0;
      std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
      ++at_;
      return literal(value);
    }
    if (accept_op("(")) {
      if (accept_op(")")) return make(Kind::list);
      NodePtr inside = tuple();
      expect(TokenKind::op, ")");
      return inside;
    }
    if (accept_op("[")) {
      NodePtr list = make(Kind::list);
      while (!accept_op("]")) {
        if (!list->parts.empty()) expect(TokenKind::op, ",");
        if (accept_op("]")) break;
        list->parts.push_back(expression());
      }
      return list;
    }
    if (accept_op("{")) {
      NodePtr dict = make(Kind::dict);
      while (!accept_op("}")) {
        if (!dict->parts.empty()) expect(TokenKind::op, ",");
        if (accept_op("}")) break;
        dict->parts.push_back(expression());
        expect(TokenKind::op, ":");
        dict->parts.push_back(expression());
      }
      return dict;
    }
    wrong("unexpected " + quote(token.text));
  }

  NodePtr postfix(NodePtr node) {
    for (int count = 0;; check_chain(++count)) {
      if (accept_op(".")) {
        if (peek().kind == TokenKind::integer) {
          node = make(Kind::index, "", std::move(node));
          node->parts.push_back(primary());
        } else {
          std::string attribute = name();
          node = make(Kind::attribute, std::move(attribute), std::move(node));
        }
      } else if (accept_op("[")) {
        node = subscript(std::move(node));
      } else if (is_op("(")) {
        node = make(Kind::call, "", std::move(node));
        arguments(*node);
      } else {
        return node;
      }
    }
  }

  NodePtr subscript(NodePtr object) {
    NodePtr parts[3];
    int given = 0;
    bool is_slice = false;
    while (!is_op("]")) {
      if (accept_op(":")) {
        is_slice = true;
        if (++given > 2) wrong("a slice has at most three parts");
      } else if (parts[given]) {
        wrong("unexpected " + quote(peek().text));
      } else {
        parts[given] = expression();
      }
    }
    ++at_;
    if (!is_slice && !parts[0]) wrong("an empty index");
    NodePtr node = make(is_slice ? Kind::slice : Kind::index, "", std::move(object));
    for (int i = 0; i < (is_slice ? 3 : 1); ++i) node->parts.push_back(std::move(parts[i]));
    return node;
  }

  void arguments(Node& call) {
    expect(TokenKind::op, "(");
    bool first = true;
    while (!accept_op(")")) {
      if (!std::exchange(first, false)) expect(TokenKind::op, ",");
      if (accept_op(")")) break;
      if (peek().kind == TokenKind::name && peek(1).kind == TokenKind::op && peek(1).text == "=") {
        std::string parameter = name();
        ++at_;
        call.named.emplace_back(std::move(parameter), expression());
      } else {
        if (!call.named.empty()) wrong("a positional argument after a named one");
        call.parts.push_back(expression());
      }
    }
  }

  // "| name(...)" and "is name ...", any number of them.
  NodePtr filters(NodePtr node) {
    if (!node) return filter_chain(nullptr, true);
    for (int count = 0;; check_chain(++count)) {
      if (is_op("|"))
        node = filter_chain(std::move(node));
      else if (is_word("is"))
        node = test(std::move(node));
      else
        return node;
    }
  }

  NodePtr filter_chain(NodePtr node, bool begins = false) {
    for (int count = 0; std::exchange(begins, false) || accept_op("|"); check_chain(++count)) {
      std::string filter = name();
      node = make(Kind::filter, std::move(filter), std::move(node));
      if (is_op("(")) arguments(*node);
    }
    return node;
  }

  NodePtr test(NodePtr node) {
    ++at_;
    const bool negated = accept_word("not");
    std::string what = name();
    node = make(Kind::test, std::move(what), std::move(node));
    node->negated = negated;
    const Token& next = peek();
    const bool word = next.kind == TokenKind::name && next.text != "else" && next.text != "and" && next.text != "or" &&
                      next.text != "is" && next.text != "if" && next.text != "not" && next.text != "in";
    if (is_op("("))
      arguments(*node);
    else if (word || next.kind == TokenKind::string || next.kind == TokenKind::integer ||
             next.kind == TokenKind::real || is_op("[") || is_op("{"))
      node->parts.push_back(postfix(primary()));
    return node;
  }

  const std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

NodePtr parse(std::string_view source) { return Parser(source).run(); }

}  // namespace lowp::text::jinja
