#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>
#include <memory>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/eval/multiple_choice.h"
#include "lowp/eval/perplexity.h"
#include "lowp/report/layer_page.h"
#include "lowp/report/machine.h"

namespace lowp::cli {
namespace {

struct EvalOptions {
  std::string model, text, task, against, page, method = "disjoint", documents;
  ModelOptions load;
  std::int64_t context = 0;
  bool layers = false, json = false;
};

Json to_json(const eval::Divergence& d) {
  return {{"mean", d.mean},
          {"median", d.median},
          {"p99", d.p99},
          {"max", d.max},
          {"stderr", d.stderr_},
          {"top1", d.top1},
          {"top1_stderr", d.top1_stderr},
          {"dp_mean", d.dp_mean},
          {"dp_rms", d.dp_rms}};
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

void print_perplexity(const EvalOptions& options, const models::Model& model, const eval::PerplexityResult& r,
                      double seconds) {
  if (options.json) {
    Json all = {{"model", options.model},
                {"recipe", model.recipe()},
                {"method", options.method},
                {"context", r.context},
                {"compute", options.load.compute},
                {"attention", options.load.attention},
                {"device", model.options().device.name()},
                {"tokens", r.tokens},
                {"scored", r.scored},
                {"nll", r.nll},
                {"nll_stderr", r.nll_stderr},
                {"perplexity", r.perplexity},
                {"word_perplexity", or_null(r.word_perplexity)},
                {"byte_perplexity", or_null(r.byte_perplexity)},
                {"bits_per_byte", or_null(r.bits_per_byte)},
                {"kl", r.kl ? to_json(*r.kl) : Json(nullptr)}};
    if (options.layers) {
      Json layers = Json::array();
      for (const eval::LayerSqnr& layer : r.layers)
        layers.push_back({{"module", layer.module}, {"sqnr", json_number(layer.sqnr)}});
      all["layers"] = layers;
    }
    all["seconds"] = seconds;
    fmt::print("{}", json_line(all));
    return;
  }
  fmt::print("{} ({}), {} windows of {} tokens, compute {}\n", options.model, model.recipe(), options.method, r.context,
             options.load.compute);
  fmt::print("scored        {} of {} tokens\nNLL           {:.5f} +- {:.5f} nats a token\nperplexity    {:.4f}\n",
             r.scored, r.tokens, r.nll, r.nll_stderr, r.perplexity);
  if (r.word_perplexity)
    fmt::print("by word       {:.4f}\nby byte       {:.4f} ({:.4f} bits)\n", *r.word_perplexity, *r.byte_perplexity,
               *r.bits_per_byte);
  if (r.kl)
    fmt::print(
        "KL            {:.6f} +- {:.6f} nats (median {:.6f}, 99 % {:.6f}, max {:.6f})\nsame top-1    {:.2f} +- {:.2f} "
        "%\ndelta p       mean {:+.4f} %, rms {:.4f} %\n",
        r.kl->mean, r.kl->stderr_, r.kl->median, r.kl->p99, r.kl->max, 100 * r.kl->top1, 100 * r.kl->top1_stderr,
        100 * r.kl->dp_mean, 100 * r.kl->dp_rms);
  if (!r.layers.empty()) {
    Table table({"layer", "output SQNR dB"});
    for (const eval::LayerSqnr& layer : r.layers) table.add({layer.module, decibel(layer.sqnr)});
    fmt::print("{}", table.text());
  }
  fmt::print("{:.1f} s\n", seconds);
}

void print_task(const EvalOptions& options, const models::Model& model, const eval::MultipleChoiceResult& r,
                double seconds) {
  if (options.json) {
    fmt::print("{}", json_line({{"model", options.model},
                                {"recipe", model.recipe()},
                                {"task", options.task},
                                {"compute", options.load.compute},
                                {"attention", options.load.attention},
                                {"device", model.options().device.name()},
                                {"questions", r.questions},
                                {"acc", r.acc},
                                {"acc_stderr", r.acc_stderr},
                                {"acc_norm", r.acc_norm},
                                {"acc_norm_stderr", r.acc_norm_stderr},
                                {"seconds", seconds}}));
    return;
  }
  fmt::print("{} ({}): {} questions\nacc       {:.2f} +- {:.2f} %\nacc_norm  {:.2f} +- {:.2f} %\n{:.1f} s\n",
             options.model, model.recipe(), r.questions, 100 * r.acc, 100 * r.acc_stderr, 100 * r.acc_norm,
             100 * r.acc_norm_stderr, seconds);
}

// Histograms of the inputs of Linears, by their names in a layer, as long as the model is tapped.
std::map<std::string, report::Histogram> watch_inputs(models::Model& model, const std::function<void()>& body) {
  std::map<std::string, report::Histogram> histograms;
  model.set_tap(
      [&](const std::string& module, std::span<const float> x, std::int64_t, std::span<const float>, std::int64_t) {
        double sum = 0;
        for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
        const auto name = report::layer_name(module);
        histograms[name ? name->part : module].add(x, std::sqrt(sum / static_cast<double>(x.size())));
      });
  body();
  model.set_tap(nullptr);
  return histograms;
}

void run(const EvalOptions& options) {
  models::LoadOptions load = load_options(options.load);
  if (options.text.empty() == options.task.empty())
    fail(ErrorCode::usage, "one of --text FILE and --task FILE is required");
  if (!options.documents.empty() && options.method != "rolling")
    fail(ErrorCode::usage, "--documents goes with --method rolling");
  if (options.layers && options.against.empty()) fail(ErrorCode::usage, "--layers goes with --against");
  if (!options.page.empty() && options.text.empty()) fail(ErrorCode::usage, "--html goes with --text");
  const std::unique_ptr<OutputFile> page = options.page.empty() ? nullptr : std::make_unique<OutputFile>(options.page);
  const Stopwatch watch;
  const std::string text = options.text.empty() ? "" : read_prose(options.text);
  models::Model model(options.model, load);
  const text::Tokenizer tokenizer = load_tokenizer(options.model);
  if (!options.task.empty()) {
    Progress progress("evaluating");
    const auto result = eval::multiple_choice(model, tokenizer, eval::read_questions(options.task),
                                              [&](auto done, auto total) { progress.update(done, total); });
    return print_task(options, model, result, watch.seconds());
  }
  std::unique_ptr<models::Model> other;
  if (!options.against.empty()) {
    load.recipe.reset();  // the reference is what it is
    other = std::make_unique<models::Model>(options.against, load);
  }
  eval::PerplexityOptions how;
  how.method = options.method == "half"      ? eval::Method::half
               : options.method == "rolling" ? eval::Method::rolling
                                             : eval::Method::disjoint;
  how.context = options.context;
  how.wikitext_documents = !options.documents.empty();
  eval::PerplexityResult result;
  {
    Progress progress("evaluating");
    how.progress = [&](auto done, auto total) { progress.update(done, total); };
    const auto measure = [&] {
      result = eval::perplexity(model, other.get(), options.layers || (page && other), tokenizer, text, how);
    };
    if (!page) {
      measure();
    } else {
      const auto inputs = watch_inputs(model, measure);
      page->writer().append(report::eval_page(options.model, options.against, result, inputs,
                                              report::about(report::this_machine(LOWP_VERSION))));
      page->commit();
    }
  }
  print_perplexity(options, model, result, watch.seconds());
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "Measure a model on a text or a task, alone or against another model");
  command->add_option("model", options->model, "a model folder, quantized or not")->required();
  command->add_option("--text", options->text, "a UTF-8 text file: perplexity");
  command->add_option("--task", options->task, "a .jsonl file of multiple-choice questions: accuracy");
  command->add_option("--against", options->against, "a reference model: KL divergence, top-1 agreement");
  command
      ->add_option("--method", options->method,
                   "disjoint: windows scored whole; half: llama.cpp's, second half of each; rolling: lm-eval's, every "
                   "token once")
      ->check(CLI::IsMember({"disjoint", "half", "rolling"}))
      ->capture_default_str();
  command->add_option("--context", options->context, "tokens a window (default 512; rolling: the model's context)")
      ->check(kAtLeastOne);
  command
      ->add_option("--documents", options->documents,
                   "rolling: split a raw WikiText file at its titles and detokenize it")
      ->check(CLI::IsMember({"wikitext"}));
  command->add_flag("--layers", options->layers,
                    "with --against: output SQNR of each Linear, fed by the reference's input");
  command->add_option("--html", options->page,
                      "with --text, a page to write: the numbers, histograms of inputs, with --against a map of SQNR");
  add_recipe_option(*command, options->load);
  add_model_options(*command, options->load);
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->footer(
      "Examples:\n"
      "  lowp eval bookworm-int4 --text book.txt\n"
      "  lowp eval bookworm-int4 --text book.txt --against models/bookworm-8m --layers\n"
      "  lowp eval models/bookworm-8m --text wiki.test.raw --method rolling --documents wikitext\n"
      "  lowp eval models/bookworm-8m --task models/choices.jsonl");
  command->callback([options] { run(*options); });
}

}  // namespace lowp::cli
