"""lowp eval: what it measures, and that the three methods, divergence and tasks say what they should."""
import json
import math

import lowp_cli
from lowp_cli import MODELS, Case
from nll_test import GOLDEN, bound

BOOK = MODELS / "bookworm-8m"
TEXT = MODELS.parent / "tests" / "golden" / "demo.txt"
KEYS = ["model", "recipe", "method", "context", "compute", "attention", "device", "tokens", "scored", "nll", "nll_stderr", "perplexity", "word_perplexity",
        "byte_perplexity", "bits_per_byte", "kl", "seconds"]
KL_KEYS = ["mean", "median", "p99", "max", "stderr", "top1", "top1_stderr", "dp_mean", "dp_rms"]


class Eval(Case):
    def setUp(self):
        super().setUp()
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT.read_text()[:5000])

    def eval(self, model, *options, **more):
        return self.json("eval", model, "--text", self.text, *options, **more)

    def quantized(self, recipe, *options):
        out = self.folder / recipe
        self.lowp("quantize", BOOK, "--recipe", recipe, "-o", out, *options)
        return out

    def test_keys_and_methods(self):
        disjoint = self.eval(BOOK)
        self.assertEqual(list(disjoint), KEYS)
        self.assertEqual((disjoint["method"], disjoint["context"], disjoint["recipe"]), ("disjoint", 512, "bf16"))
        windows = disjoint["tokens"] // 512
        self.assertEqual(disjoint["scored"], windows * 511)
        self.assertAlmostEqual(disjoint["perplexity"], math.exp(disjoint["nll"]))
        half = self.eval(BOOK, "--method", "half", "--context", 128)
        self.assertEqual(half["scored"], half["tokens"] // 128 * 63)
        rolling = self.eval(BOOK, "--method", "rolling")
        self.assertEqual((rolling["scored"], rolling["context"]), (rolling["tokens"], 1024))
        words, size = len(self.text.read_text().split()), len(self.text.read_bytes())
        total = rolling["nll"] * rolling["scored"]
        self.assertAlmostEqual(rolling["byte_perplexity"], math.exp(total / size))
        self.assertAlmostEqual(rolling["bits_per_byte"], total / size / math.log(2))
        self.assertLess(abs(math.log(rolling["word_perplexity"]) / (total / words) - 1), 0.01)

    def test_quantized_while_loading(self):
        for recipe in ("int4_g128_asym-bf16", "nvfp4-nvfp4", "fp8-fp8", "mxfp4-mxfp4"):
            written = self.eval(self.quantized(recipe, "--scales", "per-matrix"), "--against", BOOK)
            loaded = self.eval(BOOK, "--recipe", recipe, "--against", BOOK)
            self.assertEqual((loaded["recipe"], loaded["nll"], loaded["kl"]), (recipe, written["nll"], written["kl"]))
        loaded = self.eval(MODELS / "bookworm-moe-9m", "--recipe", "int8-int8", "--head", "same")
        out = self.folder / "moe"
        self.lowp("quantize", MODELS / "bookworm-moe-9m", "--recipe", "int8-int8", "-o", out)
        self.assertEqual(loaded["nll"], self.eval(out, "--head", "same")["nll"])
        for model, recipe, words in ((out, "int4", ["moe", "quantized already", "int8-int8", "int4_g128-bf16"]),
                                     (BOOK, "int8-int8_static", ["int8-int8_static", "calibration"]),
                                     (BOOK, "codebook4_g64-bf16", ["codebook4_g64-bf16", "lowp quantize"]), (BOOK, "int9", ["int9"])):
            self.refused("eval", model, "--recipe", recipe, "--text", self.text, code=2, words=words)

    def test_documents(self):
        page = " = {} = \n \n He said that it was 3 @,@ 000 @.@ 5 miles , and ( at last ) went home . \n = = Part = = \n More of it . \n"
        self.text.write_text("".join(page.format(title) for title in ("One", "Two", "Three")))
        pages = self.eval(BOOK, "--method", "rolling", "--documents", "wikitext")
        self.text.write_text(page.format("One"))
        one = self.eval(BOOK, "--method", "rolling", "--documents", "wikitext")
        self.assertAlmostEqual(pages["tokens"] / one["tokens"], 3, delta=0.2)
        total = pages["nll"] * pages["scored"]  # a page lacks its last line feed, but for the last page
        size = len("".join(page.format(title) for title in ("One", "Two", "Three"))) - 2
        self.assertAlmostEqual(pages["bits_per_byte"], total / size / math.log(2))

    def test_against_itself(self):
        result = self.eval(BOOK, "--against", BOOK, "--layers")
        self.assertEqual((result["kl"]["mean"], result["kl"]["max"], result["kl"]["top1"], result["kl"]["dp_rms"]), (0, 0, 1, 0))
        self.assertEqual(len(result["layers"]), 56)
        self.assertTrue(all(layer["sqnr"] is None for layer in result["layers"]))  # nothing is lost

    def test_against(self):
        result = self.eval(self.quantized("int4"), "--against", BOOK, "--layers")
        kl = result["kl"]
        self.assertEqual(list(kl), KL_KEYS)
        self.assertTrue(0 < kl["median"] < kl["p99"] < kl["max"] and 0.5 < kl["top1"] < 1 and kl["mean"] < 0.3)
        self.assertTrue(all(10 < layer["sqnr"] < 40 for layer in result["layers"]))

    def test_threads_do_not_matter(self):
        model = self.quantized("nvfp4")
        one, two = (self.eval(model, "--against", BOOK, env={"LOWP_THREADS": threads}) for threads in "12")
        self.assertEqual({k: v for k, v in one.items() if k != "seconds"}, {k: v for k, v in two.items() if k != "seconds"})

    def test_kv_cache_and_head_cost_little(self):
        plain = self.eval(BOOK)["nll"]
        for options, most in ((["--kv-cache-dtype", "bf16"], 0), (["--head", "same"], 0), (["--kv-cache-dtype", "int8"], 0.005), (["--kv-cache-dtype", "fp8"], 0.01),
                              (["--head", "int8"], 0.005), (["--kv-cache-dtype", "int8", "--compute", "f32"], 0.01)):
            self.assertLessEqual(abs(self.eval(BOOK, *options)["nll"] - plain), most, options)
        for head, word in (("int99", "int99"), ("codebook4_g64-bf16", "lowp quantize"), ("int8-int8_static", "calibration")):
            self.refused("eval", BOOK, "--text", self.text, "--head", head, code=2, words=[word])
        for mode in ("fp8", "fp8_hadamard_v", "fp8_hadamard_qkv"):
            found = self.eval(BOOK, "--attention", mode)
            self.assertEqual(found["attention"], mode)
            self.assertLessEqual(abs(found["nll"] - plain), 0.01, mode)
        self.refused("eval", BOOK, "--text", self.text, "--attention", "fp8", "--kv-cache-dtype", "int8", code=2, words=["--attention fp8", "int8"])
        self.refused("eval", BOOK, "--text", self.text, "--attention", "int8", code=2, words=["--attention"])
        self.refused("eval", BOOK, "--text", self.text, "--kv-cache-dtype", "fp4", code=2, words=["--kv-cache-dtype"])

    def test_golden(self):
        """A few rows of what nll_test.py checks in full."""
        golden = json.loads((GOLDEN / "nll-bookworm-8m.json").read_text())
        expected = {row["recipe"]: row["nll"] for row in golden["results"] if row["compute"] == "f32"}
        for recipe in ("bf16", "int8-int8", "int4_g128-bf16", "mxfp8-mxfp8", "mxfp4-mxfp4", "nvfp4-nvfp4"):
            with self.subTest(recipe):
                found = self.json("eval", self.quantized(recipe, "--scales", "per-matrix"), "--text", GOLDEN / golden["text"], "--compute", "f32")
                self.assertEqual((found["tokens"], found["scored"]), (golden["tokens"], golden["scored"]))
                self.assertLessEqual(abs(found["nll"] - expected[recipe]), bound(recipe))

    def test_calibrated(self):
        for recipe in ("int8-int8_static", "fp8_tensor-fp8_static", "nvfp4-nvfp4_static"):
            with self.subTest(recipe):
                model = self.quantized(recipe, "--calibrate", self.text, "--calibrate-tokens", "1024")
                self.assertLess(self.eval(model)["nll"], self.eval(BOOK)["nll"] + 0.15)

    def test_task(self):
        result = self.json("eval", BOOK, "--task", MODELS / "choices.jsonl")
        self.assertEqual(result["questions"], len((MODELS / "choices.jsonl").read_text().splitlines()))
        self.assertEqual(set(result) - set(KEYS), {"task", "questions", "acc", "acc_stderr", "acc_norm", "acc_norm_stderr"})
        self.assertTrue(result["acc"] > 0.6 and 0 < result["acc_stderr"] < 0.1)

    def test_task_normalised_by_characters(self):
        """As lm-eval does; by bytes the dashes would win both."""
        task = self.folder / "task.jsonl"
        task.write_text(json.dumps({"context": "The old man", "choices": ["caf\u00e9", "\u2014\u2014"], "answer": 0}))
        result = self.json("eval", BOOK, "--task", task, "--compute", "f32")
        self.assertEqual((result["acc"], result["acc_norm"]), (0, 1))


if __name__ == "__main__":
    lowp_cli.main()
