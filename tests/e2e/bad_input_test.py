"""Bad input to every command: a clear message that names what was wrong and where, the right exit code, nothing left behind."""
import json
import re
import resource
import shutil
import struct

import lowp_cli
from lowp_cli import BITS, LLAMA, MODELS, Case, Tensor, llama_tensors, normal, read_file, with_header, write_file, write_model, write_sharded

BOOK = MODELS / "bookworm-8m"
ENTRY = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
DATA = bytes(12)
# What is wrong, the bytes, a word of the message.
FILES = [
    ("too short for a header", b"\0" * 7, "8"),
    ("header longer than the file", struct.pack("<Q", 1000) + b"{}", "1000"),
    ("header beyond the limit", struct.pack("<Q", 100_000_001) + b"{}", "100000001"),
    ("header length overflows", struct.pack("<Q", 2**64 - 1) + b"{}", "18446744073709551615"),
    ("not UTF-8", with_header(b'{"\xff": 1}', b""), "UTF-8"),
    ("not JSON", with_header(b"{", b""), "JSON"),
    ("not an object", with_header(b"[]", b""), "object"),
    ("nested", with_header(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", b""), "deep"),
    ("duplicate key", with_header(b'{"a":' + json.dumps(ENTRY).encode() + b',"a":' + json.dumps(ENTRY).encode() + b"}", DATA), "duplicate"),
    ("unknown type", with_header({"a": ENTRY | {"dtype": "BF17"}}, DATA), "BF17"),
    ("wrong size", with_header({"a": ENTRY | {"data_offsets": [0, 10]}}, DATA[:10]), "12"),
    ("truncated", with_header({"a": ENTRY}, DATA[:5]), "a"),
    ("trailing bytes", with_header({"a": ENTRY}, DATA + b"x"), "follow"),
    ("overlap", with_header({"a": ENTRY, "b": ENTRY}, DATA), "'b'"),
    ("hole", with_header({"a": ENTRY | {"data_offsets": [2, 14]}}, DATA + bytes(2)), "'a'"),
    ("negative dimension", with_header({"a": ENTRY | {"shape": [-2, 3]}}, DATA), "'a'"),
    ("fraction", with_header({"a": ENTRY | {"shape": [2.5, 3]}}, DATA), "'a'"),
    ("overflow", with_header({"a": ENTRY | {"shape": [2**40, 2**40]}}, DATA), "'a'"),
    ("missing field", with_header({"a": {"dtype": "BF16", "shape": [2, 3]}}, DATA), "data_offsets"),
]


class Quantize(Case):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"

    def fails(self, model, *options, recipe="int8", code=1, words=(), **more):
        before = self.names()
        self.refused("quantize", model, "--recipe", recipe, "-o", self.out, *options, code=code, words=words, **more)
        self.assertEqual(self.names(), before)  # neither OUT nor a partial folder

    def fresh(self, tensors, config=LLAMA):
        """A model in place of the last one."""
        shutil.rmtree(self.folder / "m", ignore_errors=True)
        return write_model(self.folder / "m", tensors, config)

    def test_files(self):
        for what, content, word in FILES:
            with self.subTest(what):
                model = self.fresh({})
                (model / "model.safetensors").write_bytes(content)
                self.fails(model, words=["model.safetensors", word])
                self.refused("inspect", model, words=["model.safetensors", word])
                self.refused("cast", model / "model.safetensors", "--format", "mxfp8", "-o", self.folder / "x", words=["model.safetensors", word])

    def test_config_fields(self):
        for field in ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"):
            for value in (None, "256", -1, 0, 2.5):
                with self.subTest(field=field, value=value):
                    config = {k: v for k, v in (LLAMA | {field: value}).items() if v is not None}
                    model = self.fresh(llama_tensors(), config)
                    self.fails(model, words=["config.json", field, "missing" if value is None else f"found {json.dumps(value)}"])

    def test_config_fields_of_experts(self):
        moe = LLAMA | {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 2, "moe_intermediate_size": 64}
        for field in ("num_experts", "moe_intermediate_size"):
            with self.subTest(field):
                self.fails(self.fresh(llama_tensors(), {k: v for k, v in moe.items() if k != field}), words=["config.json", field, "missing"])
        self.fails(self.fresh(llama_tensors(), moe | {"num_local_experts": 4}), words=["config.json", "num_experts is 2", "num_local_experts 4"])

    def test_optional_config_fields(self):
        for field, value in [("num_key_value_heads", "2"), ("head_dim", 0), ("tie_word_embeddings", "yes"), ("architectures", "LlamaForCausalLM"),
                             ("architectures", [7])]:
            with self.subTest(field=field, value=value):
                self.fails(self.fresh(llama_tensors(), LLAMA | {field: value}), words=["config.json", field, "expected", f"found {json.dumps(value)}"])

    def test_weights_of_another_type(self):
        """Never kept silently: refused by tensor and type, or listed as skipped."""
        name = "model.layers.0.self_attn.q_proj"
        for dtype in ("I64", "I32", "U8", "BOOL", "F8_E4M3", "F64"):
            with self.subTest(dtype):
                weight = Tensor(dtype, (256, 256), bytes(256 * 256 * BITS[dtype] // 8))
                model = self.fresh(llama_tensors() | {name + ".weight": weight})
                self.fails(model, words=["model.safetensors", name, f"type {dtype}", "BF16", "--allow-skip"])
                report = self.json("quantize", model, "--recipe", "int8", "-o", self.out, "--allow-skip")
                self.assertIn(f"{name}: is of type {dtype}", report["skipped"][0])
                self.assertEqual(read_file(self.out / "model.safetensors")[0][name + ".weight"], weight)
                shutil.rmtree(self.out)

    def test_recipe_files(self):
        rules = self.folder / "rules.json"
        for text, word in [("", "JSON"), ("[", "JSON"), ("{}", "list"), ("[]", "empty"), ("[7]", "object"), ('[{"recipe": "int8"}]', "match"),
                           ('[{"match": "*"}]', "recipe"), ('[{"match": 7, "recipe": "int8"}]', "string"),
                           ('[{"match": "*", "recipe": "imt8"}]', "did you mean 'int8'"), ('[{"match": "re:(", "recipe": "int8"}]', "match"),
                           ('[{"match": "*", "recipe": "int8", "algoritm": "hqq"}]', "algoritm"), ("[" * 100000, "deep"),
                           ('[{"match": "*", "recipe": "int4_g64_float-bf16", "algorithm": "hhq"}]', "did you mean 'hqq'")]:
            with self.subTest(text[:60]):
                rules.write_text(text)
                self.fails(BOOK, recipe=rules, words=["rules.json", word])
        self.fails(BOOK, recipe=self.folder / "none.json", words=["none.json"])
        rules.write_text('[{"match": "lm_head", "recipe": "int8"}]')
        self.fails(BOOK, recipe=rules, code=2, words=["lm_head", "weight-only"])

    def test_config_at_odds_with_tensors(self):
        for change, words in [({"intermediate_size": 512}, ["mlp.gate_proj.weight", "[512", "[256, 256]"]), ({"num_hidden_layers": 2}, ["model.layers.1", "missing"]),
                              ({"num_hidden_layers": 10**9}, ["missing"]), ({"head_dim": 32}, ["q_proj"]), ({"num_key_value_heads": 3}, ["num_key_value_heads"]),
                              ({"tie_word_embeddings": False}, ["lm_head.weight", "missing"])]:
            with self.subTest(change):
                model = self.fresh(llama_tensors(), LLAMA | change)
                self.fails(model, words=words)
        model = self.fresh(llama_tensors(LLAMA | {"num_hidden_layers": 2}))
        self.fails(model, words=["model.safetensors", "'model.layers.1.", "num_hidden_layers 1"])

    def test_config_that_is_no_object(self):
        for text in ("[]", "{", "", '{"a": 1, "a": 2}', "[" * 100000):
            with self.subTest(text[:10]):
                model = self.fresh(llama_tensors())
                (model / "config.json").write_text(text)
                self.fails(model, words=["config.json"])

    def test_shards(self):
        model = write_sharded(self.folder / "m", llama_tensors())
        index = json.loads((model / "model.safetensors.index.json").read_text())
        for file in ("../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b", "", "no\nline"):
            with self.subTest(file):
                changed = index | {"weight_map": index["weight_map"] | {"model.norm.weight": file}}
                (model / "model.safetensors.index.json").write_text(json.dumps(changed))
                self.fails(model, words=["index.json", "model.norm.weight"])
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        (model / "model-00002-of-00003.safetensors").unlink()
        self.fails(model, words=["model-00002-of-00003.safetensors"])
        self.refused("inspect", model, words=["model-00002-of-00003.safetensors"])
        (model / "model.safetensors.index.json").write_text('{"weight_map": [')
        self.fails(model, words=["model.safetensors.index.json", "JSON"])

    def test_calibration(self):
        text = self.folder / "text.txt"
        self.fails(BOOK, recipe="int8-int8_static", code=2, words=["int8-int8_static", "--calibrate"])
        self.fails(BOOK, "--calibrate", text, recipe="int8-int8_static", words=["text.txt"])
        for content, words in [(b"", ["text.txt", "empty"]), (b"a\xff", ["text.txt", "UTF-8", "offset 1"])]:
            text.write_bytes(content)
            self.fails(BOOK, "--calibrate", text, recipe="int8-int8_static", words=words)
        self.fails(BOOK, "--calibrate", text, "--calibrate-tokens", 0, recipe="int8-int8_static", code=2, words=["--calibrate-tokens", "0 not in range 1"])

    def test_words(self):
        self.fails(BOOK, recipe="mxfp8-mxfp9", code=2, words=["mxfp8-mxfp9", "did you mean 'mxfp8-mxfp8'"])
        self.fails(BOOK, "--dialect", "compresed-tensors", code=2, words=["did you mean 'compressed-tensors'"])
        self.fails(BOOK, "--dialect", "torchao", recipe="codebook4_g64-bf16", code=2, words=["torchao", "codebook4_g64-bf16"])
        self.fails(BOOK, "--scales", "sometimes", code=2, words=["sometimes"])
        self.fails(self.folder / "nowhere", words=["nowhere"])
        self.fails("no/model-of-this-name", words=["no/model-of-this-name"])
        self.refused("quantise", BOOK, code=2, words=["did you mean 'quantize'"])

    def test_shape_does_not_fit(self):
        self.fails(BOOK, recipe="int4_g512-bf16", words=["down_proj", "768", "512", "--allow-skip"])

    def test_output(self):
        self.out.mkdir()
        self.fails(BOOK, words=[str(self.out), "exists"])
        self.out.rmdir()
        self.refused("quantize", BOOK, "--recipe", "int8", "-o", self.folder / "no" / "out", words=[str(self.folder / "no")])
        (self.folder / "file").write_text("")
        self.refused("quantize", BOOK, "--recipe", "int8", "-o", self.folder / "file" / "out", words=["file"])
        self.refused("quantize", BOOK, "--recipe", "int8", "-o", "/proc/lowp-out", words=["/proc/lowp-out"])  # even root cannot write there
        self.assertEqual(self.names(), ["file"])
        for out in ("", ".", "/"):
            self.assertNotEqual(lowp_cli.run("quantize", BOOK, "--recipe", "int8", "-o", out).code, 0)

    def test_disk_full(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        self.fails(BOOK, words=["model.safetensors", "write"], limit=limit)
        write_file(self.folder / "in.safetensors", {"a": normal(512, 2048)})
        before = self.names()
        self.refused("cast", self.folder / "in.safetensors", "--format", "int8", "-o", self.folder / "x", words=["write"],
                     limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)))
        self.assertEqual(self.names(), before)

    def test_cast(self):
        write_file(self.folder / "in.safetensors", {"w": normal(4, 48)})
        path, out = self.folder / "in.safetensors", self.folder / "x"
        self.refused("cast", path, "--format", "mxpf8", "-o", out, code=2, words=["did you mean 'mxfp8'"])
        self.refused("cast", path, "--format", "mxfp8", "-o", out, words=["'w'", "48", "32"])
        self.refused("cast", path, "--format", "fp8", "-o", out, "--device", "cuda:0", code=2, words=["cuda:0"])
        self.refused("cast", path, "-o", out, code=2, words=["--format"])
        self.refused("cast", path, "--decode", "-o", out, code=2, words=["--format"])
        self.refused("cast", self.folder / "none", "--format", "fp8", "-o", out, words=["none"])
        self.refused("cast", path, "--format", "int8", "-o", self.folder / "no" / "x", words=[str(self.folder / "no")])
        self.refused("cast", path, "--format", "int8", "-o", path / "x", words=[str(path / "x")])
        self.assertEqual(self.names(), ["in.safetensors"])


class Run(Case):
    """Commands that run a model."""

    def setUp(self):
        super().setUp()
        self.text = self.folder / "text.txt"
        self.text.write_text("The old gentleman sat down by the fire. " * 100)

    def copy(self, **config):
        model = self.folder / "m"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(BOOK, model)
        if config:
            (model / "config.json").write_text(json.dumps(json.loads((BOOK / "config.json").read_text()) | config))
        return model

    def fails(self, model, *words, code=1):
        self.refused("eval", model, "--text", self.text, code=code, words=words)
        self.refused("generate", model, "-p", "He", code=code, words=words)

    def test_models(self):
        self.fails(self.copy(architectures=["NoSuchForCausalLM"]), "config.json", "NoSuchForCausalLM")
        self.fails(self.copy(architectures=None), "config.json", "architecture null")
        self.fails(self.copy(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "dynamic")
        self.fails(self.copy(hidden_act="gelu"), "gelu")
        for field, value in [("hidden_size", "256"), ("rms_norm_eps", -1), ("rope_theta", "big"), ("max_position_embeddings", 0),
                             ("max_position_embeddings", 1e30), ("eos_token_id", 2.5)]:
            self.fails(self.copy(**{field: value}), "config.json", field, "expected")
        self.fails(self.copy(num_hidden_layers=10**9), "config.json", "num_hidden_layers", "1000000000")
        model = self.copy()
        (model / "config.json").unlink()
        self.fails(model, "config.json")

    def test_files(self):
        tensors, name = read_file(BOOK / "model.safetensors")[0], "model.layers.0.self_attn.q_proj.weight"
        whole, shape = (BOOK / "model.safetensors").read_bytes(), tensors[name].shape
        integers = Tensor("I32", shape, bytes(4 * lowp_cli.count(shape)))
        for what, content, words in [("truncated", whole[:-1000], ["model.safetensors"]), ("no header", whole[:5], ["model.safetensors"]),
                                     ("missing", {n: t for n, t in tensors.items() if n != name}, [f"'{name}'", "missing"]),
                                     ("type", tensors | {name: integers}, [f"'{name}'", "expected", "found I32"]),
                                     ("shape", tensors | {name: normal(3, 5)}, [f"'{name}'", "[3, 5]"])]:
            with self.subTest(what):
                model = self.copy()
                (model / "model.safetensors").write_bytes(content if isinstance(content, bytes) else lowp_cli.file_bytes(content))
                self.fails(model, *words)

    def test_head(self):
        """Another matrix in its place would be a silent fallback."""
        self.fails(self.copy(tie_word_embeddings=False), "lm_head.weight", "missing", "tie_word_embeddings")

    def test_more_tokens_than_the_model_has(self):
        tensors, name = read_file(BOOK / "model.safetensors")[0], "model.embed_tokens.weight"
        rows = Tensor("BF16", (100, 256), tensors[name].data[:100 * 256 * 2])
        model = self.copy(vocab_size=100)
        write_file(model / "model.safetensors", tensors | {name: rows})
        self.fails(model, "token id", "100")
        task = self.folder / "task.jsonl"
        task.write_text('{"context": "The old", "choices": ["gentleman", "fire"], "answer": 0}\n')
        for options in (["--text", self.text, "--method", "rolling"], ["--task", task]):
            self.refused("eval", model, *options, words=["token id", "100"])
        self.refused("quantize", model, "--recipe", "int8-int8_static", "--calibrate", self.text, "-o", self.folder / "out", words=["token id", "100"])
        self.refused("eval", self.copy(bos_token_id=8192), "--text", self.text, "--method", "rolling", words=["config.json", "8192"])

    def test_a_million_merges(self):
        tokenizer = json.loads((BOOK / "tokenizer.json").read_text())
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:1] * 10**6
        model = self.copy()
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.lowp("generate", model, "-p", "He", "-n", 1, timeout=60)
        tokenizer["model"]["merges"][-1] = ["no such", "tokens"]
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.fails(model, "tokenizer.json", "no such")

    def test_tokenizer(self):
        whole = (BOOK / "tokenizer.json").read_bytes()
        for content in (None, whole[:1000], b"{}", b'{"model": {"type": "WordPiece"}}', whole.replace(b'"BPE"', b"7"), b"\xff\xfe"):
            model = self.copy()
            (model / "tokenizer.json").unlink()
            if content is not None:
                (model / "tokenizer.json").write_bytes(content)
            with self.subTest(content and content[:20]):
                self.fails(model, "tokenizer.json")

    def test_texts(self):
        for content, words in [(b"", ["empty"]), (b"short", ["512"]), (b"ab\xff", ["text.txt", "UTF-8", "offset 2"])]:
            self.text.write_bytes(content)
            self.refused("eval", BOOK, "--text", self.text, words=words)
        self.refused("eval", BOOK, "--text", self.folder / "none", words=["none"])
        self.refused("eval", BOOK, code=2, words=["--text"])

    def test_values(self):
        self.refused("eval", BOOK, "--text", self.text, "--context", 2048, code=2, words=["2048", "1024"])
        for flag, value in [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "2"), ("--min-p", "-0.5"), ("--top-k", "-3")]:
            self.refused("generate", BOOK, "-p", "He", flag, value, code=2, words=[flag])
        for value, word in [(0, "0 not in range 1"), (-5, "-5 not in range 1"), (1, "context 1"), ("x", "x")]:
            self.assertLess(len(self.refused("eval", BOOK, "--text", self.text, "--context", value, code=2, words=["context", word])), 200)
        message = self.refused("generate", BOOK, "-p", "word " * 3000, words=["1024"])
        self.assertTrue([n for n in re.findall(r"\d+", message) if int(n) > 2900], message)  # the prompt's length beside the context's
        self.refused("generate", BOOK, "-p", "He", "--device", "cuda:9", code=2, words=["cuda:9"])
        self.refused("eval", BOOK, "--text", self.text, "--device", "cuda:9", code=2, words=["cuda"])

    def test_tasks(self):
        for line in ("{", "[]", '{"context": "a"}', '{"context": "a", "choices": ["b"], "answer": 0}', '{"context": "a", "choices": ["b", "c"], "answer": 2}',
                     '{"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"}'):
            self.text.write_text("\n" + line + "\n")
            with self.subTest(line):
                self.refused("eval", BOOK, "--task", self.text, words=["line 2"])
        self.text.write_text("\n")
        self.refused("eval", BOOK, "--task", self.text, words=["no questions"])


if __name__ == "__main__":
    lowp_cli.main()
