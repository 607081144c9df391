#!/usr/bin/env python3
"""What the algorithms of `lowp quantize --algorithm` gain: the table of docs/ALGORITHMS.md.

    python3 tools/algorithm_table.py LOWP CALIBRATION TEXT [--calibrate-tokens 8192] [--recipe RECIPE]...

For each of the two models of the project and each pair of recipe and algorithms: KL divergence from the original on TEXT
(windows of 512), with its standard error, and how much of the plain recipe's KL is left.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

MODELS = pathlib.Path(__file__).resolve().parents[1] / "models"
CASES = [("int4_g128-bf16", ["absmax", "mse", "hqq", "gptq", "awq", "awq,gptq"]),
         ("int3_g128-bf16", ["absmax", "mse", "gptq", "awq,gptq"]),
         ("mxfp4-mxfp4", ["absmax", "mse", "gptq", "hadamard", "hadamard,gptq"]),
         ("nvfp4-bf16", ["absmax", "mse", "gptq"]),
         ("q4_k-bf16", ["absmax", "mse", "gptq"]),
         ("int8-int8_static", ["absmax", "smoothquant", "hadamard"])]


def run(*command):
    return json.loads(subprocess.run([*map(str, command), "--json"], check=True, capture_output=True, text=True).stdout)


def main():
    arguments = argparse.ArgumentParser(description="see the top of the file")
    arguments.add_argument("lowp")
    arguments.add_argument("calibration", type=pathlib.Path)
    arguments.add_argument("text", type=pathlib.Path)
    arguments.add_argument("--calibrate-tokens", default=8192)
    arguments.add_argument("--recipe", action="append", choices=[recipe for recipe, _ in CASES], help="only the rows of this one")
    options = arguments.parse_args()
    print("| recipe | algorithm | " + " | ".join(f"{model}: KL | left" for model in ("bookworm-8m", "bookworm-moe-9m")) + " |")
    print("|---|---|" + "--:|--:|" * 2)
    for recipe, algorithms in CASES:
        if options.recipe and recipe not in options.recipe:
            continue
        plain = {}
        for words in algorithms:
            cells = []
            for model in ("bookworm-8m", "bookworm-moe-9m"):
                with tempfile.TemporaryDirectory() as scratch:
                    out = pathlib.Path(scratch) / "out"
                    run(options.lowp, "quantize", MODELS / model, "--recipe", recipe, "--algorithm", words, "-o", out, "--calibrate",
                        options.calibration, "--calibrate-tokens", options.calibrate_tokens)
                    kl = run(options.lowp, "eval", out, "--text", options.text, "--against", MODELS / model)["kl"]
                plain.setdefault(model, kl["mean"])
                cells.append(f"{kl['mean']:.5f} ± {kl['stderr']:.5f} | {100 * kl['mean'] / plain[model]:.0f} %")
            print(f"| `{recipe}` | {words} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
