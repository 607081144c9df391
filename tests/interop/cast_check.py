#!/usr/bin/env python3
"""Compares what `lowp cast` writes with torchao itself, byte for byte, on fresh tensors that no golden file holds.

    python tests/interop/cast_check.py LOWP [--seed N]

Needs torch 2.13, torchao 0.18, numpy and safetensors. Every format of `lowp recipes --formats` that torchao has, every scaling,
input in f32, bf16 and f16, two and three dimensions, all axes, all scale layouts, and the way back with --decode. The inputs
and the calls of torchao are those of tools/golden/make_casts.py with other random numbers; where lowp departs from torchao on
purpose (docs/NUMERICS.md) the expected bytes are corrected here.
Prints a line for each failure and 'N passed, N failed'; exit code 1 if there was one.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/golden"))

import make_casts as golden  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torchao.prototype.mx_formats.utils import to_blocked  # noqa: E402

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SCALINGS = ("floor", "ceil", "even", "rceil")
CALIBRATED = {"nvfp4_static": "nvfp4", "fp8_static": "fp8_tensor", "int8_static": "int8_tensor"}
ITERATED = {"codebook4_g64": golden.codebook, "int4_g64_float_hqq": golden.hqq}  # compared by SQNR, within 0.1 dB
MATRIX_KINDS = ("normal", "heavy", "subnormal", "constant", "zero", "wide", "edge", "edge_fp8", "edge_nvfp4", "edge_int",
                "ulp", "normal_tall", "heavy_tall")


def holes(rng, dtype):
    """Zero blocks and rows in a tensor whose largest magnitude makes the second-level scale of nvfp4 exactly 1."""
    x = torch.tensor(rng.standard_normal((8, 256)), dtype=dtype)
    x[0, :64], x[3], x[7, 255] = 0, -0.0, 2688
    return x


def tiny_f16(rng, dtype):
    """Subnormals of f16 and their neighbours."""
    x = rng.choice([-1.0, 1.0], (8, 256)) * rng.uniform(1, 2, (8, 256)) * 2.0 ** rng.integers(-25, -10, (8, 256))
    return torch.tensor(x, dtype=dtype)


KINDS = {name: golden.KINDS[name] for name in (*MATRIX_KINDS, "nan")} | {
    "holes": holes, "tiny_f16": tiny_f16, "normal256": golden.gaussian((256, 512)), "experts": golden.gaussian((3, 128, 256)),
    "heavy_experts": golden.heavy((2, 256, 256)), "thin_experts": golden.gaussian((2, 8, 256))}


def inputs(seed, dtype):
    """{kind: tensor}; what f16 cannot hold is brought to its largest value."""
    made = {}
    for i, (kind, make) in enumerate(KINDS.items()):
        x = make(np.random.default_rng([seed, i]), DTYPES[dtype] if dtype != "f16" else torch.float32)
        made[kind] = x if dtype != "f16" else torch.where(x.isfinite(), x.clamp(-65504, 65504), x).half()
    return made


def reference(form, scaling):
    """torchao's cast of one matrix into a format, as make_casts.py calls it."""
    form = CALIBRATED.get(form, form)
    if form.startswith(("mx", "nvfp4")):
        run = golden.ALL[f"{form}@{scaling}" if form.startswith("mx") else form]
        # torchao takes no f16 here; both formats compute in f32 from exact values.
        return lambda x: run(x.float() if x.dtype == torch.float16 else x)
    if form in golden.FP8_BLOCK:
        return golden.FP8_BLOCK[form]
    if form in golden.ALL:
        return golden.ALL[form]
    bits, group, tail = re.fullmatch(r"int(\d)_(?:g(\d+)|channel)(_asym|_float)?", form).groups()
    if tail == "_float":
        return golden.int4_float(int(group))
    return golden.intx(int(bits), int(group or 0), golden.ASYM if tail else golden.SYM)


