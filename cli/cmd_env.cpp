#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <memory>

#include "cli/command.h"
#include "cli/output.h"
#include "lowp/base/env.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cpu/isa.h"
#include "lowp/kernels/cuda/runtime.h"
#include "lowp/kernels/kernel.h"

namespace lowp::cli {
namespace {

// The first line of /proc/cpuinfo with this key.
std::string cpu_line(const std::string& key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return line.substr(line.find(':') + 2);
  return "";
}

// Kernel variants that this machine runs, the plainest first.
std::vector<std::string_view> kernel_levels() {
  std::vector<std::string_view> levels;
  for (const kernels::cpu::Isa level : kernels::cpu::isa_levels())
    if (kernels::cpu::runs(level)) levels.push_back(kernels::cpu::name(level));
  return levels;
}

// The GPUs, and what kernels were compiled for; lines for people.
std::string gpus() {
  std::string text;
  for (const kernels::cuda::DeviceInfo& d : kernels::cuda::devices())
    text += fmt::format("cuda:{}    {}, compute capability {}.{}, {} multiprocessors, {}\n", d.index, d.name, d.major,
                        d.minor, d.multiprocessors, human_bytes(static_cast<std::uint64_t>(d.memory_bytes)));
  if (text.empty()) text = fmt::format("          no GPU: {}\n", kernels::cuda::why_none());
  for (const kernels::cuda::Architecture& a : kernels::cuda::architectures())
    text += fmt::format("kernels   {}{}\n", a.name, a.ran ? "" : ": compiled, never run by us");
  return text;
}

void run(bool json) {
  utsname system{};
  ::uname(&system);
  const auto memory =
      static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
#ifdef __clang__
  const std::string compiler = __VERSION__;  // names itself
#else
  const std::string compiler = "g++ " __VERSION__;
#endif
  const std::string chosen(kernels::reference_backend() ? "ref" : kernels::cpu::name(kernels::cpu::isa()));
  if (json) {
    Json variables = Json::object();
    for (const env::Variable& v : env::variables()) variables[std::string(v.name)] = env::get(v.name);
    Json devices = {"cpu"}, architectures = Json::array();
    for (const kernels::cuda::DeviceInfo& d : kernels::cuda::devices())
      devices.push_back("cuda:" + std::to_string(d.index) + " " + d.name);
    for (const kernels::cuda::Architecture& a : kernels::cuda::architectures())
      architectures.push_back({{"name", a.name}, {"ran", a.ran}});
    fmt::print("{}\n", Json({{"version", LOWP_VERSION},
                             {"compiler", compiler},
                             {"system", system.sysname + std::string(" ") + system.release},
                             {"cpu", cpu_line("model name")},
                             {"isa_levels", kernel_levels()},
                             {"isa", chosen},
                             {"threads", thread_count()},
                             {"memory_bytes", memory},
                             {"devices", devices},
                             {"kernels", architectures},
                             {"variables", variables}})
                           .dump());
    return;
  }
  fmt::print(
      "lowp      {}\ncompiler  {}\nsystem    {} {}\ncpu       {}\nkernels   {} (this machine runs: {})\nthreads   "
      "{}\nmemory    {}\n{}\n",
      LOWP_VERSION, compiler, system.sysname, system.release, cpu_line("model name"), chosen,
      fmt::join(kernel_levels(), " "), thread_count(), human_bytes(memory), gpus());
  Table table({"variable", "value", "default", "meaning"});
  for (const env::Variable& v : env::variables()) {
    const std::string value = env::get(v.name);
    table.add({std::string(v.name), value.empty() ? "unset" : value, std::string(v.fallback), std::string(v.meaning)});
  }
  fmt::print("{}", table.text());
}

}  // namespace

void add_env(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("env", "Show the build, the machine and the environment variables");
  command->add_flag("--json", *json, "one JSON object on standard output");
  command->footer("Example:\n  lowp env");
  command->callback([json] { run(*json); });
}

}  // namespace lowp::cli
