"""lowp pack: the file beside the model, what uses it, and what happens when it does not fit."""
import shutil

import lowp_cli
from lowp_cli import MODELS, Case


class Pack(Case):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.lowp("quantize", MODELS / "bookworm-8m", "--recipe", "int4_g32-int8", "-o", self.model)
        self.file = self.model / "packed.lowp"

    def text(self, *args):
        return self.json("generate", self.model, "-p", "It was a dark", "-n", 24, "--temperature", 0, "--ignore-eos", *args)["text"]

    def pack(self, *args):
        return self.json("pack", self.model, *args)

    def damage(self):
        """Clears some weights, but nothing of the header."""
        size = self.file.stat().st_size
        with open(self.file, "r+b") as file:
            file.seek(size // 4)
            file.write(bytes(size // 4))

    def test_the_same_text_and_the_file_is_what_is_read(self):
        before = self.text()
        row = self.pack()
        self.assertEqual(list(row), ["model", "file", "bytes", "seconds"])
        self.assertEqual((row["file"], row["bytes"]), (str(self.file), self.file.stat().st_size))
        self.assertEqual(self.text(), before)
        self.assertEqual(self.pack()["bytes"], row["bytes"])  # packing again, from the packed
        self.assertEqual(self.text(), before)
        self.damage()
        self.assertNotEqual(self.text(), before)

    def test_other_options_and_other_weights_do_not_use_it(self):
        texts = [self.text("--compute", "f32"), self.text("--head", "int8-int8")]
        self.pack()
        self.damage()
        self.assertEqual([self.text("--compute", "f32"), self.text("--head", "int8-int8")], texts)
        other = self.folder / "other"
        self.lowp("quantize", MODELS / "bookworm-8m", "--recipe", "int4_g32-int8", "--algorithm", "mse", "-o", other)
        expected = self.json("generate", other, "-p", "It was a dark", "-n", 24, "--temperature", 0, "--ignore-eos")["text"]
        shutil.copy(other / "model.safetensors", self.model / "model.safetensors")
        self.assertEqual(self.text(), expected)

    def test_a_head_of_its_own(self):
        before = self.text("--head", "int8-int8")
        self.pack("--head", "int8-int8")
        self.assertEqual(self.text("--head", "int8-int8"), before)
        self.damage()
        self.assertNotEqual(self.text("--head", "int8-int8"), before)

    def test_removal(self):
        self.pack()
        self.lowp("pack", self.model, "--remove")
        self.assertFalse(self.file.exists())
        self.refused("pack", self.model, "--remove", words=["packed.lowp"])

    def test_a_broken_file_is_named(self):
        self.pack()
        self.file.write_bytes(self.file.read_bytes()[:5000])
        self.refused("generate", self.model, "-p", "x", words=["packed.lowp"])
        self.lowp("pack", self.model, "--remove")
        self.text()

    def test_experts(self):
        moe = self.folder / "moe"
        self.lowp("quantize", MODELS / "bookworm-moe-9m", "--recipe", "mxfp4-mxfp8", "-o", moe)
        run = lambda: self.json("generate", moe, "-p", "It was", "-n", 16, "--temperature", 0, "--ignore-eos")["text"]
        before = run()
        self.json("pack", moe)
        self.assertEqual(run(), before)


if __name__ == "__main__":
    lowp_cli.main()
