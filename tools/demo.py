"""The demo: quantizes a model into every demo recipe, shows what that did to it, and lets a 4-bit one speak.

usage: tools/demo.py [MODEL] [--text FILE] [--json]
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWP = ROOT / "build" / "lowp"
SPEAKER = "int4_g32-bf16"
TEXT_BYTES = 8600  # about 2,100 tokens: four windows of 512
PROMPT = "It was late in the evening when the old gentleman"


def lowp(*args):
    # One thread each, as many at a time as there are cores: small models leave threads idle.
    result = subprocess.run([LOWP, *map(str, args)], capture_output=True, text=True, env={**os.environ, "LOWP_THREADS": "1"})
    if result.returncode:
        sys.exit(result.stderr.strip())
    return result.stdout


def decibel(value):
    return "exact" if value is None else f"{value:.2f}"


def measure(name, options, folder):
    """One recipe: what `lowp quantize` and `lowp eval` say of it."""
    start = time.monotonic()
    out = Path(folder) / name
    row = json.loads(lowp("quantize", options.model, "--recipe", name, "-o", out, "--json"))
    row.pop("layers")
    row["eval"] = json.loads(lowp("eval", out, "--text", options.text, "--against", options.model, "--json"))
    row["seconds"] = time.monotonic() - start
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / "models" / "bookworm-8m")
    parser.add_argument("--text", default=ROOT / "tests" / "golden" / "demo.txt")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    names = json.loads(lowp("recipes", "--demo", "--json"))
    if not options.json:
        print(f"{Path(options.model).name} in {len(names)} recipes, on a demo text (not a benchmark); KL against the original, "
              "SQNR of the weights\n")
        print(f"{'recipe':<27}{'bits/weight':>12}{'MB':>7}{'NLL':>9}{'ppl':>8}{'KL':>10}{'SQNR min':>10}{'mean dB':>9}{'s':>6}")
    with tempfile.TemporaryDirectory(prefix="lowp-demo-") as folder:
        text = Path(folder) / "text.txt"
        text.write_bytes(Path(options.text).read_bytes()[:TEXT_BYTES])
        options.text = text
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        for name, row in zip(names, pool.map(lambda name: measure(name, options, folder), names)):
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            bits = f"{row['bits_per_weight']:.3f}" if row["quantized_weights"] else "16.000"
            result = row["eval"]
            perplexity = f"{result['perplexity']:.2f}" if result["perplexity"] < 1e4 else f"{result['perplexity']:.0e}"
            print(f"{name:<27}{bits:>12}{row['file_bytes'] / 1e6:>7.2f}{result['nll']:>9.4f}{perplexity:>8}"
                  f"{result['kl']['mean']:>10.5f}{decibel(row['sqnr_min']):>10}{decibel(row['sqnr_mean']):>9}{row['seconds']:>6.1f}",
                  flush=True)
        if not options.json and SPEAKER in names:
            spoken = json.loads(lowp("generate", Path(folder) / SPEAKER, "-p", PROMPT, "-n", 60, "--seed", 1, "--json"))["text"]
            print(f"\n{SPEAKER} continues:\n{PROMPT}{spoken}")


if __name__ == "__main__":
    main()
