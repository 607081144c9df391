"""Mistral, Mixtral and gpt-oss from the command line, with random weights: run, quantized, packed, converted, served texts."""
import json
import shutil

import lowp_cli
from lowp_cli import MODELS, Case, Tensor, normal, pack, write_file

TOKENIZER = MODELS / "bookworm-8m" / "tokenizer.json"
TEXT = lowp_cli.MODELS.parent / "tests" / "golden" / "demo.txt"
HIDDEN, HEADS, KV, DIM, INNER, EXPERTS, VOCAB, LAYERS = 64, 4, 2, 16, 96, 4, 8192, 2
COMMON = {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "num_key_value_heads": KV, "head_dim": DIM, "vocab_size": VOCAB, "max_position_embeddings": 1024, "sliding_window": 16,
          "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "hidden_act": "silu", "torch_dtype": "bfloat16"}
MOE = {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
CONFIGS = {
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
    "mixtral": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", **MOE},
    "gpt_oss": {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True, **MOE, "swiglu_limit": 7.0,
                "layer_types": ["sliding_attention", "full_attention"], "rope_theta": 150000,
                "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "truncate": False, "original_max_position_embeddings": 128}},
}


def shapes(name):
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}{norm}.weight", (HIDDEN,)
        for part, n, k in (("q", HEADS * DIM, HIDDEN), ("k", KV * DIM, HIDDEN), ("v", KV * DIM, HIDDEN), ("o", HIDDEN, HEADS * DIM)):
            yield f"{layer}self_attn.{part}_proj.weight", (n, k)
            if name == "gpt_oss":
                yield f"{layer}self_attn.{part}_proj.bias", (n,)
        if name == "mistral":
            for part, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
                yield f"{layer}mlp.{part}_proj.weight", shape
        elif name == "mixtral":
            yield f"{layer}block_sparse_moe.gate.weight", (EXPERTS, HIDDEN)
            for e in range(EXPERTS):
                for part, shape in (("w1", (INNER, HIDDEN)), ("w3", (INNER, HIDDEN)), ("w2", (HIDDEN, INNER))):
                    yield f"{layer}block_sparse_moe.experts.{e}.{part}.weight", shape
        else:
            yield f"{layer}self_attn.sinks", (HEADS,)
            yield f"{layer}mlp.router.weight", (EXPERTS, HIDDEN)
            yield f"{layer}mlp.router.bias", (EXPERTS,)
            yield f"{layer}mlp.experts.gate_up_proj", (EXPERTS, HIDDEN, 2 * INNER)
            yield f"{layer}mlp.experts.gate_up_proj_bias", (EXPERTS, 2 * INNER)
            yield f"{layer}mlp.experts.down_proj", (EXPERTS, INNER, HIDDEN)
            yield f"{layer}mlp.experts.down_proj_bias", (EXPERTS, HIDDEN)


class Architectures(Case):
    def model(self, name):
        folder = self.folder / name
        folder.mkdir()
        tensors = {n: Tensor("BF16", s, pack([1.0] * HIDDEN, "BF16")) if n.endswith("norm.weight") else
                   normal(*s, seed=i, sigma=0.15) for i, (n, s) in enumerate(shapes(name))}
        write_file(folder / "model.safetensors", tensors)
        (folder / "config.json").write_text(json.dumps(COMMON | CONFIGS[name]))
        shutil.copy(TOKENIZER, folder)
        return folder

    def nll(self, model):
        text = self.folder / "text.txt"
        text.write_text(TEXT.read_text()[:3000])
        return self.json("eval", model, "--text", text, "--context", 128)["nll"]

    def generated(self, model):
        return self.json("generate", model, "-p", "It was a dark", "-n", 12, "--temperature", 0, "--ignore-eos")["text"]

    def quantize(self, model, recipe, *args):
        out = self.folder / f"{model.name}-{recipe}-{len(list(self.folder.iterdir()))}"
        return out, self.json("quantize", model, "--recipe", recipe, "-o", out, *args)

    def check(self, name, linears):
        model = self.model(name)
        exact = self.nll(model)
        self.assertTrue(self.generated(model))
        small, report = self.quantize(model, "int8-bf16")
        self.assertEqual(len(report["layers"]), linears)
        self.assertAlmostEqual(self.nll(small), exact, delta=0.02)
        # Calibration sees every layer by the name that the checkpoint has.
        _, report = self.quantize(model, "int4_g32-bf16", "--algorithm", "gptq", "--calibrate", TEXT)
        self.assertEqual(report["warnings"], [])
        text = self.generated(small)
        self.json("pack", small)
        self.assertEqual(self.generated(small), text)
        return model, exact

    def test_mistral(self):
        self.check("mistral", 7 * LAYERS)

    def test_mixtral(self):
        model, exact = self.check("mixtral", (4 + 3 * EXPERTS) * LAYERS)
        rotated, _ = self.quantize(model, "bf16", "--algorithm", "hadamard")
        self.assertAlmostEqual(self.nll(rotated), exact, delta=0.02)

    def test_gpt_oss(self):
        model, _ = self.check("gpt_oss", (4 + 3 * EXPERTS) * LAYERS)
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps([{"match": "*.experts.*", "recipe": "mxfp4-bf16"}]))
        native = self.folder / "native"
        self.lowp("quantize", model, "--recipe", rules, "--dialect", "gpt-oss", "-o", native)
        self.assertEqual(lowp_cli.read_file(native / "model.safetensors")[0]["model.layers.0.mlp.experts.gate_up_proj_blocks"].shape,
                         (EXPERTS, 2 * INNER, HIDDEN // 32, 16))
        other = self.folder / "other"
        self.lowp("convert", native, "-o", other, "--dialect", "compressed-tensors")
        self.assertEqual(self.nll(native), self.nll(other))
        self.refused("quantize", model, "--recipe", "int4", "--algorithm", "hadamard", "-o", self.folder / "no", words=["GptOssForCausalLM"])
        self.refused("quantize", model, "--recipe", "bf16", "--dialect", "gguf", "-o", self.folder / "no.gguf", words=["GptOssForCausalLM"])

    def test_what_the_config_may_not_say(self):
        for name, change, word in (("gpt_oss", {"swiglu_limit": 6.0}, "swiglu_limit"), ("gpt_oss", {"num_experts_per_tok": 5}, "num_experts_per_tok"),
                                   ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok"),
                                   ("gpt_oss", {"layer_types": ["other", "other"]}, "layer_types")):
            with self.subTest(change):
                model = self.folder / name if (self.folder / name).exists() else self.model(name)
                (model / "config.json").write_text(json.dumps(COMMON | CONFIGS[name] | change))
                self.refused("generate", model, "-p", "It", "-n", 1, words=["config.json", word])


if __name__ == "__main__":
    lowp_cli.main()
