"""`lowp cast --device cuda` against `--device cpu`: the same bytes for every format, axis, layout and input type.

usage: gpu_check_cast.py LOWP
"""
import json
import random
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHAPES = {"a": [96, 256], "b": [3, 128, 512], "c": [1, 1024], "d": [256, 256]}


def write(path, shapes, ends):
    """A safetensors file of bf16 and f32 tensors with values of many magnitudes, and i32 group ends."""
    rng = random.Random(1)
    header, data, at = {}, [], 0
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        for dtype in ("BF16", "F32"):
            values = [rng.gauss(0, 1) * 2.0 ** rng.randint(-12, 12) for _ in range(count)]
            raw = struct.pack(f"<{count}f", *values)
            if dtype == "BF16":
                raw = b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4))
            header[f"{name}.{dtype}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
            data.append(raw)
            at += len(raw)
    raw = struct.pack(f"<{len(ends)}i", *ends)
    header["ends"] = {"dtype": "I32", "shape": [len(ends)], "data_offsets": [at, at + len(raw)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data) + raw)


def main():
    lowp = sys.argv[1]
    formats = ["mxfp8", "mxfp8_e5m2", "mxfp6", "mxfp6_e3m2", "mxfp4", "nvfp4", "nvfp4_single", "fp8", "fp8_tensor", "fp8_group128",
               "fp8_block128", "int8", "int8_g32", "int8_tensor", "int8_asym", "int4_g32", "int4_g32_asym", "int4_g32_float",
               "int3_g64", "int4_channel", "int4_g128_sym8", "codebook4_g64", "q8_0",
               "nvfp4_training", "nvfp4_training_block16"]
    runs = [(f, ["--axis", a]) for f in formats for a in ("k", "n", "both")]
    runs += [(f, ["--axis", a, "--scale-layout", "tiled_per_expert", "--scaling", s])
             for f in ("mxfp8", "mxfp4") for a in ("k", "n", "both") for s in ("floor", "rceil", "even", "ceil")]
    floats = ("mxfp8", "mxfp8_e5m2", "mxfp4", "nvfp4", "nvfp4_training", "fp8")
    runs += [(f, ["--axis", a, "--rounding", "stochastic", "--seed", "123456789012"]) for f in floats for a in ("k", "n", "both")]
    runs += [(f, ["--axis", a, "--hadamard"]) for f in floats for a in ("k", "n", "both")]
    runs += [("nvfp4_training", ["--axis", a, "--hadamard", "--rounding", "stochastic", "--scale-layout", "tiled_per_expert"])
             for a in ("k", "n", "both")]
    with tempfile.TemporaryDirectory() as folder:
        every, even = Path(folder, "in.safetensors"), Path(folder, "even.safetensors")
        write(every, SHAPES, [40, 96])
        write(even, {n: s for n, s in SHAPES.items() if s[-2] % 16 == 0}, [40, 96])

        def differs(number):
            """What the devices left, where that is not the same."""
            name, options = runs[number]
            source = even if "--hadamard" in options else every
            results = []
            for device in ("cpu", "cuda"):
                out = Path(folder, f"{number}.{device}.safetensors")
                run = subprocess.run([lowp, "cast", source, "--format", name, "-o", out, "--device", device, *options],
                                     capture_output=True, text=True)
                error = run.stderr.replace(out.name, "").replace(device, "")
                results.append((run.returncode, out.read_bytes() if out.exists() else error))
                out.unlink(missing_ok=True)
            return results if results[0] != results[1] else None

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(differs, range(len(runs))))
    for (name, options), results in zip(runs, found):
        if results:
            print("differs:", name, *options, *(r[1] if isinstance(r[1], str) else len(r[1]) for r in results))
    failed = sum(1 for results in found if results)
    print(f"{len(runs) - failed} of {len(runs)} casts are the same on cpu and cuda")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
