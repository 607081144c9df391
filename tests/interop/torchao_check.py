#!/usr/bin/env python3
"""Loads a folder in the torchao dialect with torchao itself and compares its dequantize() with a decoder of our own.

    python tests/interop/torchao_check.py FOLDER

Needs torch, torchao >= 0.18 and numpy; with transformers installed, its reading of quantization_config is checked as well.
Our decoder reads the bytes of the file with numpy alone, as the recipe that lowp noted for the weight says. Int4Tensor has
no dequantize(): its fields are put together as its matrix product does, (q * scale) + zero_point, each step rounded to the
dtype of the model.
Prints a line for each failure and 'N passed, N failed'; exit code 1 if there was one.
"""

import json
import logging
import pathlib
import struct
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402
from torchao.core.config import config_from_dict  # noqa: E402
from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict  # noqa: E402
from torchao.prototype.safetensors.safetensors_utils import is_metadata_torchao  # noqa: E402

NUMPY = {"F32": np.float32, "F16": np.float16, "I8": np.int8}  # the rest is kept as bytes (BF16: 16-bit codes)
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8, "I8": torch.int8,
         "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu}


def read(path):
    """Name -> (dtype, raw numpy array), and the metadata."""
    blob = path.read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        code = NUMPY.get(entry["dtype"], np.uint16 if entry["dtype"] == "BF16" else np.uint8)
        tensors[name] = entry["dtype"], np.frombuffer(blob[begin:end], code).reshape(entry["shape"])
    return tensors, metadata


def as_torch(dtype, raw):
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=TORCH[dtype]).reshape(raw.shape) if raw.size else \
        torch.empty(raw.shape, dtype=TORCH[dtype])


def table(exponent_bits, mantissa_bits, bias, special):
    """Values of all codes of a float; special: 'ieee', 'nan' (all ones) or ''."""
    values = []
    for code in range(1 << (1 + exponent_bits + mantissa_bits)):
        mantissa = code & ((1 << mantissa_bits) - 1)
        exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
        sign = -1.0 if code >> (exponent_bits + mantissa_bits) else 1.0
        top = exponent == (1 << exponent_bits) - 1
        if special == "ieee" and top:
            values.append(np.nan if mantissa else sign * np.inf)
        elif special == "nan" and top and mantissa == (1 << mantissa_bits) - 1:
            values.append(np.nan)
        elif exponent == 0:
            values.append(sign * mantissa * 2.0 ** (1 - bias - mantissa_bits))
        else:
            values.append(sign * (1 + mantissa * 2.0**-mantissa_bits) * 2.0 ** (exponent - bias))
    return np.array(values, np.float32)


E4M3, E5M2 = table(4, 3, 7, "nan"), table(5, 2, 15, "ieee")
E2M3, E3M2, E2M1 = table(2, 3, 1, ""), table(3, 2, 3, ""), table(2, 1, 1, "")
E8M0 = np.array([2.0 ** (code - 127) for code in range(255)] + [np.nan]).astype(np.float32)


def widen(dtype, raw):
    """High precision or one-byte scales as f32."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return {"F8_E4M3": lambda: E4M3[raw], "F8_E8M0": lambda: E8M0[raw]}.get(dtype, lambda: raw.astype(np.float32))()


def rounded(values, dtype):
    """f32 rounded to the dtype, as f32."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(values), np.float32(np.nan), even.view(np.float32))
    return values


def nibbles(raw):
    """Bytes -> codes, the low nibble first."""
    raw = raw.view(np.uint8)
    return np.stack([raw & 15, raw >> 4], -1).reshape(raw.shape[0], -1)


MX = {"mxfp8": E4M3, "mxfp8_e5m2": E5M2, "mxfp6": E2M3, "mxfp6_e3m2": E3M2, "mxfp4": E2M1}


