#!/usr/bin/env python3
"""Mixtures beside the uniform recipes of the same size, on another text: the table of docs/ALGORITHMS.md.

    lowp tune MODEL --budget-bits 4.125 --calibrate CALIBRATION --json -o mixed.json > tune.json
    python3 tools/tune_table.py LOWP MODEL tune.json TEXT [--recipe RECIPE]...

tune.json has what each part of the model suffers under each format. From that, and by the rule of `lowp tune` (hulls of bits and
loss, steepest steps first), one mixture for the bits of each uniform recipe; both are quantized and compared with the original on TEXT.
Unlike `lowp tune` it does not fall back on the uniform recipe. Exit code 1 if the mixture for tune.json's own budget is another.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile


def hull(options):
    """Indices on the lower convex hull of (bits, loss), from the cheapest on."""
    def slope(a, b):
        return (options[b][1] - options[a][1]) / (options[b][0] - options[a][0])

    chain = []
    for i in sorted(range(len(options)), key=lambda i: options[i]):
        if chain and (options[i][1] >= options[chain[-1]][1] or options[i][0] == options[chain[-1]][0]):
            continue
        while len(chain) >= 2 and slope(chain[-2], chain[-1]) >= slope(chain[-1], i):
            chain.pop()
        chain.append(i)
    return chain


def allocate(parts, recipes, bits, budget):
    """The recipe of each part: lowp/report/allocation.h."""
    options = [[(bits[recipe] * part["weights"], part["kl"][k]) for k, recipe in enumerate(recipes)] for part in parts]
    hulls = [hull(o) for o in options]
    spent = sum(o[h[0]][0] for o, h in zip(options, hulls))
    steps = []
    for p, (o, h) in enumerate(zip(options, hulls)):
        steps += [(p, i, o[h[i]][0] - o[h[i - 1]][0], o[h[i - 1]][1] - o[h[i]][1]) for i in range(1, len(h))]
    place = [0] * len(parts)
    for p, i, more, gain in sorted(steps, key=lambda s: -s[3] / s[2]):
        if place[p] + 1 == i and spent + more <= budget + 1e-6:
            place[p] = i
            spent += more
    return [recipes[h[at]] for h, at in zip(hulls, place)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("model")
    parser.add_argument("tuned", type=pathlib.Path)
    parser.add_argument("text")
    parser.add_argument("--budget", type=float, default=4.125, help="of tuned")
    parser.add_argument("--recipe", action="append", help="only the rows of this one")
    args = parser.parse_args()
    tuned = json.loads(args.tuned.read_text())
    parts, recipes = tuned["parts"], tuned["recipes"]
    bits = {point["name"]: point["bits_per_weight"] for point in tuned["uniform"]}
    weights = sum(part["weights"] for part in parts)

    def run(*command):
        return json.loads(subprocess.run([args.lowp, *map(str, command), "--json"], check=True, capture_output=True, text=True).stdout)

    def measured(recipe, folder):
        size = run("quantize", args.model, "--recipe", recipe, "-o", folder)["bits_per_weight"]
        kl = run("eval", folder, "--text", args.text, "--against", args.model)["kl"]
        return size, kl["mean"], kl["stderr"]

    print("| recipe | bits | KL | mixture's bits | KL | of it |\n|---|--:|--:|--:|--:|--:|")
    for recipe in sorted(args.recipe or recipes, key=bits.get):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            chosen = allocate(parts, recipes, bits, bits[recipe] * weights)
            rules = [{"match": pattern, "recipe": one} for part, one in zip(parts, chosen) for pattern in part["patterns"]]
            (folder / "mixed.json").write_text(json.dumps(rules))
            size, kl, error = measured(recipe, folder / "uniform")
            mixed_size, mixed_kl, mixed_error = measured(folder / "mixed.json", folder / "mixed")
        print(f"| `{recipe}` | {size:.3f} | {kl:.5f} ± {error:.5f} | {mixed_size:.3f} | {mixed_kl:.5f} ± {mixed_error:.5f} | {100 * mixed_kl / kl:.0f} % |",
              flush=True)
    sys.exit(allocate(parts, recipes, bits, args.budget * weights) != [part["recipe"] for part in parts])


if __name__ == "__main__":
    main()
