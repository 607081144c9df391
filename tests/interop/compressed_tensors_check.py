#!/usr/bin/env python3
"""Reads a folder in the compressed-tensors dialect with the compressed-tensors package and compares its values with ours.

    python tests/interop/compressed_tensors_check.py FOLDER [ORIGINAL] [--no-transformers]

Needs torch, compressed-tensors >= 0.20 and numpy. For each module the package validates the config, says which scheme the
module has and decompresses it; the result must equal, to the bit, what a decoder of our own reads from the bytes of the
file with numpy alone. With ORIGINAL, the model that was quantized, unquantized tensors must be the same bytes and the
signal-to-noise ratio of the weights is printed. With transformers installed, the model is loaded and run on 16 tokens; the
outcome is reported but not counted, since it depends on what transformers makes of the architecture.
Prints a line for each failure and 'N passed, N failed'; exit code 1 if there was one.
"""

import argparse
import json
import logging
import os
import pathlib
import struct
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
os.environ.setdefault("TQDM_DISABLE", "1")

import torch  # noqa: E402
from compressed_tensors.compressors import BaseCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config  # noqa: E402

NUMPY = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I32": np.int32, "I64": np.int64, "BF16": np.uint16}
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8, "I8": torch.int8,
         "I32": torch.int32, "I64": torch.int64, "F8_E4M3": torch.float8_e4m3fn}
PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_global_scale",
         "input_scale", "input_global_scale")


