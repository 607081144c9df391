"""What the end-to-end tests share: running lowp, reading and writing safetensors, making small models.

Only the standard library. A test is run as `python3 NAME_test.py LOWP [unittest arguments]`; LOWP is the binary.
"""
import array
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import NamedTuple

MODELS = Path(__file__).resolve().parents[2] / "models"
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "I32": 32, "U32": 32, "I64": 64, "F16": 16, "BF16": 16, "F32": 32, "F64": 64,
        "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
lowp_path = None


class Tensor(NamedTuple):
    dtype: str
    shape: tuple
    data: bytes


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*args, cwd=None, env=None, timeout=600, limit=None):
    """Runs lowp. A crash (end by a signal) is a failure of the calling test, whatever it expected.

    limit(): what to do in the child before lowp starts.
    """
    done = subprocess.run([lowp_path, *map(str, args)], capture_output=True, cwd=cwd, timeout=timeout, preexec_fn=limit,
                          env={**os.environ, **(env or {})})
    if done.returncode < 0:
        raise AssertionError(f"lowp {' '.join(map(str, args))} was ended by signal {-done.returncode}: {done.stderr!r}")
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


# ---- safetensors

def count(shape):
    return math.prod(shape)


def read_file(path):
    """{name: Tensor} and the metadata of a safetensors file."""
    raw = Path(path).read_bytes()
    length = struct.unpack_from("<Q", raw)[0]
    header, data = json.loads(raw[8:8 + length]), memoryview(raw)[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), bytes(data[begin:end]))
    return tensors, metadata


def header_of(tensors):
    """The header entries of tensors that lie one after the other."""
    entries, at = {}, 0
    for name, tensor in tensors.items():
        entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(tensor.data)]}
        at += len(tensor.data)
    return entries


def with_header(header, data):
    """The bytes of a file with this header (an object or text), right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def file_bytes(tensors, metadata=None):
    header = ({"__metadata__": metadata} if metadata else {}) | header_of(tensors)
    return with_header(header, b"".join(t.data for t in tensors.values()))


def write_file(path, tensors, metadata=None):
    Path(path).write_bytes(file_bytes(tensors, metadata))


# ---- values

def pack(values, dtype):
    """Floats as the bytes of a type (bf16 rounded to nearest even)."""
    floats = array.array("f", values)
    if dtype == "F32":
        return floats.tobytes()
    if dtype == "F16":
        return struct.pack(f"<{len(floats)}e", *floats)
    bits = array.array("I", floats.tobytes())
    return array.array("H", ((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits)).tobytes()


def unpack(tensor):
    """The values of a tensor of floats or integers."""
    if tensor.dtype == "BF16":
        return array.array("f", array.array("I", (b << 16 for b in array.array("H", tensor.data))).tobytes())
    if tensor.dtype == "F16":
        return array.array("f", struct.unpack(f"<{count(tensor.shape)}e", tensor.data))
    return array.array({"F32": "f", "I8": "b", "U8": "B", "I32": "i", "I64": "q"}[tensor.dtype], tensor.data)


def normal(*shape, dtype="BF16", seed=0, sigma=0.05):
    """A tensor of normally distributed values; the same for the same seed."""
    gauss = random.Random(seed).gauss
    return Tensor(dtype, shape, pack((gauss(0, sigma) for _ in range(count(shape))), dtype))


def transposed(tensor):
    """With the last two dimensions exchanged."""
    *outer, n, k = tensor.shape
    width = BITS[tensor.dtype] // 8
    rows = [tensor.data[i:i + width] for i in range(0, len(tensor.data), width)]
    data = b"".join(b"".join(rows[e * n * k + c:(e + 1) * n * k:k]) for e in range(count(outer)) for c in range(k))
    return Tensor(tensor.dtype, (*outer, k, n), data)


# ---- models

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 1,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 256, "vocab_size": 64,
         "tie_word_embeddings": True, "torch_dtype": "bfloat16"}


def llama_tensors(config=LLAMA, dtype="BF16"):
    """The tensors that a Llama config promises, tied head."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {layer + "input_layernorm.weight": (hidden,), layer + "self_attn.q_proj.weight": (heads, hidden),
                   layer + "self_attn.k_proj.weight": (kv, hidden), layer + "self_attn.v_proj.weight": (kv, hidden),
                   layer + "self_attn.o_proj.weight": (hidden, heads), layer + "post_attention_layernorm.weight": (hidden,),
                   layer + "mlp.gate_proj.weight": (inner, hidden), layer + "mlp.up_proj.weight": (inner, hidden),
                   layer + "mlp.down_proj.weight": (hidden, inner)}
    shapes["model.norm.weight"] = (hidden,)
    # Of different sizes, so that scales that are shared differ from scales that are not.
    return {name: normal(*shape, dtype=dtype, seed=i, sigma=0.02 * (1 + i)) for i, (name, shape) in enumerate(shapes.items())}


def write_model(folder, tensors, config=LLAMA):
    folder = Path(folder)
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    write_file(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder


def write_sharded(folder, tensors, config=LLAMA, files=3):
    """The model in several files with an index; the last file also holds a tensor that the index does not list."""
    write_model(folder, {}, config)
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    weight_map = {}
    for i in range(files):
        file = f"model-{i + 1:05}-of-{files:05}.safetensors"
        part = {name: tensors[name] for name in names[i::files]}
        weight_map |= dict.fromkeys(part, file)
        write_file(folder / file, part)
    index = {"metadata": {"total_size": sum(len(t.data) for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


class Case(unittest.TestCase):
    """A test with a folder of its own and lowp's verdict checked."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="lowp-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def lowp(self, *args, **options):
        """Standard output of a run that must succeed."""
        result = run(*args, **options)
        self.assertEqual(result.code, 0, result.err)
        return result.out

    def json(self, *args, **options):
        """The one JSON value that a run with --json prints."""
        return json.loads(self.lowp(*args, "--json", **options))

    def refused(self, *args, code=1, words=(), **options):
        """A run that must fail with this exit code and these words in its message, and nothing on standard output."""
        result = run(*args, **options)
        self.assertEqual((result.code, result.out), (code, ""), result.err)
        self.assertTrue(result.err.startswith("lowp: error: "), result.err)
        for word in words:
            self.assertIn(word, result.err)
        return result.err

    def names(self, folder=None):
        """What lies in a folder (by default the test's own)."""
        return sorted(p.name for p in Path(folder or self.folder).iterdir())


def main():
    global lowp_path
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit(f"usage: {sys.argv[0]} LOWP [unittest arguments]")
    lowp_path = str(Path(sys.argv.pop(1)).resolve())
    unittest.main(module="__main__")
