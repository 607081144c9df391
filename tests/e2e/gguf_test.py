"""GGUF: a model written as .gguf has the numbers of the same model in a folder, tokens included."""
import lowp_cli
from lowp_cli import MODELS, Case

BOOK = MODELS / "bookworm-8m"
TEXT = MODELS.parent / "tests" / "golden" / "demo.txt"
RECIPES = {"bf16": "BF16", "q8_0-bf16": "Q8_0", "q4_k-bf16": "Q4_K", "q6_k-bf16": "Q6_K", "int4_g32-bf16": "Q4_0",
           "mxfp4-bf16": "MXFP4", "nvfp4-bf16": "NVFP4"}


class Gguf(Case):
    def setUp(self):
        super().setUp()
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT.read_text()[:3000])

    def written(self, recipe, model=BOOK):
        path = self.folder / f"{recipe}.gguf"
        report = self.json("quantize", model, "--recipe", recipe, "--dialect", "gguf", "-o", path)
        self.assertEqual(report["file_bytes"], path.stat().st_size)
        self.assertEqual([p.name for p in self.folder.glob("*quantized*")], [])
        return path

    def test_same_numbers(self):
        for recipe, kind in RECIPES.items():
            with self.subTest(recipe):
                folder, path = self.folder / recipe, self.written(recipe)
                self.lowp("quantize", BOOK, "--recipe", recipe, "--dialect", "lowp", "-o", folder)
                for compute in ("f32", "bf16"):
                    there, here = (self.json("eval", m, "--text", self.text, "--compute", compute) for m in (folder, path))
                    self.assertEqual((there["tokens"], there["nll"]), (here["tokens"], here["nll"]))
                kinds = {t["name"]: t["dtype"] for t in self.json("inspect", path)["tensors"]}
                self.assertEqual(kinds["model.layers.3.self_attn.q_proj.weight"], kind)
                self.assertEqual(kinds["model.norm.weight"], "F32")
                self.assertEqual(len(kinds), len(self.json("inspect", BOOK)["tensors"]) + (kind == "NVFP4") * 56)

    def test_experts(self):
        model = MODELS / "bookworm-moe-9m"
        path, folder = self.written("q8_0-bf16", model), self.folder / "folder"
        self.lowp("quantize", model, "--recipe", "q8_0-bf16", "-o", folder)
        there, here = (self.json("eval", m, "--text", self.text) for m in (folder, path))
        self.assertEqual(there["nll"], here["nll"])

    def test_generate(self):
        path = self.written("bf16")
        options = ("-p", "It was a dark", "--temperature", "0", "-n", "20")
        self.assertEqual(self.json("generate", path, *options)["text"], self.json("generate", BOOK, *options)["text"])

    def test_quantized_again(self):
        path = self.written("q8_0-bf16")
        self.refused("quantize", path, "--recipe", "int4", "-o", self.folder / "no", words=["--requantize"])

    def test_refused(self):
        out = self.folder / "x.gguf"
        self.refused("quantize", BOOK, "--recipe", "int8-int8", "--dialect", "gguf", "-o", out, words=["activations"])
        self.refused("quantize", BOOK, "--recipe", "int4_g128-bf16", "--dialect", "gguf", "-o", out, words=["int4_g128"])
        self.refused("quantize", BOOK, "--recipe", "q8_0-bf16", "--dialect", "gguf", "-o", self.folder / "x", code=2, words=[".gguf"])
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["text.txt"])
        out.write_bytes(b"GGUF\3\0\0\0")
        for command in (["inspect"], ["generate", "-p", "a"], ["eval", "--text", self.text]):
            self.refused(command[0], out, *command[1:], words=["x.gguf"])


if __name__ == "__main__":
    lowp_cli.main()
