"""The demo: quantizes a model into every demo recipe and prints what each costs.

usage: tools/demo.py [MODEL] [--json]      MODEL defaults to models/bookworm-8m
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWP = ROOT / "build" / "lowp"


def lowp(*args):
    result = subprocess.run([LOWP, *map(str, args)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr.strip())
    return result.stdout


def decibel(value):
    return "exact" if value is None else f"{value:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=ROOT / "models" / "bookworm-8m")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    names = json.loads(lowp("recipes", "--demo", "--json"))
    if not options.json:
        print(f"quantizing {Path(options.model).name} into {len(names)} recipes "
              "(SQNR of the weights against the original, over layers)\n")
        print(f"{'recipe':<28}{'bits/weight':>12}{'file MB':>10}{'SQNR min':>10}{'mean dB':>10}{'seconds':>9}  dialect")
    with tempfile.TemporaryDirectory(prefix="lowp-demo-") as folder:
        for name in names:
            out = Path(folder) / name
            row = json.loads(lowp("quantize", options.model, "--recipe", name, "-o", out, "--json"))
            if options.json:
                row.pop("layers")
                print(json.dumps(row), flush=True)
                continue
            quantized = row["quantized_weights"] > 0
            bits = f"{row['bits_per_weight']:.3f}" if quantized else "16.000"
            print(f"{name:<28}{bits:>12}{row['file_bytes'] / 1e6:>10.2f}"
                  f"{decibel(row['sqnr_min']):>10}{decibel(row['sqnr_mean']):>10}{row['seconds']:>9.2f}  {row['dialect']}",
                  flush=True)


if __name__ == "__main__":
    main()
