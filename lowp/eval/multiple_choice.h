// Multiple choice by log-likelihood, as lm-eval scores hellaswag and winogrande.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lowp/base/json.h"
#include "lowp/models/model.h"
#include "lowp/text/tokenizer.h"

namespace lowp::eval {

/// One question: each choice is a context and the continuation that is scored after it.
struct Question {
  struct Choice {
    std::string context, continuation;
  };
  std::vector<Choice> choices;
  std::size_t answer = 0;
};

/// Parses a line of a task file: {"context": C, "choices": [...], "answer": i} scores " " + choice after C;
/// {"sentence": "... _ ...", "option1": A, "option2": B, "answer": "1" | "2"} scores what follows the blank after the
/// sentence up to it with each option filled in. Throws Error(bad_input) naming `where`.
Question parse_question(const Json& json, const std::string& where);

/// Reads a .jsonl file; blank lines are skipped. Throws Error(bad_input) if it holds no question.
std::vector<Question> read_questions(const std::string& path);

struct MultipleChoiceResult {
  std::size_t questions = 0;
  double acc = 0, acc_stderr = 0;            // largest summed log-likelihood
  double acc_norm = 0, acc_norm_stderr = 0;  // divided by the characters of the continuation, without its blank
};

/// Throws Error(bad_input) naming the question whose choice is longer than the model's context.
MultipleChoiceResult multiple_choice(models::Model& model, const text::Tokenizer& tokenizer,
                                     const std::vector<Question>& questions,
                                     const std::function<void(std::uint64_t, std::uint64_t)>& progress);

}  // namespace lowp::eval
