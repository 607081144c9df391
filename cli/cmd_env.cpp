#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <memory>

#include "cli/command.h"
#include "cli/output.h"
#include "lowp/base/env.h"
#include "lowp/base/threads.h"
#include "lowp/kernels/cuda/runtime.h"

namespace lowp::cli {
namespace {

// The first line of /proc/cpuinfo with this key.
std::string cpu_line(const std::string& key) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return line.substr(line.find(':') + 2);
  return "";
}

// Instruction sets that decide kernels, of those the CPU has.
std::vector<std::string> instruction_sets() {
  const std::string flags = " " + cpu_line("flags") + " ";
  std::vector<std::string> found;
  for (const char* set : {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_vbmi",
                          "amx_int8", "amx_bf16"})
    if (flags.find(fmt::format(" {} ", set)) != std::string::npos) found.emplace_back(set);
  return found;
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
                             {"instruction_sets", instruction_sets()},
                             {"threads", thread_count()},
                             {"memory_bytes", memory},
                             {"devices", devices},
                             {"kernels", architectures},
                             {"variables", variables}})
                           .dump());
    return;
  }
  fmt::print(
      "lowp      {}\ncompiler  {}\nsystem    {} {}\ncpu       {}\n          {}\nthreads   {}\nmemory    {}\n{}\n",
      LOWP_VERSION, compiler, system.sysname, system.release, cpu_line("model name"),
      fmt::join(instruction_sets(), " "), thread_count(), human_bytes(memory), gpus());
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
