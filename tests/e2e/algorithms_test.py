"""lowp quantize --algorithm, lowp tune, and the pages about layers."""
import json
import shutil

import lowp_cli
from lowp_cli import MODELS, Case

DENSE, MOE = MODELS / "bookworm-8m", MODELS / "bookworm-moe-9m"
BOOK = (MODELS.parent / "tests/golden/demo.txt").read_text()


class Algorithms(Case):
    def setUp(self):
        super().setUp()
        self.calibration, self.text = self.folder / "calibration.txt", self.folder / "text.txt"
        self.calibration.write_text(BOOK[:8000])
        self.text.write_text(BOOK[8000:16000])

    def quantize(self, model, recipe, *options):
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        return self.json("quantize", model, "--recipe", recipe, "-o", out, *options), out

    def divergence(self, model, recipe, *options):
        _, out = self.quantize(model, recipe, *options)
        return self.json("eval", out, "--text", self.text, "--against", model)["kl"]["mean"]

    def test_each_lowers_the_divergence_of_int4(self):
        for model in (DENSE, MOE):
            plain = self.divergence(model, "int4_g128-bf16")
            for words in ("mse", "gptq", "awq", "awq,gptq"):
                with self.subTest(words, model=model.name):
                    found = self.divergence(model, "int4_g128-bf16", "--algorithm", words, "--calibrate", self.calibration)
                    self.assertLess(found, plain)

    def test_preparations_leave_the_model_as_it_is(self):
        """But for rounding the new weights to bf16."""
        for model in (DENSE, MOE):
            for words in ("hadamard", "smoothquant"):
                with self.subTest(words, model=model.name):
                    found = self.divergence(model, "bf16", "--algorithm", words, "--calibrate", self.calibration)
                    self.assertLess(found, 2e-3)
                    self.assertGreater(found, 0)

    def test_a_rotated_head_is_untied_and_says_so(self):
        report, out = self.quantize(DENSE, "mxfp4-mxfp4", "--algorithm", "hadamard")
        self.assertTrue(any("lm_head" in warning for warning in report["warnings"]), report["warnings"])
        self.assertFalse(json.loads((out / "config.json").read_text())["tie_word_embeddings"])

    def test_refusals(self):
        out = self.folder / "out"
        for words, recipe, said in [("gptq", "int4", ["--calibrate"]), ("awq", "int4", ["--calibrate"]), ("gtpq", "int4", ["gptq"]),
                                    ("mse,gptq", "int4", ["gptq"]), ("mse", "fp8_tensor-fp8_static", ["fp8_tensor"])]:
            self.refused("quantize", DENSE, "--recipe", recipe, "--algorithm", words, "-o", out, code=2, words=said)
            self.assertFalse(out.exists())
        self.assertEqual([path.name for path in self.folder.iterdir() if "partial" in path.name], [])


class Tune(Case):
    def test_meets_the_budget_and_can_be_quantized(self):
        text, rules, page, out = (self.folder / name for name in ("text.txt", "rules.json", "page.html", "out"))
        text.write_text(BOOK)
        formats = ["int2_g64-bf16", "int4_g128-bf16", "int8_g32-bf16"]
        for model in (DENSE, MOE):
            report = self.json("tune", model, "--budget-bits", 4.2, "--formats", ",".join(formats), "--calibrate", text,
                               "--calibrate-tokens", 512, "-o", rules, "--html", page)
            self.assertLessEqual(report["chosen"]["bits_per_weight"], 4.2)
            uniform = {point["name"]: point["kl"] for point in report["uniform"]}
            self.assertLessEqual(report["chosen"]["kl"], uniform["int4_g128-bf16"])
            self.assertIn("<svg", page.read_text())
            made = self.json("quantize", model, "--recipe", rules, "-o", out, "--overwrite")
            self.assertAlmostEqual(made["bits_per_weight"], report["chosen"]["bits_per_weight"], delta=0.02)
            self.assertEqual(made["unmatched_rules"], [])
            rules.unlink()

    def test_largest_divergence(self):
        text, rules = self.folder / "text.txt", self.folder / "rules.json"
        text.write_text(BOOK)
        report = self.json("tune", DENSE, "--max-kl", 0.05, "--formats", "int2_g64-bf16,int4_g128-bf16,int8_g32-bf16", "--calibrate",
                           text, "--calibrate-tokens", 512, "-o", rules)
        self.assertLessEqual(report["chosen"]["kl"], 0.05)
        self.refused("tune", DENSE, "--max-kl", 1e-9, "--formats", "int2_g64-bf16", "--calibrate", text, "--calibrate-tokens", 512,
                     "-o", self.folder / "other.json", code=2, words=["1e-09"])
        self.assertFalse((self.folder / "other.json").exists())


class Pages(Case):
    def test_of_layers(self):
        text, page, out = self.folder / "text.txt", self.folder / "page.html", self.folder / "out"
        text.write_text(BOOK[:4000])
        self.lowp("quantize", MOE, "--recipe", "int4_g64-bf16", "-o", out)
        self.lowp("inspect", out, "--html", page)
        inspected = page.read_text()
        for word in ("<svg", "Bits a weight", "mlp.experts.*.up_proj", "int4_g64-bf16"):
            self.assertIn(word, inspected)
        self.lowp("eval", out, "--text", text, "--against", MOE, "--html", page)
        evaluated = page.read_text()
        for word in ("<svg", "Output SQNR", "Inputs of Linears", "KL"):
            self.assertIn(word, evaluated)
        self.assertNotIn("http", inspected.replace("http://www.w3.org", "") + evaluated.replace("http://www.w3.org", ""))


if __name__ == "__main__":
    lowp_cli.main()
