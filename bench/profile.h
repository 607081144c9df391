// What a model's steps spend in which kernels, on a GPU.
#pragma once

#include <string>
#include <vector>

#include "bench/device.h"
#include "bench/model_bench.h"
#include "lowp/models/model.h"

namespace lowp::bench {

/// Calls of one name in a step, added up.
struct KernelTime {
  std::string name;
  int calls = 0;
  double seconds = 0;
  double share = 0;  // the time at the limits of reading and multiplying over that; 0: not known
};

struct StepProfile {
  std::string test;                      // "pp4096", "tg128", "batch64"
  double seconds = 0;                    // of a step as it always runs: recorded, kernels overlapping
  std::vector<KernelTime> kernels = {};  // one after the other; the longest first
};

/// Profiles a prompt of `what.prefill` tokens, and a decode step of one sequence behind `what.batch_prompt` tokens and
/// of each number in `what.batches`. Medians of `what.runs` steps. Throws Error(unsupported) for a model on the CPU.
std::vector<StepProfile> profile_model(models::Model& model, Device& device, const ModelBench& what);

}  // namespace lowp::bench
