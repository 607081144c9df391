#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/command.h"
#include "lowp/base/error.h"
#include "lowp/base/nearest.h"

namespace {

constexpr int kFailed = 1, kBadUsage = 2;

int report(const char* message, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "lowp: error: %s\n", message);
  return code;
}

// Checkpoints are mapped: a file that shrinks or cannot be read shows as a signal in the middle of anything.
void on_bus_error(int) {
  constexpr char message[] = "lowp: error: cannot read a mapped file: it was cut short, or the disk failed\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, message, sizeof message - 1);
  ::_exit(kFailed);
}

// CLI11 does not suggest; a mistyped command should.
std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == argv[1]) return "";
    names.push_back(command->get_name());
  }
  return std::string("unknown command '") + argv[1] + "'" + lowp::did_you_mean(argv[1], names) + "; see lowp --help";
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGBUS, on_bus_error);
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the file-size limit then fails as one on a full disk does
  CLI::App app{"lowp: low-precision inference. Quantizes LLM checkpoints with numerics bit-identical to torchao.",
               "lowp"};
  app.set_version_flag("--version", "lowp " LOWP_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  lowp::cli::add_quantize(app);
  lowp::cli::add_eval(app);
  lowp::cli::add_generate(app);
  lowp::cli::add_chat(app);
  lowp::cli::add_serve(app);
  lowp::cli::add_report(app);
  lowp::cli::add_cast(app);
  lowp::cli::add_bench(app);
  lowp::cli::add_roofline(app);
  lowp::cli::add_convert(app);
  lowp::cli::add_tune(app);
  lowp::cli::add_pack(app);
  lowp::cli::add_inspect(app);
  lowp::cli::add_recipes(app);
  lowp::cli::add_env(app);
  try {
    if (const std::string wrong = unknown_command(app, argc, argv); !wrong.empty())
      return report(wrong.c_str(), kBadUsage);
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0) return report("cannot write to standard output", kFailed);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return report((std::string(e.what()) + "; see --help").c_str(), kBadUsage);
  } catch (const lowp::Error& e) {
    return report(e.what(), e.code() == lowp::ErrorCode::usage ? kBadUsage : kFailed);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& e) {
    return report(e.what(), kFailed);
  }
}
