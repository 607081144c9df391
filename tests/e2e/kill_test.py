"""A run that is ended in the middle leaves no output, and the next one clears up after it."""
import os
import signal
import subprocess
import time

import lowp_cli
from lowp_cli import LLAMA, Case, Tensor, write_model

CONFIG = LLAMA | {"architectures": ["SomethingElse"]}  # no shapes to keep to


class Kill(Case):
    def setUp(self):
        super().setUp()
        block = bytes(range(1, 120)) * 1000
        rows, k = 4096, 4096
        data = (block * (2 * rows * k // len(block) + 1))[:2 * rows * k]
        # The high byte of a bf16 below 0x7F keeps every value finite.
        tensors = {f"layers.{i}.proj.weight": Tensor("BF16", (rows, k), data) for i in range(4)}
        self.model = write_model(self.folder / "model", tensors, CONFIG)
        self.out = self.folder / "out"

    def partials(self):
        return [name for name in self.names() if name.startswith("out.partial-")]

    def end(self, number, delay, *options):
        """Starts a run, waits for its partial folder and then for `delay` seconds, and ends it by a signal."""
        slow = "codebook4_g64-bf16"  # fits tables for seconds; the plain formats are done in the time of a delay
        process = subprocess.Popen([lowp_cli.lowp_path, "quantize", self.model, "--recipe", slow, "-o", self.out, *options],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own = f"out.partial-{process.pid}"
        deadline = time.monotonic() + 60
        while own not in self.partials():
            self.assertIsNone(process.poll(), "ended before it was killed")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(number)
        self.assertEqual(process.wait(), -number, "ended before it was killed")
        return own

    def test_ended_in_the_middle(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            for delay in (0, 0.1, 0.3):
                with self.subTest(signal=number.name, delay=delay):
                    own = self.end(number, delay)
                    self.assertFalse(self.out.exists())
                    # What the run before had left is gone; only a signal that cannot be caught may leave this one's.
                    self.assertIn(self.partials(), [[], [own]])
                    if number == signal.SIGKILL:
                        self.assertEqual(self.partials(), [own])
        self.end(signal.SIGKILL, 0.1)
        self.lowp("quantize", self.model, "--recipe", "mxfp4-bf16", "-o", self.out)
        self.assertEqual(self.names(), ["model", "out"])
        self.assertEqual(self.names(self.out), ["config.json", "model.safetensors", "tokenizer.json"])

    def test_overwriting(self):
        """A model that is being replaced stays whole until its successor is."""
        self.lowp("quantize", self.model, "--recipe", "mxfp8-bf16", "-o", self.out)
        before = {name: (self.out / name).read_bytes() for name in self.names(self.out)}
        self.end(signal.SIGKILL, 0.1, "--overwrite")
        self.assertEqual({name: (self.out / name).read_bytes() for name in self.names(self.out)}, before)
        self.lowp("quantize", self.model, "--recipe", "mxfp4-bf16", "-o", self.out, "--overwrite")
        self.assertEqual(self.names(), ["model", "out"])

    def test_a_run_beside_it(self):
        """The partial folder of a run that goes on is left alone."""
        other = self.folder / f"out.partial-{os.getpid()}"
        other.mkdir()
        self.lowp("quantize", self.model, "--recipe", "mxfp4-bf16", "-o", self.out)
        self.assertEqual(self.names(), ["model", "out", other.name])


if __name__ == "__main__":
    lowp_cli.main()
