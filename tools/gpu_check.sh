#!/usr/bin/env bash
# Checks the CUDA backend on a machine with a GPU, in one call of under ten minutes:
#   tools/gpu_check.sh [DIR]     DIR holds `lowp`, `test_cuda` and `test_cuda_model` (preset gpu-run; default build-gpu)
# Tests against the CPU, the command line against itself, compute-sanitizer, benchmarks, peers. Output also in $OUT.
set -uo pipefail
cd "$(dirname "$0")/.."
dir=${1:-build-gpu}
out=${OUT:-$dir/gpu-check}
mkdir -p "$out"
failed=0
step() {  # step NAME SECONDS CMD...: runs, tells, goes on
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  if timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
    echo "ok      $name ($((SECONDS - began)) s)"
  else
    echo "FAILED  $name ($((SECONDS - began)) s): $out/$name.log"
    tail -20 "$out/$name.log"
    failed=1
  fi
}

"$dir/lowp" env | sed -n 1,8p
step tests 120 "$dir/test_cuda"
step models 180 "$dir/test_cuda_model"
step command_line 60 python3 tools/gpu_check_cast.py "$dir/lowp"
if command -v compute-sanitizer > /dev/null; then
  few='--gtest_filter=*GroupedLayouts*:*SharedTensorScale*:*Refuses*:*Heads*:*InOneLaunch*:*TrainingOptions*'
  for tool in memcheck racecheck; do step "$tool" 120 compute-sanitizer --error-exitcode 1 --tool "$tool" "$dir/test_cuda" "$few"; done
else
  echo "skipped memcheck, racecheck: no compute-sanitizer"
fi
compare=()
if python3 -c 'import torch, torchao; assert torch.cuda.is_available()' 2> /dev/null; then
  if timeout 240 python3 tools/peers/torch_casts.py > "$out/peers.jsonl" 2> "$out/peers.log"; then compare=(--compare "$out/peers.jsonl"); fi
  grep -v Warning "$out/peers.log"
else
  echo "skipped peers: no torch with CUDA, or no torchao"
fi
for op in experts front dequantize small cast; do
  step "bench_$op" 120 "$dir/lowp" bench kernels --device cuda --op "$op" --samples 15 ${compare[@]+"${compare[@]}"}
  cat "$out/bench_$op.log"
done
exit $failed
