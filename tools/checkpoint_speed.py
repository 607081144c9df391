#!/usr/bin/env python3
"""Loading, quantizing and converting a large checkpoint beside plain reads and writes of the same bytes.

    python3 tools/checkpoint_speed.py LOWP FOLDER [--layers 16] [--rounds 3] [--only WORD]...

FOLDER gets a checkpoint of random bf16 values in the shapes of Llama-3.2-1B with as many layers as are asked for (0.12 GB
each, 0.5 GB beside them), which stays there for the next run, and outputs, which do not. Each row is a command and, before each run
of it, its plain counterpart: all its input files read in pieces of 8 MB, then as many bytes as it wrote written and flushed. The page cache
lets go of the files before either. Printed are medians; `share` is the median of (plain / command) of neighbours, `cores` the
processor time over the command's seconds, `memory` the largest resident memory of the command.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time

PIECE = 8 << 20
HIDDEN, INNER, HEADS, KEYS, VOCABULARY = 2048, 8192, 32, 8, 128256
LINEARS = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // HEADS * KEYS, HIDDEN),
           "self_attn.v_proj": (HIDDEN // HEADS * KEYS, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
           "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}


def config(layers):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": HIDDEN // HEADS,
            "num_hidden_layers": layers, "vocab_size": VOCABULARY, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}


def make(folder, layers):
    """Values of both signs from 2^-8 to 2^-4, the bytes of 64 MB repeated from other places."""
    shapes = {"model.embed_tokens": (VOCABULARY, HIDDEN), "model.norm": (HIDDEN,)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}": (HIDDEN,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in LINEARS.items()}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name + ".weight"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)
    source = random.Random(1)
    block = bytearray(64 << 20)
    block[0::2] = source.randbytes(len(block) // 2)
    block[1::2] = source.randbytes(len(block) // 2).translate(bytes([0x3C, 0xBC, 0x3B, 0xBB][i & 3] for i in range(256)))
    folder.mkdir(parents=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at:
            begin = 2 * source.randrange(len(block) // 4)
            piece = memoryview(block)[begin:begin + min(at, len(block) // 2)]
            file.write(piece)
            at -= len(piece)
        os.fsync(file.fileno())
    (folder / "config.json").write_text(json.dumps(config(layers)))


def files(folder):
    return [folder] if folder.is_file() else [f for f in folder.iterdir() if f.is_file()]


def forget(*folders):
    for folder in folders:
        for file in files(folder):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def plain(sources, written, scratch):
    """Seconds of reading the files and of writing so many bytes."""
    start = time.monotonic()
    buffer = memoryview(bytearray(PIECE))
    for source in sources:
        for path in files(source):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
    if written:
        with open(scratch, "wb", buffering=0) as file:
            for at in range(0, written, PIECE):
                file.write(buffer[:min(PIECE, written - at)])
            os.fsync(file.fileno())
    seconds = time.monotonic() - start
    scratch.unlink(missing_ok=True)
    return seconds


def run(command):
    """Standard output, seconds, processor seconds and the largest resident memory of a command."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}")
    return output, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def size(folder):
    return sum(f.stat().st_size for f in files(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="rows that have this word in their name")
    args = parser.parse_args()
    model, out, scratch = args.folder / f"bf16-{args.layers}", args.folder / "out", args.folder / "scratch"
    if not model.exists():
        make(model, args.layers)
    wanted = lambda name: not args.only or any(word in name for word in args.only)  # noqa: E731

    def measure(name, source, command, load=False):
        rows = []
        written = 0
        for _ in range(args.rounds + (0 if load else 1)):  # what a command writes is known after it ran
            if rows or load:
                forget(source)
                baseline = plain([source], written, scratch)
            forget(source)
            shutil.rmtree(out, ignore_errors=True)
            output, seconds, processor, memory = run(command)
            if load:
                seconds = float(re.search(r"ready in ([0-9.]+) s", output)[1])
            elif not rows:
                written, baseline = size(out), None
            rows.append((baseline, seconds, processor, memory))
        rows = rows if load else rows[1:]
        middle = lambda values: statistics.median(values)  # noqa: E731
        share = middle([baseline / seconds for baseline, seconds, _, _ in rows])
        print(f"| {name} | {size(source) / 1e9:.2f} + {written / 1e9:.2f} | {middle([r[0] for r in rows]):.2f} | "
              f"{middle([r[1] for r in rows]):.2f} | {100 * share:.0f} % | {middle([r[2] / r[1] for r in rows]):.2f} | "
              f"{max(r[3] for r in rows) / 1e6:.0f} |", flush=True)

    print("| command | GB read + written | plain, s | seconds | share | cores | memory, MB |\n|---|--:|--:|--:|--:|--:|--:|")
    if wanted("load bf16"):
        measure("load bf16", model, [args.lowp, "bench", "model", model, "--prefill", 1, "--decode", 0, "--batches", 0, "--runs", 1], True)
    for recipe in ("int4_g128-bf16", "int8-int8", "fp8-fp8", "mxfp8-mxfp8", "mxfp4-bf16", "nvfp4-bf16", "q4_k-bf16"):
        if wanted(f"quantize {recipe}"):
            measure(f"quantize {recipe}", model, [args.lowp, "quantize", model, "--recipe", recipe, "-o", out, "--json"])
    for recipe, ring in (("int4_g128-bf16", ("gptq", "awq", "torchao")), ("fp8-fp8", ("torchao", "modelopt")),
                         ("mxfp4-mxfp4", ("modelopt", "lowp"))):
        dialects = [d for d in ring if wanted(f"convert {recipe} to {d}")]
        if not dialects:
            continue
        quantized = args.folder / f"{recipe}-{args.layers}"
        if not quantized.exists():
            run([args.lowp, "quantize", model, "--recipe", recipe, "-o", quantized, "--json"])
        for dialect in dialects:
            measure(f"convert {recipe} to {dialect}", quantized, [args.lowp, "convert", quantized, "--dialect", dialect, "-o", out, "--json"])
        if wanted(f"load {recipe}"):
            measure(f"load {recipe}", quantized,
                    [args.lowp, "bench", "model", quantized, "--prefill", 1, "--decode", 0, "--batches", 0, "--runs", 1], True)


if __name__ == "__main__":
    main()