def read(folder):
    """Name -> (dtype, raw numpy array) of all files of a folder; the rest is kept as bytes."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.read_bytes()
        size = struct.unpack("<Q", blob[:8])[0]
        header = json.loads(blob[8:8 + size])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            code = NUMPY.get(entry["dtype"], np.uint8)
            tensors[name] = entry["dtype"], np.frombuffer(blob[begin:end], code).reshape(entry["shape"])
    return tensors


def as_torch(dtype, raw):
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=TORCH[dtype]).reshape(raw.shape)


# --- our decoder

def table(exponent_bits, mantissa_bits, bias):
    """Values of all codes of a float without infinities."""
    values = []
    for code in range(1 << (1 + exponent_bits + mantissa_bits)):
        mantissa, exponent = code & ((1 << mantissa_bits) - 1), (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
        sign = -1.0 if code >> (exponent_bits + mantissa_bits) else 1.0
        values.append(sign * (mantissa * 2.0**-mantissa_bits + (exponent > 0)) * 2.0 ** (max(exponent, 1) - bias))
    return np.array(values, np.float32)


E4M3, E2M3, E2M1 = table(4, 3, 7), table(2, 3, 1), table(2, 1, 1)
E4M3[[0x7F, 0xFF]] = np.nan
E8M0 = np.array([2.0 ** (code - 127) for code in range(255)] + [np.nan]).astype(np.float32)


def widen(dtype, raw):
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return {"F8_E4M3": lambda: E4M3[raw], "U8": lambda: E8M0[raw]}.get(dtype, lambda: raw.astype(np.float32))()


def rounded(values, dtype):
    """f32 rounded to the dtype, as f32."""
    if dtype == torch.float16:
        return values.astype(np.float16).astype(np.float32)
    if dtype == torch.bfloat16:
        bits = values.astype(np.float32).view(np.uint32)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(values), np.float32(np.nan), even.view(np.float32))
    return values.astype(np.float32)


def stream(raw, bits, count):
    """Codes of a bit stream in each row, the lowest bit of the first byte first."""
    flat = np.unpackbits(raw.view(np.uint8).reshape(raw.shape[0], -1), axis=1, bitorder="little")[:, :count * bits]
    return (flat.reshape(raw.shape[0], count, bits) << np.arange(bits)).sum(-1)


def signed(raw, bits, count):
    return stream(np.ascontiguousarray(raw), bits, count) - (1 << (bits - 1))


def decode(parts, weights, exact_scale=False):
    """f32 values of a weight, before they are rounded to a dtype. exact_scale: multiply by the tensor scale that lowp
    derived from the largest bf16 value instead of dividing by the rounded reciprocal that is in the file."""
    bits, is_float = weights.num_bits, weights.type == "float"
    scale = widen(*parts["weight_scale"]).reshape(parts["weight_scale"][1].shape or (1, 1))
    scale = scale.reshape(1, 1) if scale.size == 1 else scale
    if "weight" in parts:
        raw = parts["weight"][1]
        codes = E4M3[raw] if is_float else raw.astype(np.float32)
    elif is_float:
        raw = parts["weight_packed"][1]
        codes = {4: E2M1, 6: E2M3}[bits][stream(raw, bits, raw.shape[1] * 8 // bits)]
    else:
        codes = signed(parts["weight_packed"][1], bits, int(parts["weight_shape"][1][1])).astype(np.float32)
    rows, columns = codes.shape
    if "weight_zero_point" in parts:
        zero = parts["weight_zero_point"][1]
        zero = signed(zero.T, bits, rows).T if "weight_packed" in parts else zero
    if "weight_global_scale" in parts:
        divisor = parts["weight_global_scale"][1]
        largest = rounded(np.float32(2688) / divisor, torch.bfloat16)
        scale = scale * (largest / np.float32(2688)) if exact_scale else scale / divisor
    height, width = (weights.block_structure or (rows // scale.shape[0], columns // scale.shape[1]))
    spread = lambda x: np.repeat(np.repeat(x, height, 0)[:rows], width, 1)[:, :columns]  # noqa: E731
    if "weight_zero_point" in parts:
        codes = codes - spread(zero.astype(np.float32))
    with np.errstate(over="ignore"):
        return codes * spread(scale)


def difference(ours, theirs):
    """Number of values that differ in any bit but the sign of zero and the payload of NaN, and by how much at most."""
    theirs = theirs.float().numpy()
    if ours.shape != theirs.shape:
        return ours.size, np.inf
    differs = ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    return int(differs.sum()), float(np.max(np.abs(ours - theirs)[differs] / np.abs(ours)[differs], initial=0))


# --- the package

class Stub(torch.nn.Module):
    """The Linears and embeddings of a model, without the rest: what targets and ignore are matched against."""

    def put(self, name, module):
        *path, last = name.split(".")
        parent = self
        for part in path:
            if not hasattr(parent, part):
                setattr(parent, part, torch.nn.Module())
            parent = getattr(parent, part)
        setattr(parent, last, module)


def stub(tensors):
    model = Stub()
    shapes = {}
    for name, (_, raw) in tensors.items():
        module, _, part = name.rpartition(".")
        if part in ("weight", "weight_packed") and raw.ndim == 2:
            shapes[module] = raw.shape
    shapes.setdefault("lm_head", (1, 1))  # a tied one has no tensor
    for name, (rows, columns) in shapes.items():
        kind = torch.nn.Embedding if name.endswith("embed_tokens") else torch.nn.Linear
        model.put(name, kind(rows, columns, device="meta") if kind is torch.nn.Embedding else
                  kind(columns, rows, bias=False, device="meta"))
    return model


class Report:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, action):
        try:
            reason = action()
        except Exception as error:  # whatever their code raises is a failure of ours
            reason = f"{type(error).__name__}: {error}"
        self.passed, self.failed = self.passed + (not reason), self.failed + bool(reason)
        if reason:
            print(f"{what}: {reason}")
        return not reason


def check_modules(report, config, tensors, original):
    """Decompresses every module; prints what is worth knowing about all of them together."""
    quantized = {name.rpartition(".")[0] for name in tensors if name.endswith(".weight_scale")}
    model = stub(tensors)
    apply_quantization_config(model, config, show_progress=False)
    schemes = {name: module.quantization_scheme for name, module in model.named_modules()
               if hasattr(module, "quantization_scheme")}
    report.check("targets", lambda: ", ".join(sorted(quantized ^ set(schemes))))
    inexact = values = 0
    worst = np.inf
    for name in sorted(quantized & set(schemes)):
        parts = {part: tensors[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in tensors}
        scheme = schemes[name]
        rest = [key for key in tensors if key.startswith(name + ".") and key[len(name) + 1:] not in PARTS + ("bias",)]
        report.check(f"{name}: unknown tensors", lambda: ", ".join(rest))

        def values_agree():
            nonlocal inexact, values, worst
            compressor = BaseCompressor.get_value_from_registry(scheme.format or config.format)
            theirs = compressor.decompress({key: as_torch(*pair) for key, pair in parts.items()}, scheme)["weight"]
            count, most = difference(rounded(decode(parts, scheme.weights), theirs.dtype), theirs)
            if "weight_global_scale" in parts:
                off, most_off = difference(rounded(decode(parts, scheme.weights, True), theirs.dtype), theirs)
                inexact, values = inexact + off, values + theirs.numel()
                if most_off > 2.0**-7:
                    return f"{off} values differ from lowp's by up to {most_off:.3g}"
            if original:
                source = name + ".weight"
                if source not in original and name.endswith("lm_head"):
                    source = "model.embed_tokens.weight"  # it was tied
                x = widen(*original[source]).astype(np.float64)
                noise = np.sum((x - theirs.double().numpy()) ** 2)
                worst = min(worst, 10 * np.log10(np.sum(x**2) / noise) if noise else np.inf)
            return f"{count} of {theirs.numel()} values differ, by up to {most:.3g}" if count else ""

        report.check(name, values_agree)
    if values:
        print(f"tensor scales: {inexact} of {values} values are one bf16 step from lowp's (x / (1 / s) is not x * s)")
    if original:
        print(f"signal to noise: {worst:.2f} dB at least")


def try_transformers(folder):
    """How transformers fares, in words."""
    try:
        import transformers
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        bad = {key: sorted(value)[:3] for key, value in info.items() if value}
        with torch.no_grad():
            logits = model(torch.arange(16)[None]).logits.float()
        return f"loads, logits {'finite' if torch.isfinite(logits).all() else 'NOT FINITE'}, loading info {bad or 'clean'}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"


def main():
    arguments = argparse.ArgumentParser(description="see the top of the file")
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("original", type=pathlib.Path, nargs="?")
    arguments.add_argument("--no-transformers", action="store_true")
    options = arguments.parse_args()
    tensors = read(options.folder)
    original = read(options.original) if options.original else {}
    declared = json.loads((options.folder / "config.json").read_text())["quantization_config"]
    report = Report()
    config = None

    def valid():
        nonlocal config
        config = QuantizationConfig.model_validate(declared)

    if report.check("quantization_config", valid):
        check_modules(report, config, tensors, original)
    for name, (dtype, raw) in original.items():
        if name in tensors and name.rpartition(".")[0] + ".weight_scale" not in tensors:
            report.check(name, lambda: "" if (dtype, raw.tobytes()) == (tensors[name][0], tensors[name][1].tobytes())
                         else "unquantized tensor differs from the original")
    if not options.no_transformers:
        print(f"transformers: {try_transformers(options.folder)}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