def mended(form, x, fields):
    """docs/NUMERICS.md, 'Where lowp differs': a zero stays zero, and what is all zero has scale 1."""
    zero = x == 0
    sign = torch.signbit(x).to(torch.uint8)
    if form.startswith("fp8"):
        fields["data"] = torch.where(zero, sign * 0x80, fields["data"])
        rows, columns = (n // s for n, s in zip(x.shape, fields["scale"].shape))
        amax = x.abs().reshape(fields["scale"].shape[0], rows, -1, columns).amax((1, 3))
        fields["scale"] = torch.where(amax == 0, 1.0, fields["scale"])
    elif form in ("nvfp4", "nvfp4_static"):
        codes = torch.stack([fields["data"] & 15, fields["data"] >> 4], -1).reshape(x.shape)
        codes = torch.where(zero, sign * 8, codes)
        fields["data"] = codes[:, 0::2] | codes[:, 1::2] << 4
        if zero.all():
            fields["tensor_scale"] = torch.ones(1)
            fields["scale"] = torch.full_like(fields["scale"], 0x38)
    return fields


def cast(form, scaling, x):
    """{field: tensor} of x [n, k] or of each expert of x [e, n, k], and torchao's values, None where it has none or had to
    divide by a scale of zero."""
    run = reference(form, scaling)
    parts, values = [], []
    for matrix in x if x.dim() == 3 else [x]:
        fields, decoded = run(matrix)
        usable = decoded is not None and golden.usable(fields) and bool(matrix.isfinite().all())
        values += [decoded] if usable else []
        parts.append(mended(form, matrix, dict(fields)))
    merge = (lambda t: t[0]) if x.dim() == 2 else torch.stack
    fields = {name: merge([part[name] for part in parts]) for name in parts[0]}
    if "tensor_scale" in fields:
        fields["tensor_scale"] = fields["tensor_scale"].reshape(-1)
    return fields, merge(values) if len(values) == len(parts) else None


def raw(t):
    return t.contiguous().reshape(-1).view(torch.uint8)


def difference(found, expected, typed=False):
    """Why two tensors are not the same bytes in the same shape; '' if they are."""
    if found is None:
        return "is missing"
    if tuple(found.shape) != tuple(expected.shape):
        return f"has shape {list(found.shape)}, expected {list(expected.shape)}"
    if typed and found.dtype != expected.dtype or found.element_size() != expected.element_size():
        return f"is {found.dtype}, expected {expected.dtype}"
    wrong = (raw(found) != raw(expected)).nonzero()
    if not len(wrong):
        return ""
    at = int(wrong[0])
    return f"{len(wrong)} of {raw(found).numel()} bytes differ, first at {at}: {int(raw(found)[at])}, expected {int(raw(expected)[at])}"


class Checker:
    def __init__(self, lowp, folder):
        self.lowp, self.folder = lowp, folder
        self.passed = collections.Counter()
        self.failed = []

    def run(self, *args):
        done = subprocess.run([self.lowp, *map(str, args)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"lowp {' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout

    def check(self, group, what, reason):
        if reason:
            self.failed.append(what)
            print(f"{what}: {reason}", flush=True)
        else:
            self.passed[group] += 1

    def cast(self, tensors, form, *options):
        source, out = self.folder / "in.safetensors", self.folder / "out.safetensors"
        save_file({name: t.contiguous() for name, t in tensors.items()}, source)
        self.run("cast", source, "--format", form, "-o", out, *options)
        return load_file(out)

    def decode(self, *options):
        back = self.folder / "back.safetensors"
        self.run("cast", self.folder / "out.safetensors", "--decode", "-o", back, *options)
        return load_file(back)

    def fields(self, group, what, found, base, expected, suffix="", swap=False):
        names = {name for name in found if name.startswith(base + ".") and name.endswith("_n") == (suffix == "_n")}
        wanted = {f"{base}.{field}{suffix}" for field in expected}
        self.check(group, what, f"holds {sorted(names)}, expected {sorted(wanted)}" if names != wanted else "")
        for field, tensor in expected.items():
            if swap and field in ("scale", "zero_point"):
                tensor = tensor.transpose(-1, -2)
            self.check(group, f"{what} .{field}{suffix}", difference(found.get(f"{base}.{field}{suffix}"), tensor))


def divisible(form, x):
    if form == "fp8_block128":
        return x.shape[-2] % 128 == 0 and x.shape[-1] % 128 == 0
    return True


def check_values(checker, form, scaling, made_by_dtype):
    for dtype, made in made_by_dtype.items():
        is_mx = form.startswith("mx")
        made = {k: x for k, x in made.items() if divisible(form, x) and (is_mx or bool(x.isfinite().all()))}
        options = ("--scaling", scaling) if is_mx else ()
        what = f"{form}{'@' + scaling if is_mx else ''} {dtype}"
        expected = {kind: cast(form, scaling, x) for kind, x in made.items()}
        found = checker.cast(made, form, *options)
        back = checker.decode("--dtype", dtype) if dtype != "f16" else {}
        for kind, (fields, values) in expected.items():
            checker.fields("axis k", f"{what} {kind}", found, kind, fields)
            if dtype != "f16" and values is not None:
                checker.check("decode", f"{what} {kind} decoded", difference(back.get(kind), values, typed=True))
        # Along n of the transposed tensor the codes are the same and the scales lie the other way round.
        flipped = {kind: x.transpose(-1, -2) for kind, x in made.items()}
        found = checker.cast(flipped, form, *options, "--axis", "n")
        again = checker.decode("--dtype", dtype) if dtype != "f16" else {}
        for kind, (fields, _) in expected.items():
            checker.fields("axis n", f"{what} {kind} axis n", found, kind, fields, swap=True)
            if again:
                checker.check("decode", f"{what} {kind} axis n decoded",
                              difference(again[kind], back[kind].transpose(-1, -2), typed=True))
        square = {k: made[k] for k in ("normal256", "heavy_experts")}
        found = checker.cast(square, form, *options, "--axis", "both")
        for kind, x in square.items():
            checker.fields("both", f"{what} {kind} both", found, kind, expected[kind][0])
            checker.fields("both", f"{what} {kind} both", found, kind, cast(form, scaling, x.transpose(-1, -2).contiguous())[0],
                           suffix="_n", swap=True)


def check_layouts(checker, form, seed):
    rng = np.random.default_rng([seed, 99])
    block = 16 if form.startswith("nvfp4") else 32

    def compare(what, layout, tensors, expected, *options, ends=None, axis=()):
        given = tensors | ({"ends": torch.tensor(ends, dtype=torch.int32)} if ends else {})
        plain = checker.cast(tensors, form, *axis)
        values = checker.decode()
        found = checker.cast(given, form, "--scale-layout", layout, *(("--group-ends", "ends") if ends else ()), *axis)
        again = checker.decode()
        for name, x in tensors.items():
            if axis:
                x = x.transpose(-1, -2).contiguous()
            scale = cast(form, "floor", x)[0]["scale"]
            checker.check("layouts", f"{form} {layout} {what}", difference(found.get(name + ".scale"), expected(scale)))
            for field in plain:
                if not field.endswith(".scale"):
                    checker.check("layouts", f"{form} {layout} {field}", difference(found.get(field), plain[field]))
            checker.check("layouts", f"{form} {layout} {what} decoded", difference(again[name], values[name]))

    def normal(*shape):
        return torch.tensor(rng.standard_normal(shape), dtype=torch.bfloat16)

    def up(x, unit):
        return -(-x // unit) * unit

    def tiled(scale):
        h, w = scale.shape[0] * (scale.shape[1] if scale.dim() == 3 else 1), scale.shape[-1]
        return to_blocked(scale.reshape(h, w)).reshape(up(h, 128) // 4, up(w, 4) * 4)

    for n, k in ((1, block), (130, 7 * block), (128, 4 * block), (300, 12 * block)):
        compare(f"[{n}, {k}]", "tiled", {"a": normal(n, k)}, tiled)
        compare(f"[{k}, {n}] axis n", "tiled", {"a": normal(k, n)}, tiled, axis=("--axis", "n"))
    compare("experts", "tiled", {"a": normal(3, 128, 6 * block)}, tiled)
    for e, n, k in ((3, 130, 7 * block), (2, 128, 4 * block), (4, 33, 2 * block)):
        compare(f"[{e}, {n}, {k}]", "tiled_per_expert", {"a": normal(e, n, k)}, golden.torch_to_blocked_per_group_3d)
        compare(f"[{e}, {k}, {n}] axis n", "tiled_per_expert", {"a": normal(e, k, n)}, golden.torch_to_blocked_per_group_3d,
                axis=("--axis", "n"))
    for _ in range(6):
        groups, n = int(rng.integers(1, 9)), int(rng.integers(1, 500))
        ends = sorted(int(e) for e in rng.integers(0, n + 1, groups - 1)) + [n]
        compare(f"ends {ends}", "tiled_m_groups", {"a": normal(n, 8 * block)},
                lambda s: golden.torch_to_blocked_2d_M_groups(s, torch.tensor(ends, dtype=torch.int32))[0], ends=ends)
        w = int(rng.integers(1, 30))
        ends = sorted(int(e) for e in rng.integers(0, w + 1, groups - 1)) + [w]
        by_k = dict(expected=lambda s: golden.torch_to_blocked_2d_K_groups(s, torch.tensor(ends, dtype=torch.int32))[0],
                    ends=[e * block for e in ends])
        compare(f"ends {ends}", "tiled_k_groups", {"a": normal(n, w * block)}, **by_k)
        compare(f"ends {ends} axis n", "tiled_k_groups", {"a": normal(w * block, n)}, **by_k, axis=("--axis", "n"))


def check_iterated(checker, form, made_by_dtype):
    for dtype, made in made_by_dtype.items():
        made = {k: x for k, x in made.items() if k in ("normal_tall", "heavy_tall", "normal256")}
        checker.cast(made, form)
        back = checker.decode("--dtype", "f32")
        for kind, x in made.items():
            theirs, ours = (float(golden.sqnr(x, y)) for y in (ITERATED[form](x), back[kind]))
            checker.check("sqnr", f"{form} {dtype} {kind}", "" if ours > theirs - 0.1 else f"{ours:.2f} dB, torchao {theirs:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--formats", default=".*", help="only formats that match this regular expression")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checker = Checker(args.lowp, pathlib.Path(folder))
        made = {dtype: inputs(args.seed, dtype) for dtype in DTYPES}
        groups = ("32", "64", "128", "256")
        rows = json.loads(checker.run("recipes", "--formats", "--json"))
        print("torchao has no", ", ".join(row["format"] for row in rows if not row["torchao"]))
        for row in rows:
            pattern, forms = row["format"], []
            for bits in range(1, 9) if "<B>" in pattern else [0]:
                for group in groups if "<G>" in pattern else [""]:
                    forms.append(pattern.replace("<B>", str(bits)).replace("<G>", group))
            for form in forms:
                iterates = form.startswith("codebook") or form.endswith("_hqq")
                if not row["torchao"] or iterates and form not in ITERATED or not re.fullmatch(args.formats, form):
                    continue
                try:
                    if iterates:
                        check_iterated(checker, form, made)
                    else:
                        for scaling in SCALINGS if form.startswith("mx") else SCALINGS[:1]:
                            check_values(checker, form, scaling, made)
                        if row["scale"].startswith(("e8m0", "e4m3")):
                            check_layouts(checker, form, args.seed)
                except Exception as error:  # a crash of either side is a failure of this format
                    checker.check("", form, f"{type(error).__name__}: {error}")
        print(", ".join(f"{group}: {count}" for group, count in checker.passed.items()))
        print(f"{sum(checker.passed.values())} passed, {len(checker.failed)} failed")
    return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
