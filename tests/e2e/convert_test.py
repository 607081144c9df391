"""lowp convert: the same numbers in another dialect, and what cannot be held."""
import json
import shutil

import lowp_cli
from lowp_cli import MODELS, Case, read_file, run, write_file

DENSE, MOE = MODELS / "bookworm-8m", MODELS / "bookworm-moe-9m"

# Recipe -> the dialects that hold it.
HELD = {
    "int4_g64-bf16": ["compressed-tensors", "torchao", "lowp", "modelopt", "gptq", "awq"],
    "int4_g64_asym-bf16": ["compressed-tensors", "torchao", "lowp", "gptq", "awq"],
    "int8-int8": ["compressed-tensors", "torchao", "lowp", "modelopt"],
    "fp8-fp8": ["compressed-tensors", "torchao", "lowp", "modelopt"],
    "fp8_block128-fp8_group128": ["compressed-tensors", "lowp", "modelopt", "fp8-block"],
    "mxfp8-mxfp8": ["compressed-tensors", "torchao", "lowp", "modelopt", "fp8-block"],
    "nvfp4-bf16": ["compressed-tensors", "torchao", "lowp", "modelopt"],
}


class Convert(Case):
    def quantize(self, recipe, dialect, model=DENSE, *options):
        out = self.folder / f"{dialect}-made"
        shutil.rmtree(out, ignore_errors=True)
        self.lowp("quantize", model, "--recipe", recipe, "--dialect", dialect, "-o", out, *options)
        return out

    def convert(self, model, dialect, name="out"):
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        report = self.json("convert", model, "--dialect", dialect, "-o", out)
        self.assertEqual(report["to"], dialect)
        return out

    def assert_same_folder(self, found, expected):
        self.assertEqual(self.names(found), self.names(expected))
        for name in self.names(expected):
            self.assertEqual((found / name).read_bytes(), (expected / name).read_bytes(), name)

    def test_ring_through_all_dialects(self):
        """Each writes what quantizing into it writes, byte for byte, whatever it was converted from."""
        for recipe, dialects in HELD.items():
            made = {dialect: self.quantize(recipe, dialect).rename(self.folder / f"{recipe}-{dialect}") for dialect in dialects}
            at = made[dialects[0]]
            for step, dialect in enumerate(dialects[1:] + dialects[:1]):
                with self.subTest(recipe, dialect=dialect):
                    at = self.convert(at, dialect, f"ring-{step % 2}")
                    self.assert_same_folder(at, made[dialect])

    def test_values_do_not_change(self):
        text = self.folder / "text.txt"
        text.write_text((MODELS.parent / "tests/golden/demo.txt").read_text()[:2000])
        made = self.quantize("int4_g64_asym-bf16", "compressed-tensors")
        want = self.json("eval", made, "--text", text)["perplexity"]
        for dialect in ("gptq", "awq"):
            self.assertEqual(self.json("eval", self.convert(made, dialect), "--text", text)["perplexity"], want)

    def test_gpt_oss_stacks_experts(self):
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps([{"match": "*.experts.*", "recipe": "mxfp4-bf16"}]))
        made = self.quantize(rules, "gpt-oss", MOE)
        tensors, _ = read_file(made / "model.safetensors")
        blocks = tensors["model.layers.0.mlp.experts.gate_up_proj_blocks"]
        self.assertEqual((blocks.dtype, blocks.shape), ("U8", (8, 512, 8, 16)))
        self.assertNotIn("model.layers.0.mlp.experts.0.gate_proj.weight", tensors)
        plain = self.convert(made, "compressed-tensors")
        direct = self.quantize(rules, "compressed-tensors", MOE)  # has them expert by expert, not stack by stack
        self.assertEqual(read_file(plain / "model.safetensors")[0], read_file(direct / "model.safetensors")[0])
        self.assert_same_folder(self.convert(plain, "gpt-oss", "back"), made)
        self.lowp("generate", made, "-p", "Once", "-n", 4, "--temperature", 0)

    def test_activation_order(self):
        """Columns in another order: through lowp and compressed-tensors and back to the same bytes, with the same values."""
        made = self.quantize("int4_g64-bf16", "gptq")
        tensors, metadata = read_file(made / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.g_idx"
        index = list(memoryview(tensors[name].data).cast("i"))
        index = index[1::2] + index[0::2]
        tensors[name] = tensors[name]._replace(data=b"".join(i.to_bytes(4, "little") for i in index))
        write_file(made / "model.safetensors", tensors, metadata)
        by_group = self.convert(made, "compressed-tensors", "ct")
        config = json.loads((by_group / "config.json").read_text())["quantization_config"]
        self.assertEqual([group["weights"].get("actorder") for group in config["config_groups"].values()], [None, "group"])
        back, _ = read_file(self.convert(self.convert(by_group, "lowp", "lowp"), "gptq") / "model.safetensors")
        self.assertEqual(back, tensors)
        text = self.folder / "text.txt"
        text.write_text((MODELS.parent / "tests/golden/demo.txt").read_text()[:4000])
        self.assertEqual(len({self.json("eval", folder, "--text", text)["perplexity"] for folder in (made, by_group)}), 1)
        self.refused("convert", made, "--dialect", "awq", "-o", self.folder / "no", words=["up_proj", "activation order"])

    def test_what_cannot_be_held(self):
        made = self.quantize("nvfp4-bf16", "compressed-tensors")
        before = self.names()
        self.refused("convert", made, "--dialect", "gptq", "-o", self.folder / "no",
                     words=["gptq cannot hold", "nvfp4-bf16", "mlp.down_proj", "and 55 more"])
        self.refused("convert", made, "--dialect", "mlx", "-o", self.folder / "no", code=2, words=["unknown dialect 'mlx'"])
        self.refused("convert", DENSE, "--dialect", "gptq", "-o", self.folder / "no", words=["is not quantized"])
        self.refused("convert", made, "--dialect", "lowp", "-o", made, "--overwrite", code=2, words=["own folder"])
        self.refused("convert", made, "--dialect", "lowp", "-o", self.folder / "a/b", words=["does not exist"])
        self.assertEqual(self.names(), before)
        self.assertEqual(run("convert", made, "-o", self.folder / "no").code, 2)


if __name__ == "__main__":
    lowp_cli.main()
