#!/usr/bin/env python3
"""What serving costs beside the model: a model of almost no work, 64 streams, the processor time that each token takes.

    python tools/serve_overhead.py LOWP [STREAMS [TOKENS]]

Prints chunks a second, the server's and the client's processor time a chunk, and the first token's delay at idle.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import lowp_cli  # noqa: E402
from serve_client import Server  # noqa: E402


def small_model(folder):
    """One layer, 64 wide, with the vocabulary of a test's tokenizer."""
    tokenizer = ROOT / "tests" / "golden" / "tokenizer_gpt2.json"
    parsed = json.loads(tokenizer.read_text())
    ids = [*parsed["model"]["vocab"].values(), *(t["id"] for t in parsed["added_tokens"])]
    config = {**lowp_cli.LLAMA, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1,
              "vocab_size": max(ids) + 1, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    lowp_cli.write_model(folder, lowp_cli.llama_tensors(config), config)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    return folder


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(server, *arguments):
    out = subprocess.run([lowp_cli.lowp_path, "bench", "serve", f"http://127.0.0.1:{server.port}", "--ignore-eos", "--json", "--disable-tqdm",
                          "--random-input-len", "16", *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def main():
    lowp_cli.lowp_path = str(pathlib.Path(sys.argv[1]).resolve())
    streams, tokens = int(sys.argv[2]) if len(sys.argv) > 2 else 64, int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    with tempfile.TemporaryDirectory(prefix="lowp-overhead-") as name:
        server = Server(small_model(pathlib.Path(name) / "model"), "--max-num-seqs", streams)
        try:
            idle = load(server, "--num-prompts", 2000, "--max-concurrency", 1, "--random-output-len", 1)
            before, steps = processor_seconds(server.process.pid), server.metrics()["lowp:engine_steps_total"]
            busy = load(server, "--num-prompts", 4 * streams, "--max-concurrency", streams, "--random-output-len", tokens)
            seconds = processor_seconds(server.process.pid) - before
            steps = server.metrics()["lowp:engine_steps_total"] - steps
        finally:
            server.stop()
    count = busy["total_output_tokens"]
    print(f"{streams} streams: {count / busy['duration']:,.0f} chunks/s, {seconds / count * 1e6:.1f} us of the server's processor a chunk, "
          f"{busy['client_cpu_share'] * busy['duration'] / count * 1e6:.1f} us of the client's, {count / steps:.1f} tokens a step")
    print(f"idle: first token after {idle['median_ttft_ms']:.2f} ms (median), {idle['p99_ttft_ms']:.2f} ms (p99)")


if __name__ == "__main__":
    main()
