#include "lowp/eval/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/eval/encode.h"
#include "lowp/eval/perplexity.h"

namespace lowp::eval {
namespace {

std::string text_field(const Json& json, const std::string& where, const char* key) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_string()) fail(ErrorCode::bad_input, "{}: {}: expected a string", where, key);
  return at->get<std::string>();
}

constexpr const char* kBlanks = " \t\n\r\v\f";

std::string_view stripped(std::string_view text) {
  const std::size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

std::int64_t characters(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// Tokens of context and continuation together, and how many of them are the continuation's. Trailing blanks of the
// context belong to the continuation, so that a word keeps its leading blank.
struct Pair {
  std::vector<std::int32_t> ids;
  std::size_t scored = 0;
};
Pair encode_pair(const models::Model& model, const text::Tokenizer& tokenizer, std::string context,
                 std::string continuation) {
  const std::size_t end = context.find_last_not_of(kBlanks) + 1;
  continuation = context.substr(end) + continuation;
  context.resize(end);
  Pair pair{encode(model, tokenizer, context + continuation, true)};
  const std::size_t before = std::min(tokenizer.encode(context, true).size(), pair.ids.size());
  pair.scored = pair.ids.size() - before;
  return pair;
}

double log_likelihood(models::Model& model, const text::Tokenizer& tokenizer, const Question::Choice& choice,
                      const std::string& where) {
  Pair pair = encode_pair(model, tokenizer, choice.context, choice.continuation);
  if (pair.scored == 0) fail(ErrorCode::bad_input, "{}: a choice has no token of its own", where);
  if (pair.scored == pair.ids.size()) pair.ids.insert(pair.ids.begin(), prefix_token(model));  // no context
  const auto length = static_cast<std::int64_t>(pair.ids.size()) - 1;  // the last token is only predicted
  if (length > model.config().max_position_embeddings)
    fail(ErrorCode::bad_input, "{}: {} tokens, the model's context is {}", where, length,
         model.config().max_position_embeddings);
  models::Cache cache(model);
  const models::Chunk chunk{std::span(pair.ids).first(static_cast<std::size_t>(length)), &cache};
  model.forward({&chunk, 1});
  std::vector<std::int64_t> rows(pair.scored);
  std::iota(rows.begin(), rows.end(), length - static_cast<std::int64_t>(pair.scored));
  std::vector<float> logits = model.logits(rows);
  const std::size_t vocab = logits.size() / pair.scored;
  double sum = 0;
  for (std::size_t i = 0; i < pair.scored; ++i) {
    const auto row = std::span(logits).subspan(i * vocab, vocab);
    log_softmax(row);
    sum += static_cast<double>(row[static_cast<std::size_t>(pair.ids[pair.ids.size() - pair.scored + i])]);
  }
  return sum;
}

}  // namespace

Question parse_question(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(ErrorCode::bad_input, "{}: expected an object, found {}", where, json.type_name());
  Question question;
  if (json.contains("sentence")) {
    const std::string sentence = text_field(json, where, "sentence");
    const std::size_t blank = sentence.find('_');
    if (blank == std::string::npos) fail(ErrorCode::bad_input, "{}: sentence: has no blank '_'", where);
    const std::string_view rest = stripped(std::string_view(sentence).substr(blank + 1));
    if (rest.empty()) fail(ErrorCode::bad_input, "{}: sentence: nothing follows the blank '_'", where);
    for (const char* option : {"option1", "option2"})
      question.choices.push_back(
          {sentence.substr(0, blank) + text_field(json, where, option), fmt::format(" {}", rest)});
    const std::string answer = text_field(json, where, "answer");
    if (answer != "1" && answer != "2")
      fail(ErrorCode::bad_input, "{}: answer: expected \"1\" or \"2\", found \"{}\"", where, answer);
    question.answer = answer == "2";
    return question;
  }
  const std::string context = text_field(json, where, "context");
  const auto choices = json.find("choices");
  if (choices == json.end() || !choices->is_array() || choices->size() < 2)
    fail(ErrorCode::bad_input, "{}: choices: expected a list of two or more", where);
  for (const Json& choice : *choices) {
    if (!choice.is_string() || choice.get<std::string>().empty())
      fail(ErrorCode::bad_input, "{}: choices: expected strings that are not empty", where);
    question.choices.push_back({context, " " + choice.get<std::string>()});
  }
  const auto answer = json.find("answer");
  if (answer == json.end() || !answer->is_number_unsigned() || answer->get<std::uint64_t>() >= question.choices.size())
    fail(ErrorCode::bad_input, "{}: answer: expected a number from 0 to {}", where, question.choices.size() - 1);
  question.answer = answer->get<std::size_t>();
  return question;
}

std::vector<Question> read_questions(const std::string& path) {
  const std::string text = read_text(path);
  std::vector<Question> questions;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const std::string where = fmt::format("{}: line {}", path, ++number);
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      questions.push_back(parse_question(parse_json(line, where, {8, 1 << 20}), where));
    at = end + 1;
  }
  if (questions.empty()) fail(ErrorCode::bad_input, "{}: holds no questions", path);
  return questions;
}

MultipleChoiceResult multiple_choice(models::Model& model, const text::Tokenizer& tokenizer,
                                     const std::vector<Question>& questions,
                                     const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  MultipleChoiceResult result;
  double right = 0, right_norm = 0;
  for (const Question& question : questions) {
    std::vector<double> sums, normalised;
    for (const Question::Choice& choice : question.choices) {
      sums.push_back(log_likelihood(model, tokenizer, choice, fmt::format("question {}", result.questions + 1)));
      normalised.push_back(sums.back() / static_cast<double>(characters(choice.continuation) - 1));
    }
    const auto best = [](const std::vector<double>& v) {
      return static_cast<std::size_t>(std::max_element(v.begin(), v.end()) - v.begin());
    };
    right += best(sums) == question.answer;
    right_norm += best(normalised) == question.answer;
    ++result.questions;
    if (progress) progress(result.questions, questions.size());
  }
  const double n = static_cast<double>(result.questions);
  const auto standard_error = [n](double p) { return n > 1 ? std::sqrt(p * (1 - p) / (n - 1)) : 0; };
  result.acc = right / n;
  result.acc_norm = right_norm / n;
  result.acc_stderr = standard_error(result.acc);
  result.acc_norm_stderr = standard_error(result.acc_norm);
  return result;
}

}  // namespace lowp::eval
