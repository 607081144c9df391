#include "lowp/base/env.h"

#include <cstdlib>

namespace lowp::env {
namespace {

constexpr Variable kVariables[] = {
    {"LOWP_THREADS", "number of cores", "worker threads of the CPU kernels"},
    {"LOWP_FORCE_ISA", "the widest that runs", "CPU kernels: portable, avx2, avx2-vnni, avx512, avx512-bf16, amx"},
    {"LOWP_FORCE_BACKEND", "the fastest", "ref: the scalar reference kernels instead of fast ones"},
    {"LOWP_TRACE", "nothing", "plan: which kernels serve each product, on standard error (lowp bench kernels)"},
    {"LOWP_API_KEY", "none", "a key that `lowp serve` asks its clients for"},
    {"OPENAI_API_KEY", "none", "the key that `lowp bench serve` sends"},
    {"HF_HUB_CACHE", "HF_HOME/hub", "where org/name models are looked up"},
    {"HF_HOME", "XDG_CACHE_HOME/huggingface", "parent of the Hugging Face cache"},
    {"XDG_CACHE_HOME", "~/.cache", "parent of HF_HOME"},
};

}  // namespace

std::span<const Variable> variables() { return kVariables; }

std::string get(std::string_view name) {
  const char* value = std::getenv(std::string(name).c_str());
  return value ? value : "";
}

}  // namespace lowp::env
