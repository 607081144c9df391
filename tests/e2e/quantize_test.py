"""lowp quantize: what it writes, what it leaves alone, what it says."""
import json
import os
import shutil
import unittest
from pathlib import Path

import lowp_cli
from lowp_cli import LLAMA, MODELS, Case, Tensor, llama_tensors, normal, pack, read_file, run, unpack, write_file, write_model

LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
           "mlp.down_proj"]
LAYER = "model.layers.0."


def stored_bits(tensors, names):
    """Bits of codes, scales and zero points of modules, as a reader of the file counts them."""
    def belongs(name):
        return any(name.startswith(module + ".") for module in names)
    return 8 * sum(len(t.data) for name, t in tensors.items() if belongs(name) and t.dtype != "I64")  # I64 holds shapes


class Quantize(Case):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"

    def model(self, tensors=None, config=LLAMA, name="model"):
        return write_model(self.folder / name, llama_tensors() if tensors is None else tensors, config)

    def quantize(self, model, recipe, *options):
        """The report and the tensors of OUT; a list or object as recipe goes into a file."""
        if not isinstance(recipe, str):
            (self.folder / "rules.json").write_text(json.dumps(recipe))
            recipe = self.folder / "rules.json"
        report = self.json("quantize", model, "--recipe", recipe, "-o", self.out, *options)
        return report, read_file(self.out / "model.safetensors")[0]

    def config(self):
        return json.loads((self.out / "config.json").read_text())

    def modules(self, report):
        return {layer["module"]: layer["recipe"] for layer in report["layers"]}

    def decoded(self, module, dtype="F32"):
        """The values of an int8-bf16 layer in compressed-tensors, by its scheme."""
        tensors = read_file(self.out / "model.safetensors")[0]
        words, scales = unpack(tensors[module + ".weight_packed"]), unpack(tensors[module + ".weight_scale"])
        rows, k = unpack(tensors[module + ".weight_shape"])
        codes = [(words[r * k // 4 + c // 4] >> 8 * (c % 4) & 0xFF) - 128 for r in range(rows) for c in range(k)]
        return [code * scales[i // k] for i, code in enumerate(codes)]


class Shipped(Quantize):
    """The models that come with lowp."""

    def check(self, name, recipe, head_kept=True, router_kept=False):
        model = MODELS / name
        before = read_file(model / "model.safetensors")[0]
        report, after = self.quantize(model, recipe)
        quantized = list(self.modules(report))
        self.assertEqual(self.names(self.out), self.names(model))  # tokenizer, config, generation config, one file
        for file in self.names(model):
            if file not in ("config.json", "model.safetensors"):
                self.assertEqual((self.out / file).read_bytes(), (model / file).read_bytes(), file)
        was, now = json.loads((model / "config.json").read_text()), self.config()
        self.assertIn("quant_method", now.pop("quantization_config"))
        self.assertEqual(now, was)
        linear = [n.removesuffix(".weight") for n, t in before.items() if n.endswith("_proj.weight") and len(t.shape) == 2]
        self.assertEqual(sorted(quantized), sorted(linear))
        self.assertEqual("lm_head" in report["kept"], head_kept)
        self.assertEqual(any(k.endswith("mlp.gate") for k in report["kept"]), router_kept)
        for tensor, value in before.items():
            if tensor.removesuffix(".weight") not in linear:
                self.assertEqual(after[tensor], value, tensor)
        weights = sum(lowp_cli.count(before[m + ".weight"].shape) for m in quantized)
        self.assertEqual(report["quantized_weights"], weights)
        self.assertAlmostEqual(report["bits_per_weight"], stored_bits(after, quantized) / weights, places=9)
        self.assertEqual(report["file_bytes"], (self.out / "model.safetensors").stat().st_size)
        for layer in report["layers"]:
            self.assertEqual(8 * layer["bytes"], stored_bits(after, [layer["module"]]), layer["module"])
        return report

    def test_dense(self):
        for recipe, bits, least in [("int4", 4.125, 17), ("nvfp4-bf16", 4.5, 20), ("mxfp8", 8.25, 29), ("fp8_tensor-fp8_tensor", 8, 29)]:
            with self.subTest(recipe):
                report = self.check("bookworm-8m", recipe)
                self.assertAlmostEqual(report["bits_per_weight"], bits, delta=0.01)
                self.assertGreater(report["sqnr_min"], least)
                shutil.rmtree(self.out)

    def test_mixture_of_experts(self):
        for recipe in ("int8", "int4_g64_float-bf16", "codebook4_g64-bf16"):
            with self.subTest(recipe):
                report = self.check("bookworm-moe-9m", recipe, router_kept=True)
                self.assertEqual(len(report["layers"]), 4 * (4 + 3 * 8))
                shutil.rmtree(self.out)


class Recipes(Quantize):
    """All demo recipes on a tiny model, and the output beside the numbers."""

    def test_demo_recipes(self):
        model = self.model()
        before = read_file(model / "model.safetensors")[0]
        recipes = self.json("recipes", "--demo")
        self.assertGreater(len(recipes), 30)
        for recipe in recipes:
            with self.subTest(recipe):
                report, after = self.quantize(model, recipe, "--overwrite")
                self.assertEqual(self.names(self.out), ["config.json", "model.safetensors", "tokenizer.json"])
                kept = [n for n in before if "_proj" not in n]
                self.assertEqual({n: after[n] for n in kept}, {n: before[n] for n in kept})
                if recipe == "bf16":
                    self.assertEqual((after, report["layers"]), (before, []))
                    self.assertNotIn("quantization_config", self.config())
                    continue
                self.assertEqual(self.modules(report), {LAYER + linear: recipe for linear in LINEARS})
                self.assertEqual(self.config()["quantization_config"]["quant_method"], report["dialect"])
                seen = self.json("inspect", self.out)
                self.assertEqual((seen["dialect"], [r["recipe"] for r in seen["recipes"]]), (report["dialect"], [recipe]))
                self.assertAlmostEqual(seen["recipes"][0]["bits_per_weight"], report["bits_per_weight"], delta=0.01)

    def test_dialects(self):
        for dialect in ("compressed-tensors", "torchao", "lowp"):
            with self.subTest(dialect):
                report, _ = self.quantize(self.model(name=dialect), "int4_g32-bf16", "--dialect", dialect, "--overwrite")
                self.assertEqual(report["dialect"], dialect)
                self.assertEqual(self.config()["quantization_config"]["quant_method"], dialect)
        error = self.refused("quantize", self.folder / "lowp", "--recipe", "codebook4_g64-bf16", "--dialect", "torchao", "-o", self.folder / "no",
                             code=2, words=["torchao", "codebook4_g64-bf16", "q_proj"])
        self.assertNotIn("promise", error)

    def test_values(self):
        """An int8 layer read by its published scheme is the weight to within half a step."""
        tensors = llama_tensors()
        self.quantize(self.model(tensors), "int8-bf16")
        weight = tensors[LAYER + "self_attn.q_proj.weight"]
        found, expected = self.decoded(LAYER + "self_attn.q_proj"), unpack(weight)
        scales = unpack(read_file(self.out / "model.safetensors")[0][LAYER + "self_attn.q_proj.weight_scale"])
        k = weight.shape[1]
        worst = max(abs(a - b) / scales[i // k] for i, (a, b) in enumerate(zip(found, expected)))
        self.assertLessEqual(worst, 1.0)

    def test_input_types(self):
        for dtype in ("F16", "F32"):
            with self.subTest(dtype):
                tensors = llama_tensors(dtype=dtype)
                for recipe in ("int4_g32-bf16", "nvfp4", "fp8", "int4_g64_float-bf16", "codebook4_g64-bf16"):
                    report, after = self.quantize(self.model(tensors, name=dtype + recipe), recipe, "--overwrite")
                    self.assertEqual(after["model.norm.weight"], tensors["model.norm.weight"])
                    self.assertGreater(report["sqnr_min"], 15)

    def test_same_bytes_with_any_number_of_threads(self):
        model, files = self.model(), []
        for threads in "1", "3":
            self.lowp("quantize", model, "--recipe", "nvfp4", "-o", self.out, "--overwrite", env={"LOWP_THREADS": threads})
            files.append((self.out / "model.safetensors").read_bytes())
        self.assertEqual(files[0], files[1])

    def test_text(self):
        model = self.model()
        out = self.lowp("quantize", model, "--recipe", "int4_g32-bf16", "-o", self.out)
        lines = out.splitlines()
        self.assertEqual(lines[0].split("  ")[0], "layer")
        for word in ("recipe", "bytes", "bits/weight", "SQNR dB"):
            self.assertIn(word, lines[0])
        for linear in LINEARS:
            self.assertTrue(any(line.startswith(LAYER + linear + " ") and "int4_g32-bf16" in line for line in lines), linear)
        self.assertIn("kept in high precision: lm_head", out)
        self.assertIn("7 layers, 4.5", lines[-1])
        kept = self.lowp("quantize", model, "--recipe", "bf16", "-o", self.out, "--overwrite")
        self.assertIn("model.layers.*.mlp.down_proj (1), ", kept)
        self.assertIn("compressed-tensors", lines[-1])

    def test_json_is_all_of_standard_output(self):
        result = run("quantize", self.model(), "--recipe", "int8", "-o", self.out, "--json")
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertEqual(result.out.count("\n"), 1)
        report = json.loads(result.out)
        for key in ("model", "recipe", "output", "dialect", "bits_per_weight", "file_bytes", "sqnr_min", "sqnr_mean", "layers", "kept",
                    "skipped", "unmatched_rules", "warnings", "seconds"):
            self.assertIn(key, report)

    def test_path_that_is_not_utf8(self):
        out = os.fsdecode(os.fsencode(self.folder) + b"/out-\xff")
        self.assertEqual(self.json("quantize", self.model(), "--recipe", "int8", "-o", out)["output"], str(self.folder) + "/out-\ufffd")
        self.assertTrue(os.path.isdir(out))

    def test_static_activations_need_calibration(self):
        for recipe in ("int8-int8_static", "fp8_tensor-fp8_static", "nvfp4-nvfp4_static"):
            result = run("quantize", self.folder / "model" if (self.folder / "model").exists() else self.model(), "--recipe", recipe, "-o", self.out)
            self.assertIn(result.code, (1, 2))
            self.assertIn("calibrat", result.err)
            self.assertIn("q_proj", result.err)
            self.assertEqual(self.names(), ["model"])


class RuleFiles(Quantize):
    def test_first_match_wins(self):
        rules = [{"match": LAYER + "self_attn.q_proj", "recipe": "int4_g32-bf16"}, {"match": "re:.*\\.(k|v)_proj", "recipe": "fp8"},
                 {"match": "*.down_proj", "recipe": None}, {"match": "*.nothing", "recipe": "int8"}, {"match": "*_proj", "recipe": "int8-bf16"}]
        before = llama_tensors()
        report, after = self.quantize(self.model(before), rules)
        expected = {"self_attn.q_proj": "int4_g32-bf16", "self_attn.k_proj": "fp8-fp8", "self_attn.v_proj": "fp8-fp8",
                    "self_attn.o_proj": "int8-bf16", "mlp.gate_proj": "int8-bf16", "mlp.up_proj": "int8-bf16"}
        self.assertEqual(self.modules(report), {LAYER + k: v for k, v in expected.items()})
        self.assertEqual(report["unmatched_rules"], ["*.nothing"])
        self.assertEqual(sorted(report["kept"]), ["lm_head", LAYER + "mlp.down_proj"])
        self.assertEqual(after[LAYER + "mlp.down_proj.weight"], before[LAYER + "mlp.down_proj.weight"])
        text = self.lowp("quantize", self.folder / "model", "--recipe", self.folder / "rules.json", "-o", self.out, "--overwrite")
        self.assertIn("'*.nothing'", text)
        # Everything that the file says is read back from it.
        self.assertEqual({r["recipe"]: r["modules"] for r in self.json("inspect", self.out)["recipes"]},
                         {"int4_g32-bf16": 1, "fp8-fp8": 2, "int8-bf16": 3})

    def test_regular_expressions_match_whole_names(self):
        report, _ = self.quantize(self.model(), [{"match": "re:q_proj", "recipe": "int8"}, {"match": "re:.*q_proj", "recipe": "int8-bf16"}])
        self.assertEqual(self.modules(report), {LAYER + "self_attn.q_proj": "int8-bf16"})
        self.assertEqual(report["unmatched_rules"], ["re:q_proj"])

    def test_algorithm(self):
        plain = self.quantize(self.model(), "int4_g64_float-bf16")[0]
        hqq = self.quantize(self.folder / "model", [{"match": "*", "recipe": "int4_g64_float-bf16", "algorithm": "hqq"}], "--overwrite")[0]
        self.assertNotEqual(plain["sqnr_mean"], hqq["sqnr_mean"])

    def tied(self, rules):
        """Report, tensors and config of a tied model (its embedding is the head) under these rules."""
        rules = rules + [{"match": "*", "recipe": "int8"}]
        self.quantize(self.folder / "model" if (self.folder / "model").exists() else self.model(), rules, "--overwrite")
        report, after = self.quantize(self.folder / "model", rules, "--overwrite")
        return report, after, self.config()

    def test_tied_head(self):
        embedding = read_file(self.model() / "model.safetensors")[0]["model.embed_tokens.weight"]
        head, embed = {"match": "lm_head", "recipe": "int8-bf16"}, {"match": "*embed_tokens", "recipe": "int8-bf16"}

        report, after, config = self.tied([])  # kept, stored once
        self.assertTrue(config["tie_word_embeddings"])
        self.assertEqual((after["model.embed_tokens.weight"], [n for n in after if "lm_head" in n]), (embedding, []))
        self.assertIn("lm_head", report["kept"])

        report, after, config = self.tied([head])  # quantized head beside the embedding
        self.assertFalse(config["tie_word_embeddings"])
        self.assertEqual(after["model.embed_tokens.weight"], embedding)
        self.assertEqual(self.modules(report)["lm_head"], "int8-bf16")
        self.assertIn("lm_head.weight_packed", after)

        report, after, config = self.tied([embed])  # the embedding quantized, the head not
        self.assertFalse(config["tie_word_embeddings"])
        self.assertEqual(after["lm_head.weight"], embedding)
        self.assertEqual(self.modules(report)["model.embed_tokens"], "int8-bf16")
        self.assertNotIn("model.embed_tokens.weight", after)

        report, after, config = self.tied([head, embed])  # both alike: stored once
        self.assertTrue(config["tie_word_embeddings"])
        self.assertEqual([n for n in after if "lm_head" in n], [])
        self.assertIn("model.embed_tokens.weight_packed", after)

        report, after, config = self.tied([head, {"match": "*embed_tokens", "recipe": "int4_g32-bf16"}])  # both, differently
        self.assertFalse(config["tie_word_embeddings"])
        self.assertEqual((self.modules(report)["lm_head"], self.modules(report)["model.embed_tokens"]), ("int8-bf16", "int4_g32-bf16"))

    def test_head_of_its_own(self):
        tensors = llama_tensors() | {"lm_head.weight": normal(64, 256, seed=99)}
        model = self.model(tensors, LLAMA | {"tie_word_embeddings": False})
        report, after = self.quantize(model, "int8")
        self.assertEqual((after["lm_head.weight"], report["kept"]), (tensors["lm_head.weight"], ["lm_head"]))
        report, after = self.quantize(model, [{"match": "lm_head", "recipe": "mxfp8-bf16"}], "--overwrite")
        self.assertEqual(self.modules(report), {"lm_head": "mxfp8-bf16"})
        self.assertFalse(self.config()["tie_word_embeddings"])

    def test_head_stored_twice_though_tied(self):
        """A head beside the embedding that config.json calls tied: once it is quantized, a reader must not take the embedding."""
        tensors = llama_tensors()
        model = self.model(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
        self.quantize(model, "int8")
        self.assertTrue(self.config()["tie_word_embeddings"])
        self.quantize(model, [{"match": "lm_head", "recipe": "int8-bf16"}], "--overwrite")
        self.assertFalse(self.config()["tie_word_embeddings"])

    def test_heads_are_weight_only(self):
        (self.folder / "rules.json").write_text('[{"match": "lm_head", "recipe": "int8"}]')
        self.refused("quantize", self.model(), "--recipe", self.folder / "rules.json", "-o", self.out, code=2,
                     words=["lm_head", "int8-int8", "weight-only"])

    def test_router_by_name(self):
        report, _ = self.quantize(MODELS / "bookworm-moe-9m", [{"match": "*.mlp.gate", "recipe": "int8-bf16"}])
        self.assertEqual(sorted(self.modules(report)), [f"model.layers.{i}.mlp.gate" for i in range(4)])


class Options(Quantize):
    def test_allow_skip(self):
        config = LLAMA | {"intermediate_size": 80}
        model = self.model(llama_tensors(config), config)
        self.refused("quantize", model, "--recipe", "int4_g64-bf16", "-o", self.out,
                     words=["model.safetensors", LAYER + "mlp.down_proj", "K = 80", "64", "--allow-skip"])
        self.assertEqual(self.names(), ["model"])
        report, after = self.quantize(model, "int4_g64-bf16", "--allow-skip")
        self.assertEqual(len(report["skipped"]), 1)
        self.assertIn(LAYER + "mlp.down_proj: K = 80", report["skipped"][0])
        self.assertIn(LAYER + "mlp.down_proj.weight", after)
        self.assertNotIn(LAYER + "mlp.down_proj", self.modules(report))
        self.assertIn(LAYER + "mlp.down_proj", self.config()["quantization_config"]["ignore"])
        text = self.lowp("quantize", model, "--recipe", "int4_g64-bf16", "-o", self.out, "--allow-skip", "--overwrite")
        self.assertIn("skipped: " + LAYER + "mlp.down_proj: K = 80", text)

    def test_linear_of_another_type(self):
        """Never silently: a weight that lowp cannot read as numbers to quantize is refused or listed."""
        config = LLAMA | {"architectures": ["Other"]}
        tensors = llama_tensors() | {"model.extra.weight": Tensor("F64", (4, 64), bytes(4 * 64 * 8))}
        model = self.model(tensors, config)
        self.refused("quantize", model, "--recipe", "int8", "-o", self.out, words=["model.extra", "F64", "--allow-skip"])
        report, after = self.quantize(model, "int8", "--allow-skip")
        self.assertIn("model.extra", report["skipped"][0])
        self.assertEqual(after["model.extra.weight"], tensors["model.extra.weight"])

    def tensor_scales(self, model, recipe, field, *options):
        _, after = self.quantize(model, recipe, "--overwrite", *options)
        return {linear: bytes(after[f"{LAYER}{linear}.{field}"].data) for linear in LINEARS}

    def test_scales(self):
        model = self.model()
        for recipe, field in [("nvfp4-bf16", "weight_global_scale"), ("fp8_tensor-fp8_tensor", "weight_scale")]:
            with self.subTest(recipe):
                s = self.tensor_scales(model, recipe, field)
                q, k, v, o, gate, up, down = (s[linear] for linear in LINEARS)
                self.assertTrue(q == k == v and gate == up)
                self.assertEqual(len({q, o, gate, down}), 4)
                each = self.tensor_scales(model, recipe, field, "--scales", "per-matrix")
                self.assertEqual(len(set(each.values())), 7)
                self.assertIn(q, (each[linear] for linear in LINEARS[:3]))  # the largest of the three
        rows = self.quantize(model, "fp8", "--overwrite")[1]
        self.assertEqual(rows, self.quantize(model, "fp8", "--overwrite", "--scales", "per-matrix")[1])

    def test_requantize(self):
        model = self.model()
        for recipe, dialect in [("int8-bf16", "compressed-tensors"), ("int4_g64_float-bf16", "torchao"), ("codebook4_g64-bf16", "lowp")]:
            with self.subTest(recipe):
                first = self.folder / dialect
                self.assertEqual(self.json("quantize", model, "--recipe", recipe, "-o", first)["dialect"], dialect)
                self.refused("quantize", first, "--recipe", "int8", "-o", self.out, words=[str(first), "quantized already", dialect, "--requantize"])
                report, after = self.quantize(first, "mxfp8", "--requantize", "--overwrite")
                self.assertEqual(set(self.modules(report).values()), {"mxfp8-mxfp8"})
                self.assertEqual(len(report["layers"]), 7)
                self.assertEqual(after["model.norm.weight"], read_file(model / "model.safetensors")[0]["model.norm.weight"])
                self.quantize(first, "bf16", "--requantize", "--overwrite")  # back to plain weights
                self.assertNotIn("quantization_config", self.config())
                self.assertEqual(self.json("inspect", self.out)["dialect"], None)
                shutil.rmtree(self.out)

    def test_requantize_to_the_same_loses_nothing(self):
        model = self.model()
        self.quantize(model, "mxfp8")
        shutil.move(self.out, self.folder / "first")
        report, after = self.quantize(self.folder / "first", "mxfp8", "--requantize")
        self.assertEqual(set(after), set(read_file(self.folder / "first" / "model.safetensors")[0]))
        self.assertIsNone(report["sqnr_min"])  # nothing is lost

    def test_requantize_a_quantized_head(self):
        rules = [{"match": "lm_head", "recipe": "int8-bf16"}, {"match": "*", "recipe": "int8"}]
        self.quantize(self.model(), rules)
        shutil.move(self.out, self.folder / "first")
        report, after = self.quantize(self.folder / "first", rules, "--requantize")
        self.assertEqual([m for m in self.modules(report) if "lm_head" in m], ["lm_head"])
        report, after = self.quantize(self.folder / "first", "int8", "--requantize", "--overwrite")
        self.assertEqual(report["kept"], ["lm_head"])
        self.assertIn("lm_head.weight", after)
        self.assertFalse(self.config()["tie_word_embeddings"])

    def test_overwrite(self):
        model = self.model()
        self.quantize(model, "int8")
        self.refused("quantize", model, "--recipe", "int8", "-o", self.out, words=[str(self.out), "exists", "--overwrite"])
        (self.out / "stale.txt").write_text("")
        report, _ = self.quantize(model, "mxfp8", "--overwrite")
        self.assertEqual(set(self.modules(report).values()), {"mxfp8-mxfp8"})
        self.assertEqual(self.names(self.out), ["config.json", "model.safetensors", "tokenizer.json"])
        precious = self.folder / "precious"
        precious.mkdir()
        (precious / "thesis.tex").write_text("42")
        self.refused("quantize", model, "--recipe", "int8", "-o", precious, "--overwrite", words=["precious", "not a model folder"])
        self.assertEqual(self.names(precious), ["thesis.tex"])
        (self.folder / "file").write_text("")
        self.refused("quantize", model, "--recipe", "int8", "-o", self.folder / "file", "--overwrite", words=["file", "not a folder"])

    def test_overwrite_never_removes_the_model(self):
        outer = self.folder / "outer"
        outer.mkdir()
        (outer / "config.json").write_text("{}")
        model = write_model(outer / "model", llama_tensors())
        linked = self.folder / "linked"
        linked.mkdir()
        for file in self.names(model):
            (linked / file).symlink_to(model / file)
        (self.folder / "alias").symlink_to(model)
        for source, out in [(model, model), (model / "model.safetensors", model), (model, outer), (linked, model), (linked, outer),
                            (self.folder / "alias", model)]:
            with self.subTest(source=source, out=out):
                self.refused("quantize", source, "--recipe", "int8", "-o", out, "--overwrite", code=2, words=[str(out), "model's own"])
        self.refused("quantize", "model", "--recipe", "int8", "-o", ".", "--overwrite", code=2, cwd=outer)
        self.assertEqual(self.names(model), ["config.json", "model.safetensors", "tokenizer.json"])


class Inputs(Quantize):
    def test_shards(self):
        tensors = llama_tensors()
        _, expected = self.quantize(self.model(tensors), "int4_g32-bf16")
        sharded = lowp_cli.write_sharded(self.folder / "sharded", tensors)
        shard = sharded / "model-00003-of-00003.safetensors"
        write_file(shard, read_file(shard)[0] | {"unlisted": normal(4)})
        report, after = self.quantize(sharded, "int4_g32-bf16", "--overwrite")
        self.assertEqual(after, expected)
        self.assertEqual(self.names(self.out), ["config.json", "model.safetensors", "tokenizer.json"])
        self.assertIn("'unlisted'", report["warnings"][0])

    def test_a_link_to_nothing_beside_the_weights(self):
        model = self.model(llama_tensors())
        (model / "tokenizer.json").unlink()
        (model / "tokenizer.json").symlink_to("gone")
        self.refused("quantize", model, "--recipe", "int8", "-o", self.out, words=[str(model / "tokenizer.json"), "gone"])

    def test_single_file(self):
        file = self.folder / "weights.safetensors"
        write_file(file, {"a.weight": normal(8, 64), "b.bias": normal(8)})
        report, after = self.quantize(file, "int4_g32-bf16")
        self.assertEqual(self.modules(report), {"a": "int4_g32-bf16"})
        self.assertEqual(self.names(self.out), ["config.json", "model.safetensors"])
        self.assertEqual([r["recipe"] for r in self.json("inspect", self.out / "model.safetensors")["recipes"]], ["int4_g32-bf16"])

    def test_hugging_face_cache(self):
        hub = self.folder / "hf" / "hub" / "models--org--name"
        blobs = write_model(hub / "blobs", llama_tensors())
        snapshot = hub / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        for file in self.names(blobs):
            (snapshot / file).symlink_to(f"../../blobs/{file}")
        (hub / "refs").mkdir()
        (hub / "refs" / "main").write_text("0123abcd")
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        for env in ({"HF_HOME": str(self.folder / "hf"), "HF_HUB_CACHE": ""}, {"HF_HUB_CACHE": str(self.folder / "hf" / "hub")}):
            report = self.json("quantize", "org/name", "--recipe", "int8", "-o", self.out, "--overwrite", env=env, cwd=elsewhere)
            self.assertEqual((report["model"], len(report["layers"])), ("org/name", 7))
            self.assertEqual(self.names(self.out), self.names(blobs))
            self.assertFalse(any(p.is_symlink() for p in self.out.iterdir()))
            self.refused("quantize", "org/other", "--recipe", "int8", "-o", self.folder / "no", env=env, cwd=elsewhere,
                         words=["org/other", "models--org--other"])

    def moe(self, fused):
        config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 64}
        block = LAYER + "mlp."
        tensors = {n: t for n, t in llama_tensors().items() if ".mlp." not in n}
        tensors |= {LAYER + f"self_attn.{x}_norm.weight": normal(64) for x in "qk"} | {block + "gate.weight": normal(3, 256)}
        experts = {f"{block}experts.{e}.{p}_proj.weight": normal(64, 256, seed=e * 10 + i) if i < 2 else normal(256, 64, seed=e * 10 + i)
                   for e in range(3) for i, p in enumerate(("gate", "up", "down"))}
        if fused:
            data = {p: [t.data for n, t in experts.items() if f".{p}_proj" in n] for p in ("gate", "up", "down")}
            experts = {block + "experts.gate_up_proj": Tensor("BF16", (3, 128, 256), b"".join(g + u for g, u in zip(data["gate"], data["up"]))),
                       block + "experts.down_proj": Tensor("BF16", (3, 256, 64), b"".join(data["down"]))}
        return tensors | experts, LLAMA | config

    def test_fused_experts(self):
        """The same as experts stored one by one, scales shared between an expert's gate and up included."""
        for recipe in ("int4_g32-bf16", "nvfp4"):
            with self.subTest(recipe):
                _, apart = self.quantize(self.model(*self.moe(False), name=recipe + "-apart"), recipe, "--overwrite")
                report, fused = self.quantize(self.model(*self.moe(True), name=recipe + "-fused"), recipe, "--overwrite")
                self.assertEqual(fused, apart)
                self.assertEqual(len(report["layers"]), 4 + 9)
                self.assertIn(LAYER + "mlp.gate", report["kept"])

    def test_experts_of_gpt_oss(self):
        """Stacked as [experts, in, out] with gate and up in turn: the same as one by one; biases stay as they are."""
        apart, config = self.moe(False)
        config = config | {"architectures": ["Other"], "model_type": "gpt_oss"}
        block, stacked = LAYER + "mlp.experts.", {n: t for n, t in apart.items() if ".experts." not in n}

        def columns(e, *parts):  # [in, out]: output by output of the parts, for each input
            values = [unpack(apart[f"{block}{e}.{p}_proj.weight"]) for p in parts]
            rows, width = apart[f"{block}{e}.{parts[0]}_proj.weight"].shape
            return [v[i * width + j] for j in range(width) for i in range(rows) for v in values]

        for name, shape, parts in (("gate_up_proj", (3, 256, 128), ("gate", "up")), ("down_proj", (3, 64, 256), ("down",))):
            stacked[block + name] = Tensor("BF16", shape, pack([x for e in range(3) for x in columns(e, *parts)], "BF16"))
        stacked[block + "gate_up_proj_bias"] = normal(3, 128)
        _, expected = self.quantize(self.model(apart, config, name="apart"), "nvfp4", "--overwrite")
        report, found = self.quantize(self.model(stacked, config, name="stacked"), "nvfp4", "--overwrite")
        self.assertEqual(found.pop(block + "gate_up_proj_bias"), stacked[block + "gate_up_proj_bias"])
        self.assertEqual(found, expected)
        self.assertEqual(len(report["layers"]), 4 + 9)

    def test_some_of_fused_experts(self):
        tensors, config = self.moe(True)
        report, after = self.quantize(self.model(tensors, config), [{"match": "*.1.*_proj", "recipe": "int8-bf16"}])
        self.assertEqual(sorted(self.modules(report)), [f"{LAYER}mlp.experts.1.{p}_proj" for p in ("down", "gate", "up")])
        self.assertEqual(after[LAYER + "mlp.experts.2.up_proj.weight"].data, tensors[LAYER + "mlp.experts.gate_up_proj"].data[-64 * 256 * 2:])
        self.assertNotIn(LAYER + "mlp.experts.gate_up_proj", after)

    def test_fused_experts_that_cannot_be(self):
        """Transposed, of an unknown name, of an odd number of rows, none at all: refused, or kept whole and listed."""
        name, other = LAYER + "mlp.experts.gate_up_proj", {"architectures": ["Other"]}
        for case, tensor, shape, config, word in [("transposed", name, (2, 256, 32), other, "[experts, in, out]"),
                                                  ("llama4", name, (2, 256, 256), other | {"model_type": "llama4_text"}, "llama4"),
                                                  ("unknown", LAYER + "mlp.experts.w7", (2, 32, 256), other, "gate_up_proj"),
                                                  ("odd", name, (2, 33, 256), other, "33 rows"), ("none", name, (0, 32, 256), other, "no expert"),
                                                  ("type", name, (2, 33, 256), other | {"model_type": 7}, "33 rows")]:
            with self.subTest(case):
                tensors = llama_tensors() | {tensor: normal(*shape)}
                model = self.model(tensors, LLAMA | config, name=case)
                self.refused("quantize", model, "--recipe", "int8", "-o", self.out, words=[tensor, word])
                report, after = self.quantize(model, "int8", "--allow-skip")
                self.assertEqual(after[tensor], tensors[tensor])
                self.assertIn(tensor, report["skipped"][0])
                self.quantize(model, [{"match": "*.experts.*", "recipe": None}, {"match": "*", "recipe": "int8"}], "--overwrite")
                shutil.rmtree(self.out)

    def test_not_finite(self):
        """In any format, named by tensor and index; in a tensor that stays as it is it does not matter."""
        for value, dtype in [("nan", "BF16"), ("inf", "BF16"), ("-inf", "F32"), ("nan", "F16")]:
            tensors = llama_tensors(dtype=dtype)
            name = LAYER + "mlp.up_proj.weight"
            values = list(unpack(tensors[name]))
            values[3 * 256 + 5] = float(value)
            tensors[name] = tensors[name]._replace(data=pack(values, dtype))
            model = self.model(tensors, name=dtype + value)
            for recipe in ("mxfp8", "mxfp4-bf16", "nvfp4", "fp8", "int8", "int4", "int4_g64_float-bf16", "int4_g64_float_hqq-bf16", "codebook4_g64-bf16"):
                with self.subTest(value=value, recipe=recipe):
                    self.refused("quantize", model, "--recipe", recipe, "-o", self.out, words=["model.safetensors", LAYER + "mlp.up_proj", value, "[3, 5]"])
        values = pack([float("nan")] * 256, "BF16")
        tensors = llama_tensors() | {"model.norm.weight": Tensor("BF16", (256,), values)}
        _, after = self.quantize(self.model(tensors), "int8")
        self.assertEqual(after["model.norm.weight"].data, values)
        self.assertEqual([n for n in self.names() if "partial" in n], [])

    def test_zeros(self):
        """A layer of zeros is exact in every recipe."""
        tensors = {"a.weight": Tensor("BF16", (128, 256), bytes(2 * 128 * 256)), "b.weight": normal(128, 256)}
        write_file(self.folder / "zeros.safetensors", tensors)
        for recipe in self.json("recipes", "--demo")[1:]:
            with self.subTest(recipe):
                report, _ = self.quantize(self.folder / "zeros.safetensors", recipe, "--overwrite")
                self.assertIsNone(report["layers"][0]["sqnr"])


if __name__ == "__main__":
    lowp_cli.main()
