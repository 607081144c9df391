#!/usr/bin/env python3
"""Mixtures beside the uniform recipes of the same size, on another text: the table of docs/ALGORITHMS.md.

    lowp tune MODEL --budget-bits 4.125 --calibrate CALIBRATION --json -o mixed.json > tune.json
    python3 tools/tune_table.py LOWP MODEL tune.json TEXT [--recipe RECIPE]...

tune.json has, for the bits of each uniform recipe, what `lowp tune` would choose; both are quantized and compared with the original on
TEXT.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("model")
    parser.add_argument("tuned", type=pathlib.Path)
    parser.add_argument("text")
    parser.add_argument("--recipe", action="append", help="only the rows of this one")
    args = parser.parse_args()
    tuned = json.loads(args.tuned.read_text())

    def run(*command):
        return json.loads(subprocess.run([args.lowp, *map(str, command), "--json"], check=True, capture_output=True, text=True).stdout)

    def measured(recipe, folder):
        size = run("quantize", args.model, "--recipe", recipe, "-o", folder)["bits_per_weight"]
        kl = run("eval", folder, "--text", args.text, "--against", args.model)["kl"]
        return size, kl["mean"], kl["stderr"]

    print("| recipe | bits | KL | mixture's bits | KL | of it |\n|---|--:|--:|--:|--:|--:|", flush=True)
    for uniform, mixture in sorted(zip(tuned["uniform"], tuned["frontier"]), key=lambda pair: pair[0]["bits_per_weight"]):
        if args.recipe and uniform["name"] not in args.recipe:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            rules = [{"match": pattern, "recipe": recipe} for part, recipe in zip(tuned["parts"], mixture["recipes"])
                     for pattern in part["patterns"]]
            (folder / "mixed.json").write_text(json.dumps(rules))
            size, kl, error = measured(uniform["name"], folder / "uniform")
            mixed_size, mixed_kl, mixed_error = measured(folder / "mixed.json", folder / "mixed")
        print(f"| `{uniform['name']}` | {size:.3f} | {kl:.5f} ± {error:.5f} | {mixed_size:.3f} | {mixed_kl:.5f} ± {mixed_error:.5f} | "
              f"{100 * mixed_kl / kl:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
