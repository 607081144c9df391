"""A 2 GB checkpoint is quantized in less than 600 MB of resident memory."""
import json
import os
import struct
import subprocess

import lowp_cli
from lowp_cli import Case

LIMIT = 600_000_000
SHAPES = {"model.embed_tokens.weight": (128256, 2048)} | {f"layers.{i}.proj.weight": (8192, 8192) for i in range(11)}


def write_big(path):
    """Random-looking finite bf16 values, written in pieces."""
    piece = bytearray(os.urandom(1 << 24))
    piece[1::2] = bytes(0x3C + (b & 0x83) for b in piece[1::2])  # exponents near 2^-8, both signs
    entries, at = {}, 0
    for name, (rows, columns) in SHAPES.items():
        entries[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + 2 * rows * columns]}
        at += 2 * rows * columns
    header = json.dumps(entries).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for left in range(at, 0, -len(piece)):
            out.write(piece[:left])


class Memory(Case):
    def test_peak(self):
        model = self.folder / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"architectures": ["SomethingElse"]}))
        write_big(model / "model.safetensors")
        for recipe in ("int4", "nvfp4-bf16"):
            with self.subTest(recipe):
                out = self.folder / recipe
                process = subprocess.Popen([lowp_cli.lowp_path, "quantize", model, "--recipe", recipe, "-o", out], stdout=subprocess.DEVNULL)
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
                self.assertEqual(process.returncode, 0)
                print(f"{recipe}: {usage.ru_maxrss * 1024 / 1e6:.0f} MB at most, {usage.ru_utime + usage.ru_stime:.0f} s of CPU")
                self.assertLess(usage.ru_maxrss * 1024, LIMIT)


if __name__ == "__main__":
    lowp_cli.main()
