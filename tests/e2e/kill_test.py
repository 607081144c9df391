"""A run that is ended in the middle leaves no output, and the next one clears up after it."""
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

    def test_ended_in_the_middle(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name):
                process = subprocess.Popen([lowp_cli.lowp_path, "quantize", self.model, "--recipe", "mxfp4-bf16", "-o", self.out],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                deadline = time.monotonic() + 60
                while not self.partials():
                    self.assertIsNone(process.poll(), "ended before it was killed")
                    self.assertLess(time.monotonic(), deadline)
                    time.sleep(0.005)
                time.sleep(0.2)
                process.send_signal(number)
                process.wait()
                self.assertNotEqual(process.returncode, 0)
                self.assertFalse(self.out.exists())
        self.lowp("quantize", self.model, "--recipe", "mxfp4-bf16", "-o", self.out)
        self.assertEqual(self.names(), ["model", "out"])


if __name__ == "__main__":
    lowp_cli.main()