def decode(kind, fields, word, dtype):
    """The values of a weight in our format `word` from raw bytes, rounded to a dtype."""
    codes_type, codes = fields["qdata"]
    scale = widen(*fields["scale"])
    if kind == "Int4Tensor":
        q = nibbles(codes).astype(np.int32)
        q = np.where(q > 7, q - 16, q).astype(np.float32)
        spread = lambda x: np.repeat(x.T, q.shape[1] // x.shape[0], 1)  # noqa: E731
        return rounded(rounded(q * spread(scale), dtype) + spread(widen(*fields["zero_point"])), dtype)
    if kind in ("Int8Tensor", "IntxUnpackedToInt8Tensor"):
        q = codes.astype(np.float32)
    elif kind == "Float8Tensor":
        q = E4M3[codes]
    else:
        values = MX.get(word, E2M1)
        q = values[nibbles(codes) if values is E2M1 else codes]
    if "per_tensor_scale" in fields:
        scale = fields["per_tensor_scale"][1].astype(np.float32) * scale
    spread = lambda x: np.repeat(np.repeat(x, q.shape[0] // x.shape[0], 0), q.shape[1] // x.shape[1], 1)  # noqa: E731
    if word.endswith("_asym"):
        q = q - spread(fields["zero_point"][1].astype(np.float32))
    with np.errstate(over="ignore"):
        return rounded(q * spread(scale), dtype)


def theirs(weight, kind, dtype):
    if kind != "Int4Tensor":
        return weight.dequantize() if kind == "IntxUnpackedToInt8Tensor" else weight.dequantize(getattr(torch, dtype))
    low = (weight.qdata << 4) >> 4
    q = torch.stack([low, weight.qdata >> 4], -1).reshape(weight.shape).to(weight.dtype)
    groups = weight.shape[1] // weight.block_size[1]
    assert weight.scale.shape == (groups, weight.shape[0]), weight.scale.shape
    spread = lambda x: x.t().repeat_interleave(weight.block_size[1], 1)  # noqa: E731
    return q * spread(weight.scale) + spread(weight.zero_point)


def same(ours, tensor):
    found = tensor.float().numpy()
    return ours.shape == found.shape and np.array_equal(ours.view(np.uint32)[~np.isnan(ours)],
                                                        found.view(np.uint32)[~np.isnan(ours)]) \
        and np.array_equal(np.isnan(ours), np.isnan(found))


def check_config(folder):
    """Reasons why quantization_config cannot be read by torchao and, if it is here, by transformers."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    config_from_dict(config["quant_type"]["default"])
    try:
        from transformers import TorchAoConfig
    except ImportError:
        return
    TorchAoConfig.from_dict(config)


def main(folder):
    passed = failed = 0

    def check(what, action):
        nonlocal passed, failed
        try:
            reason = action()
        except Exception as error:  # whatever their code raises is a failure of ours
            reason = f"{type(error).__name__}: {error}"
        passed, failed = passed + (not reason), failed + bool(reason)
        if reason:
            print(f"{what}: {reason}")

    check("config.json", lambda: check_config(folder))
    raw, metadata, lists = {}, {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors, notes = read(path)
        check(f"{path.name}: metadata", lambda: "" if is_metadata_torchao(notes) else "torchao refuses it")
        lists[path.name] = set(json.loads(notes.get("tensor_names", "[]")))
        raw.update(tensors)
        metadata.update(notes)
    names = sorted(set().union(*lists.values()))
    for path, listed in lists.items():  # transformers keeps the list of the file that it opens last
        check(f"{path}: tensor_names", lambda: f"{len(names) - len(listed)} of the folder are missing"
              if len(listed) < len(names) else "")

    recipes = json.loads(metadata.get("lowp.recipes", "{}"))
    modules = {}
    for key, pair in raw.items():
        modules.setdefault(key.rpartition(".")[0], {})[key] = pair
    for name in names:
        module = name.removesuffix(".weight")
        kind = json.loads(metadata[name])["_type"]
        mine = modules.get(name.rpartition(".")[0], {})
        loaded = {}

        def load():
            one = {"tensor_names": json.dumps([name]), name: metadata[name]}
            state, rest = unflatten_tensor_state_dict({key: as_torch(*pair) for key, pair in mine.items()}, one)
            loaded.update(state)
            rest = [key for key in rest if key.startswith(module + "._weight_")]
            return f"left over: {rest}" if rest else "" if name in state else "its tensors are not complete"

        what = f"{name} {recipes.get(module, '')}"
        check(f"{what}: loading", load)
        if name not in loaded:
            continue
        weight = loaded[name]
        if kind == "Tensor":
            check(what, lambda: "" if torch.equal(weight, as_torch(*raw[name])) else "plain tensor differs")
            continue
        word = recipes[module].partition("-")[0]
        fields = {key.removeprefix(module + "._weight_"): pair for key, pair in mine.items() if "._weight_" in key}
        model = str(weight.dtype).removeprefix("torch.")
        fixed = kind in ("Int4Tensor", "IntxUnpackedToInt8Tensor")  # these have one dtype only
        for dtype in [model] if fixed else sorted({model, "float32"}):
            def values():
                if type(weight).__name__ != kind:
                    return f"is a {type(weight).__name__}, not a {kind}"
                ours = decode(kind, fields, word, dtype)
                return "" if same(ours, theirs(weight, kind, dtype)) else f"{kind} differs in {dtype}"

            check(f"{what} in {dtype}", values)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
