"""A 2 GB checkpoint is quantized in less than 600 MB of resident memory."""
import json
import os
import struct
import subprocess

import lowp_cli
from lowp_cli import Case

LIMIT = 600_000_000
# q, k and v of a layer share the tensor-level scale of nvfp4, so that their statistics are taken in a pass of its own.
SHAPES = {"model.embed_tokens.weight": (128256, 2048)} | {f"layers.{i // 3}.{'qkv'[i % 3]}_proj.weight": (8192, 8192) for i in range(11)}


def write_big(path, names, piece):
    """These tensors, filled with a piece of data again and again."""
    entries, at = {}, 0
    for name in names:
        size = 2 * lowp_cli.count(SHAPES[name])
        entries[name] = {"dtype": "BF16", "shape": SHAPES[name], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for left in range(at, 0, -len(piece)):
            out.write(piece[:left])


class Memory(Case):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text(json.dumps({"architectures": ["SomethingElse"]}))
        self.piece = bytearray(os.urandom(1 << 24))
        self.piece[1::2] = bytes(0x3C + (b & 0x83) for b in self.piece[1::2])  # exponents near 2^-8, both signs

    def check(self, recipe):
        process = subprocess.Popen([lowp_cli.lowp_path, "quantize", self.model, "--recipe", recipe, "-o", self.folder / "out"],
                                   stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
        self.assertEqual(process.returncode, 0)
        print(f"{recipe}: {usage.ru_maxrss * 1024 / 1e6:.0f} MB at most, {usage.ru_utime + usage.ru_stime:.0f} s of CPU")
        self.assertLess(usage.ru_maxrss * 1024, LIMIT)

    def test_one_file(self):
        write_big(self.model / "model.safetensors", SHAPES, self.piece)
        self.check("int4")

    def test_sharded(self):
        files = [f"model-{i + 1:05}-of-00003.safetensors" for i in range(3)]
        names = list(SHAPES)
        for i, file in enumerate(files):
            write_big(self.model / file, names[i::3], self.piece)
        weight_map = {name: files[i % 3] for i, name in enumerate(names)}
        (self.model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        self.check("nvfp4-bf16")


if __name__ == "__main__":
    lowp_cli.main()
