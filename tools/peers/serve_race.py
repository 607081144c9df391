#!/usr/bin/env python3
"""Servers of the same model under the same load, by turns: a table in Markdown.

    python tools/peers/serve_race.py LOWP NAME=URL[=PID]... [--streams 1,8,32] [--prompt 128] [--output 128] [--rounds 2] [--wrap 'CMD']

Every server is asked in every round, with prompts of its own (random ids, the same for all), by `lowp bench serve`: greedy,
ignore_eos, as many requests as streams. A server whose PID is given is stopped (SIGSTOP to its process group) while another has its turn.
--wrap stands before the client's command. Medians of the rounds; the client's share is of one core.
"""
import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess

COLUMNS = {"output tokens/s": "output_throughput", "TTFT median, ms": "median_ttft_ms", "TTFT p99": "p99_ttft_ms",
           "TPOT median, ms": "median_tpot_ms", "ITL p99, ms": "p99_itl_ms", "client's share": "client_cpu_share"}


def signal_group(pid, what):
    if pid:
        os.killpg(os.getpgid(pid), what)


def run(args, url, streams, seed):
    command = [*shlex.split(args.wrap), args.lowp, "bench", "serve", url, "--num-prompts", streams, "--max-concurrency", streams, "--random-input-len",
               args.prompt, "--random-output-len", args.output, "--ignore-eos", "--temperature", 0, "--seed", seed, "--extra-body",
               '{"cache_prompt": false}', "--json", "--disable-tqdm"]
    result = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    if result["failed"] or result["total_output_tokens"] != result["completed"] * args.output:
        raise SystemExit(f"{url}: {result['failed']} requests failed, {result['total_output_tokens']} tokens of {result['completed']} requests")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("servers", nargs="+")
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--wrap", default="")
    args = parser.parse_args()
    servers = []
    for text in args.servers:
        name, url, *pid = text.split("=")
        servers.append((name, url, int(pid[0]) if pid else 0))
        signal_group(servers[-1][2], signal.SIGSTOP)
    print("| streams | server | " + " | ".join(COLUMNS) + " |\n|--:|---" + "|--:" * len(COLUMNS) + "|")
    try:
        for streams in map(int, args.streams.split(",")):
            results = {name: [] for name, _, _ in servers}
            for seed in range(args.rounds):
                for name, url, pid in servers:
                    signal_group(pid, signal.SIGCONT)
                    try:
                        results[name].append(run(args, url, streams, 1000 * streams + seed))
                    finally:
                        signal_group(pid, signal.SIGSTOP)
            for name, runs in results.items():
                cells = [statistics.median(r[key] for r in runs) for key in COLUMNS.values()]
                print(f"| {streams} | {name} | " + " | ".join(f"{c:.3g}" if c < 100 else f"{c:.0f}" for c in cells) + " |", flush=True)
    finally:
        for _, _, pid in servers:
            signal_group(pid, signal.SIGCONT)


if __name__ == "__main__":
    main()
