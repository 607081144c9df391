#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "lowp/base/error.h"
#include "lowp/base/file.h"
#include "lowp/report/model_report.h"
#include "lowp/report/numerics.h"

extern char** environ;

namespace lowp::cli {
namespace {

struct ReportOptions {
  std::string model, recipes, text, task, methods = "disjoint", documents, calibrate, compute = "bf16", device = "auto",
                                          output, speed_of;
  std::int64_t context = 0, calibrate_tokens = 8192;
  bool json = false;
};

// ---- interruption: a signal is noticed at the next progress report, unwinds (which removes files) and then ends the
// process.

volatile std::sig_atomic_t caught = 0;

struct Interrupted {};

class SignalGuard {
 public:
  SignalGuard() {
    struct sigaction action {};
    action.sa_handler = [](int number) { caught = number; };
    for (std::size_t i = 0; i < std::size(kSignals); ++i) {
      ::sigaction(kSignals[i], &action, &before_[i]);
      if (before_[i].sa_handler == SIG_IGN) ::sigaction(kSignals[i], &before_[i], nullptr);  // as under nohup
    }
  }
  ~SignalGuard() {
    for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction before_[std::size(kSignals)] = {};
};

void check_interrupted() {
  if (caught) throw Interrupted{};
}

// ---- a process of its own for each timing, so that its peak memory is the model's

class Child {
 public:
  explicit Child(std::vector<std::string> arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail(ErrorCode::io, "pipe: {}", std::strerror(errno));
    output_ = ends[0];
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const int error = ::posix_spawn(&process_, "/proc/self/exe", &actions, nullptr, pointers.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (error != 0) {
      ::close(output_);
      fail(ErrorCode::io, "cannot start lowp again: {}", std::strerror(error));
    }
  }
  ~Child() {
    ::close(output_);
    if (process_ > 0) {
      ::kill(process_, SIGTERM);
      ::waitpid(process_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Everything it prints, until it closes its standard output.
  std::string read() {
    std::string text;
    char buffer[4096];
    while (true) {
      const ssize_t count = ::read(output_, buffer, sizeof buffer);
      if (count < 0 && errno != EINTR) fail(ErrorCode::io, "reading from a timing process: {}", std::strerror(errno));
      check_interrupted();
      if (count == 0) return text;
      if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
    }
  }

  // Waits for its end; whether it succeeded.
  bool succeeded() {
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) check_interrupted();
    process_ = -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  pid_t process_ = -1;
  int output_ = -1;
};

report::Speed speed_in_child(const std::string& model, const std::string& compute) {
  Child child({"lowp", "report", "--speed-of", model, "--compute", compute});
  const std::string text = child.read();
  if (!child.succeeded())
    fail(ErrorCode::io, "{}: the process that times it failed", model);  // its own message stands on standard error
  return report::parse_speed(parse_json(text, "timing process"));
}

// ---- output

// The file that -o names, opened before the work so that a wrong name costs nothing.
std::unique_ptr<OutputFile> open_page(const std::string& path) {
  if (path.empty()) return nullptr;
  if (std::filesystem::is_directory(path))
    fail(ErrorCode::usage, "{}: is a folder; -o names the HTML file to write", path);
  const auto parent = std::filesystem::path(path).parent_path();
  if (!parent.empty() && !std::filesystem::is_directory(parent))
    fail(ErrorCode::io, "{}: the folder {} does not exist", path, parent.string());
  return std::make_unique<OutputFile>(path);
}

void print(const std::vector<report::Grid>& grids, const std::vector<report::Note>& notes, const std::string& about) {
  for (const report::Grid& grid : grids) {
    std::vector<std::string> header;
    for (const auto& column : grid.columns) header.push_back(column.title);
    Table table(header);
    for (const auto& row : grid.rows) {
      std::vector<std::string> cells;
      for (const report::Cell& cell : row) cells.push_back(cell.text);
      table.add(cells);
    }
    fmt::print("{}\n{}\n", grid.title, table.text());
  }
  for (const report::Note& note : notes) fmt::print("{}: {}\n", note.term, note.text);
  fmt::print("{}\n", about);
}

template <typename Report>
void deliver(const ReportOptions& options, const Report& result, OutputFile* file) {
  if (file) {
    file->writer().append(report::html(result));
    file->commit();
  }
  if (options.json) {
    fmt::print("{}", json_line(report::to_json(result)));
    return;
  }
  print(report::grids(result), report::notes(result), report::about(result.machine));
  if (file) fmt::print("-> {}\n", options.output);
}

// ---- the two reports

models::LoadOptions load_options(const ReportOptions& options) {
  return {options.compute == "f32" ? formats::Elem::f32 : formats::Elem::bf16};
}

std::string read_if_named(const std::string& path) { return path.empty() ? "" : read_prose(path); }

void check_usage(const ReportOptions& options) {
  check_cpu(options.device);
  if (options.model.empty())
    fail(ErrorCode::usage, "MODEL is required (or `lowp report numerics`); see lowp report --help");
  if (options.recipes.empty()) fail(ErrorCode::usage, "--recipes LIST is required; see lowp report --help");
}

void model_report(const ReportOptions& options) {
  check_usage(options);
  const Stopwatch watch;
  report::ModelRequest request;
  request.model = options.model;
  request.recipes = report::parse_recipes(options.recipes);
  request.methods = report::parse_methods(options.methods);
  if (!options.documents.empty() &&
      std::find(request.methods.begin(), request.methods.end(), eval::Method::rolling) == request.methods.end())
    fail(ErrorCode::usage, "--documents goes with --methods rolling");
  const auto file = open_page(options.output);
  request.text = read_if_named(options.text);
  request.calibration = read_if_named(options.calibrate);
  if (!options.task.empty()) request.questions = eval::read_questions(options.task);
  request.context = options.context;
  request.wikitext_documents = !options.documents.empty();
  request.calibration_tokens = options.calibrate_tokens;
  request.load = load_options(options);
  Progress progress("reporting");
  request.progress = [&](double share, const std::string&) {
    check_interrupted();
    progress.update(static_cast<std::uint64_t>(share * 1e6), 1000000);
  };
  request.measure_speed = [&](const std::string& model) { return speed_in_child(model, options.compute); };
  std::optional<text::Tokenizer> tokenizer;
  if (!request.text.empty() || !request.questions.empty() || !request.calibration.empty())
    tokenizer = load_tokenizer(options.model);
  report::ModelReport result = report::measure_model(request, tokenizer ? &*tokenizer : nullptr);
  result.machine = report::this_machine(LOWP_VERSION);
  result.compute = options.compute;
  result.text_path = options.text;
  result.task_path = options.task;
  result.seconds = watch.seconds();
  deliver(options, result, file.get());
}

void numerics_report(const ReportOptions& options) {
  const auto file = open_page(options.output);
  Progress progress("casting");
  deliver(options,
          report::measure_numerics(report::this_machine(LOWP_VERSION),
                                   [&](double share) {
                                     check_interrupted();
                                     progress.update(static_cast<std::uint64_t>(share * 1e6), 1000000);
                                   }),
          file.get());
}

void run(const ReportOptions& options, void (*make)(const ReportOptions&)) {
  try {
    const SignalGuard guard;
    make(options);
  } catch (const Interrupted&) {
    ::raise(caught);  // as if it had never been caught
  }
}

void add_numerics(CLI::App& report, const std::shared_ptr<ReportOptions>& options) {
  CLI::App* numerics =
      report.add_subcommand("numerics", "SQNR of every format over tensors of every magnitude; needs no model");
  add_threads_option(*numerics);
  numerics->add_option("-o,--output", options->output, "an HTML file to write: heat maps and tables");
  numerics->add_flag("--json", options->json, "one JSON object on standard output");
  numerics->footer("Examples:\n  lowp report numerics\n  lowp report numerics -o numerics.html");
}

}  // namespace

void add_report(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* command =
      app.add_subcommand("report", "Compare recipes: accuracy, size and speed of a model, or the numerics of formats");
  add_threads_option(*command);
  command->add_option("model", options->model,
                      "a model folder that is not quantized; a folder named numerics is ./numerics");
  command->add_option("--recipes", options->recipes,
                      "comma-separated recipe names, or demo: those of `lowp recipes --demo`");
  command->add_option("--text", options->text, "a UTF-8 text file: perplexity, KL divergence, top-1 agreement");
  command->add_option("--task", options->task, "a .jsonl file of multiple-choice questions: accuracy");
  command
      ->add_option("--methods", options->methods,
                   "comma-separated: disjoint, half, rolling (see `lowp eval --help`); KL is taken with the first")
      ->capture_default_str();
  command->add_option("--context", options->context, "tokens a window (default 512; rolling: the model's context)")
      ->check(kAtLeastOne);
  command
      ->add_option("--documents", options->documents,
                   "rolling: split a raw WikiText file at its titles and detokenize it")
      ->check(CLI::IsMember({"wikitext"}));
  command->add_option("--calibrate", options->calibrate,
                      "a text file: activation scales of *_static recipes come from the model's inputs on it");
  command->add_option("--calibrate-tokens", options->calibrate_tokens, "how many of its tokens")
      ->check(kAtLeastOne)
      ->capture_default_str();
  command
      ->add_option("--compute", options->compute, "dtype of the residual stream and of what activation quantizers see")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command->add_option("--device", options->device, "where to compute")->capture_default_str();
  command->add_option("-o,--output", options->output, "an HTML file to write: tables and plots");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->add_option("--speed-of", options->speed_of)->group("");  // what the report starts itself with
  add_numerics(*command, options);
  command->footer(
      "Quantized models live in a temporary folder (TMPDIR), one at a time.\n"
      "Examples:\n"
      "  lowp report models/bookworm-8m --recipes int4,mxfp8,nvfp4 --text book.txt -o report.html\n"
      "  lowp report models/bookworm-8m --recipes demo --text book.txt --methods disjoint,rolling --json\n"
      "  lowp report models/bookworm-8m --recipes int8-int8_static --calibrate book.txt --task choices.jsonl\n"
      "  lowp report numerics -o numerics.html");
  command->callback([options, command] {
    if (!options->speed_of.empty())
      return void(
          fmt::print("{}\n", report::to_json(report::measure_speed(options->speed_of, load_options(*options))).dump()));
    run(*options, command->got_subcommand("numerics") ? numerics_report : model_report);
  });
}

}  // namespace lowp::cli
