"""The demo: quantizes a model into every demo recipe, shows what that did to it, and lets a 4-bit one speak.

usage: tools/demo.py [MODEL] [--text FILE] [--json]
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWP = ROOT / "build" / "lowp"
SPEAKER = "int4_g32-bf16"
PROMPT = "It was late in the evening when the old gentleman"


def lowp(*args):
    result = subprocess.run([LOWP, *map(str, args)], capture_output=True, text=True)
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
        for name in names:
            row = measure(name, options, folder)
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            bits = f"{row['bits_per_weight']:.3f}" if row["quantized_weights"] else "16.000"
            result = row["eval"]
            print(f"{name:<27}{bits:>12}{row['file_bytes'] / 1e6:>7.2f}{result['nll']:>9.4f}{result['perplexity']:>8.2f}"
                  f"{result['kl']['mean']:>10.5f}{decibel(row['sqnr_min']):>10}{decibel(row['sqnr_mean']):>9}{row['seconds']:>6.1f}",
                  flush=True)
        if not options.json and SPEAKER in names:
            text = json.loads(lowp("generate", Path(folder) / SPEAKER, "-p", PROMPT, "-n", 60, "--seed", 1, "--json"))["text"]
            print(f"\n{SPEAKER} continues:\n{PROMPT}{text}")


if __name__ == "__main__":
    main()
