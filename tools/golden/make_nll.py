"""Writes golden data of forward passes: what torchao and transformers make of a model and a text.

    python make_nll.py MODEL_DIR TEXT OUT.json                  NLL of every recipe
    python make_nll.py --forward TEXT OUT.safetensors MODEL...  logits, greedy tokens, RoPE tables

(torchao 0.18, torch 2.13, transformers 5, CPU eager, one thread; --recipes picks some.)

NLL: all Linears except lm_head and routers are quantized from the checkpoint's bf16 values, scales
per matrix, and the model of transformers runs with them in the compute dtype D. Method disjoint:
windows of 512 tokens, each a call of its own, remainder dropped, tokens 1..511 scored, no BOS;
mean in nats of the float32 log-softmax. An expert's call is the tokens of the window routed to it.

How y = x W^T is computed, sums in f32 unless said otherwise:
    fp8, int8 on both sides, int8 weights alone, int8_asym: F.linear of torchao's tensor classes
        fp8     D(sum qx qw * sx * sw)
        int8    D(sum(int32) * sx) [- D(zero point's part)], then D(that * sw)
        int8, weights only   D(D(x qw^T) * D(sw))
        intx with int8_asym  x quantized and dequantized in D, times W dequantized to D
    other weight-only recipes, MX on both sides: both dequantized to D and multiplied
    nvfp4 with tensor scales   D(D(sum codes * block scales) * D(gx * gw)); gx per token for
        `nvfp4`, which torchao does not have (NOT TORCHAO)
    fp8_block128, nvfp4_single, and mixed recipes: D(sum of the exact products). Mixed recipes are
        torchao's quantizers side by side, but have no config there (NOT TORCHAO).
    int4_g128_sym8-fp8 quantizes its activation like fp8-fp8 (torch path: bf16 input, bf16 scale).
"""

import argparse
import functools
import hashlib
import json
import math
import pathlib
import re
import subprocess
import time

import torch
import torch.nn.functional as F
import torchao
import transformers
from make_casts import (
    ASYM,
    MX_ELEMS,
    SYM,
    codebook,
    hqq,
    int4_float,
    int4_sym8,
    intx_tensor,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchao.float8.inference import Float8MMConfig
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.mx_tensor import to_dtype, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization import PerBlock, PerGroup, PerRow, PerTensor
from torchao.quantization.quantize_.common import KernelPreference
from torchao.quantization.quantize_.workflows import Float8Tensor, Int8Tensor
from torchao.quantization.quantize_.workflows.float8.float8_tensor import (
    QuantizeTensorToFloat8Kwargs,
)
from torchao.quantization.quantize_.workflows.int8.int8_tensor import QuantizeTensorToInt8Kwargs
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8TensorActivationQuantization as IntxActivation,
)
from transformers import AutoModelForCausalLM
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ROOT = pathlib.Path(__file__).resolve().parents[2]
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
CONTEXT = 512
EXTRA = (
    "nvfp4-int8 mxfp4-fp8 mxfp4-int8 mxfp4-int8_g32 mxfp8-bf16 mxfp6-bf16 int8_tensor-bf16".split()
)
ALSO_F32 = (
    "bf16 fp8-fp8 fp8-bf16 int8-int8 int8-int8_asym int4_g128-bf16 int4_g32-int8_asym "
    "mxfp8-mxfp8 mxfp4-mxfp4 nvfp4-nvfp4 nvfp4_single-nvfp4_single mxfp4-int8".split()
)


# ---------------------------------------------------------------- quantized values
# A word of a recipe, and a tensor, to a function of the dtype that dequantizes into it.

FP8_GRANULARITY = {
    "fp8": PerRow(),
    "fp8_tensor": PerTensor(),
    "fp8_block128": PerBlock([128, 128]),
    "fp8_group128": PerBlock([1, 128]),
}
INT8_GRANULARITY = {"int8": PerRow(), "int8_tensor": PerTensor(), "int8_g32": PerGroup(32)}


def fp8(x, word, **kwargs):
    granularity, torch_path = FP8_GRANULARITY[word], KernelPreference.TORCH
    return Float8Tensor.from_hp(
        x, granularity=granularity, kernel_preference=torch_path, **kwargs
    )


def mx(x, word):
    elem = MX_ELEMS[word][0]
    scale, data = to_mx(x, elem, 32, ScaleCalculationMode.RCEIL)
    return functools.partial(to_dtype, data, scale, elem, 32)


def nvfp4_scale(x):
    return per_tensor_amax_to_scale(x.abs().max())


def intx(w, word, activation=None):
    """int<B>_g<G>[_asym] or int<B>_channel[_asym]"""
    bits, group, asym = re.fullmatch(r"int(\d)_(?:g(\d+)|channel)(_asym)?", word).groups()
    t = intx_tensor(w, int(bits), int(group or 0), ASYM if asym else SYM)
    t.activation_quantization = activation
    return t


def in_own_dtype(w, values):
    """For formats whose dequantization torchao only defines in the weight's dtype."""

    def to(dtype):
        assert dtype == w.dtype
        return values

    return to


def quantize(x, word):
    if word in FP8_GRANULARITY:
        return fp8(x, word).dequantize
    if word in INT8_GRANULARITY:
        return Int8Tensor.from_hp(x, INT8_GRANULARITY[word]).dequantize
    if word in MX_ELEMS:
        return mx(x, word)
    if word == "nvfp4":
        return NVFP4Tensor.to_nvfp4(x, per_tensor_scale=nvfp4_scale(x)).dequantize
    if word == "nvfp4_single":
        return NVFP4Tensor.to_nvfp4(x).dequantize
    if word == "int4_g128_sym8":
        fields, _ = int4_sym8(x)
        values = fields["data"].float() * fields["scale"].repeat_interleave(128, -1)
        return values.to
    if word == "codebook4_g64":
        return in_own_dtype(x, codebook(x))
    if word == "int4_g64_float_hqq":
        return in_own_dtype(x, hqq(x))
    if found := re.fullmatch(r"int4_g(\d+)_float", word):
        return in_own_dtype(x, int4_float(int(found[1]))(x)[1])
    t = intx(x, word)
    return lambda dtype: t.to(dtype=dtype).dequantize()


# ---------------------------------------------------------------- a Linear under a recipe
# Each builds, from a weight and the compute dtype, the function of x [tokens, k].


def class_linear(t):
    return lambda x: F.linear(x, t)


def fp8_linear(w, word):
    act = QuantizeTensorToFloat8Kwargs(
        granularity=FP8_GRANULARITY[word], kernel_preference=KernelPreference.TORCH
    )
    return class_linear(fp8(w, word, mm_config=Float8MMConfig(), act_quant_kwargs=act))


def int8_linear(w, granularity, act_mapping=None):
    act = act_mapping and QuantizeTensorToInt8Kwargs(PerRow(), act_mapping)
    return class_linear(Int8Tensor.from_hp(w, granularity, act_quant_kwargs=act))


def nvfp4_linear(w, per_token, dtype):
    gw = nvfp4_scale(w)
    codes_w = unscaled(NVFP4Tensor.to_nvfp4(w, per_tensor_scale=gw))

    def run(x):
        if per_token:  # torchao's 3D form has a scale for each matrix: here each is a token
            g = x.abs().amax(-1)[:, None, None].float() / 2688
            codes = unscaled(NVFP4Tensor.to_nvfp4(x[:, None], per_tensor_scale=g))[:, 0]
        else:
            g = nvfp4_scale(x)
            codes = unscaled(NVFP4Tensor.to_nvfp4(x, per_tensor_scale=g))
        y = (codes @ codes_w.T).to(dtype)
        return y * (g * gw).reshape(-1, 1).to(dtype)

    return run


def unscaled(t):
    """Codes times block scales, without the second level."""
    t.per_tensor_scale = None
    return t.dequantize(torch.float32)


def quantized_linear(recipe, w, dtype):
    if recipe == "bf16":
        return functools.partial(F.linear, weight=w.to(dtype))
    weight, activation = recipe.split("-")
    if activation == "bf16":
        if weight in ("int8", "int8_tensor"):
            return int8_linear(w, INT8_GRANULARITY[weight])
        return functools.partial(F.linear, weight=quantize(w, weight)(dtype))
    if weight == activation and weight in ("fp8", "fp8_tensor"):
        return fp8_linear(w, weight)
    if weight == "int8" and activation in ("int8", "int8_asym"):
        return int8_linear(w, PerRow(), SYM if activation == "int8" else ASYM)
    if activation == "int8_asym":
        return class_linear(intx(w, weight, IntxActivation.INT8_ASYM_PER_TOKEN).to(dtype=dtype))
    if activation in ("nvfp4", "nvfp4_tensor"):
        return nvfp4_linear(w, activation == "nvfp4", dtype)
    # MX: torchao's emulated product takes both in D, which loses nothing but in bf16's subnormals.
    inner = dtype if weight in MX_ELEMS and activation in MX_ELEMS else torch.float32
    values = quantize(w, weight)(inner)
    return lambda x: F.linear(quantize(x, activation)(inner), values).to(dtype)


# ---------------------------------------------------------------- the model


class FastProducts(TorchDispatchMode):
    """Products of bf16 and int8 matrices by way of f32, for CPUs where torch's own are slow.

    torch sums bf16 products in f32 and rounds once: so does this, in another order. The integer
    sums are exact, being below 2^24.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten, kwargs = torch.ops.aten, kwargs or {}
        if not all(type(x) is torch.Tensor for x in args):
            return func(*args, **kwargs)
        a, b = args[:2] if len(args) >= 2 else (None, None)
        if func in (aten.mm.default, aten.bmm.default) and a.dtype == torch.bfloat16:
            return func(a.float(), b.float()).bfloat16()
        if func is aten._int_mm.default:
            assert a.shape[1] * 128 * 128 <= 2**24
            return aten.mm.default(a.float(), b.float()).int()
        return func(*args, **kwargs)


class Linear(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, x):
        return self.run(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class Experts(nn.Module):
    """transformers' eager loop over the experts, each matrix on its own."""

    def __init__(self, fused, run_of):
        super().__init__()
        self.act = fused.act_fn
        gate_up = [w.chunk(2) for w in fused.gate_up_proj]
        self.gate = [run_of(gate) for gate, _ in gate_up]
        self.up = [run_of(up) for _, up in gate_up]
        self.down = [run_of(w) for w in fused.down_proj]

    def forward(self, x, chosen, weights):
        total = torch.zeros_like(x)
        for e in range(len(self.gate)):
            token, rank = torch.where(chosen == e)
            if len(token) == 0:
                continue
            part = x[token]
            part = self.down[e](self.act(self.gate[e](part)) * self.up[e](part))
            total.index_add_(0, token, part * weights[token, rank, None])
        return total


def load(folder, dtype):
    kwargs = dict(dtype=dtype, attn_implementation="eager")
    model = AutoModelForCausalLM.from_pretrained(folder, **kwargs).eval()
    if hasattr(model.config, "num_experts"):
        model.set_experts_implementation("eager")
    return model


class Quantizable:
    """A model of transformers whose Linears and experts can be replaced, again and again."""

    def __init__(self, folder, dtype):
        self.model, self.dtype, self.originals = load(folder, dtype), dtype, []
        for module in list(self.model.modules()):
            for name, child in list(module.named_children()):
                linear = isinstance(child, nn.Linear) and name != "lm_head"
                if linear or hasattr(child, "gate_up_proj"):
                    self.originals.append((module, name, child))

    def quantize(self, recipe):
        def run_of(w):
            return quantized_linear(recipe, w.bfloat16().contiguous(), self.dtype)

        for parent, name, child in self.originals:
            if isinstance(child, nn.Linear):
                setattr(parent, name, Linear(run_of(child.weight)))
            else:
                setattr(parent, name, Experts(child, run_of))

    def nll(self, windows):
        total = 0.0
        for window in windows:
            with FastProducts():
                logits = self.model(window[None], use_cache=False).logits[0]
            total += token_nll(logits, window).double().sum().item()
        return total / (windows.shape[0] * (windows.shape[1] - 1))


def token_nll(logits, tokens):
    """Negative log-likelihood of tokens 1.. by the logits before them."""
    return F.cross_entropy(logits[:-1].float(), tokens[1:], reduction="none")


def encode(folder, text):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)


def demo_recipes():
    lowp = [ROOT / "build/lowp", "recipes", "--demo"]
    return subprocess.run(lowp, capture_output=True, text=True, check=True).stdout.split()


def evaluate(args):
    text = args.text.read_bytes()
    tokens = encode(args.model, text.decode())
    windows = tokens[: len(tokens) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    recipes = args.recipes or demo_recipes() + EXTRA
    results = []
    for compute, dtype in DTYPES.items():
        model = Quantizable(args.model, dtype)
        for recipe in recipes if compute == "bf16" else [r for r in recipes if r in ALSO_F32]:
            start = time.time()
            model.quantize(recipe)
            nll = model.nll(windows)
            assert math.isfinite(nll)
            results.append({"recipe": recipe, "compute": compute, "nll": round(nll, 6)})
            print(f"{compute:5} {recipe:28} {nll:.5f}  {time.time() - start:.1f} s", flush=True)
    head = {
        "model": args.model.name,
        "text": args.text.name,
        "text_sha256": hashlib.sha256(text).hexdigest(),
        "method": "disjoint",
        "context": CONTEXT,
        "tokens": len(tokens),
        "scored": windows.shape[0] * (CONTEXT - 1),
        "versions": versions(),
    }
    lines = ",\n    ".join(json.dumps(r) for r in results)
    body = json.dumps(head, indent=2)[:-2]
    args.out.write_text(f'{body},\n  "results": [\n    {lines}\n  ]\n}}\n')


def versions():
    modules = {"torch": torch, "torchao": torchao, "transformers": transformers}
    return ", ".join(f"{name} {m.__version__.split('+')[0]}" for name, m in modules.items())


# ---------------------------------------------------------------- logits, greedy tokens, RoPE
# <model>/tokens [64]; <model>/<compute>/top_ids, top_logits [64, 20], nll [63]
# <model>/greedy<i>/prompt (UTF-8), prompt_ids; <model>/<compute>/greedy<i>/ids [32],
#     top2 [32, 2], gap [32]: the two best ids of each step and the difference of their logits
# rope/positions; rope/<name>/config (JSON of the fields of config.json), cos, sin [10, 64]

PREFIX, TOP, STEPS = 64, 20, 32
PROMPTS = (
    "The old house stood at the end of the lane, and",
    '"I do not believe a word of it," said the doctor,',
    "It was a fine morning in the month of June, when the two brothers",
    "Chapter I.\n\nMy father was",
)
POSITIONS = [*range(8), 100, 5000]
YARN = dict(rope_type="yarn", factor=4.0)
ROPES = {
    "default": (10000.0, 4096, None),
    "linear": (10000.0, 16384, dict(rope_type="linear", factor=4.0)),
    "llama3": (
        500000.0, 131072,
        dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=8192),
    ),
    "llama3_factor32": (
        500000.0, 131072,
        dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=8192),
    ),
    "yarn": (1000000.0, 131072, dict(YARN, original_max_position_embeddings=32768)),
    "yarn_betas": (
        150000.0, 131072,
        dict(YARN, factor=32.0, beta_fast=16.0, beta_slow=2.0, truncate=False,
             original_max_position_embeddings=4096),
    ),
    "yarn_attention": (
        10000.0, 16384,
        dict(YARN, attention_factor=1.25, original_max_position_embeddings=4096),
    ),
    "yarn_mscale": (
        10000.0, 163840,
        dict(YARN, factor=40.0, mscale=1.0, mscale_all_dim=0.5,
             original_max_position_embeddings=4096),
    ),
}  # fmt: skip


def u8(text):
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def rope_tables():
    out = {"rope/positions": torch.tensor(POSITIONS, dtype=torch.int32)}
    for name, (theta, length, scaling) in ROPES.items():
        fields = {
            "head_dim": 64,
            "rope_theta": theta,
            "max_position_embeddings": length,
            "rope_scaling": scaling,
        }
        config = LlamaConfig(
            hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            max_position_embeddings=length,
            rope_parameters=dict(scaling or {"rope_type": "default"}, rope_theta=theta),
        )  # fmt: skip
        rope = LlamaRotaryEmbedding(config)
        cos, sin = rope(torch.zeros(1), torch.tensor([POSITIONS]))
        out[f"rope/{name}/config"] = u8(json.dumps(fields))
        out |= {f"rope/{name}/cos": cos[0], f"rope/{name}/sin": sin[0]}
    return out


def greedy(model, ids):
    """With the key-value cache; an end-of-text token does not stop it."""
    steps, cache, x = [], None, ids[None]
    for _ in range(STEPS):
        result = model(x, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        best = result.logits[0, -1].float().topk(2)
        steps.append((best.indices, best.values[0] - best.values[1]))
        x = best.indices[:1][None]
    return torch.stack([top for top, _ in steps]).int(), torch.stack([gap for _, gap in steps])


def forward(args):
    out = rope_tables()
    text = args.text.read_text()
    for folder in args.models:
        name = folder.name
        tokens = encode(folder, text)[:PREFIX]
        prompts = [encode(folder, prompt) for prompt in PROMPTS]
        out[f"{name}/tokens"] = tokens.int()
        for i, prompt in enumerate(PROMPTS):
            out[f"{name}/greedy{i}/prompt"] = u8(prompt)
            out[f"{name}/greedy{i}/prompt_ids"] = prompts[i].int()
        for compute, dtype in DTYPES.items():
            model = load(folder, dtype)
            logits = model(tokens[None], use_cache=False).logits[0].float()
            top = logits.topk(TOP)
            out[f"{name}/{compute}/top_ids"] = top.indices.int()
            out[f"{name}/{compute}/top_logits"] = top.values
            out[f"{name}/{compute}/nll"] = token_nll(logits, tokens)
            for i, ids in enumerate(prompts):
                top2, gap = greedy(model, ids)
                key = f"{name}/{compute}/greedy{i}"
                out |= {f"{key}/ids": top2[:, 0], f"{key}/top2": top2, f"{key}/gap": gap}
    tensors = {name: t.contiguous().clone() for name, t in sorted(out.items())}
    save_file(tensors, args.out, metadata={"versions": versions()})
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    path = pathlib.Path
    parser.add_argument("--forward", action="store_true", help="TEXT OUT MODEL... instead")
    parser.add_argument("--recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("paths", nargs="+", type=path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with torch.no_grad():
        if args.forward:
            args.text, args.out, *args.models = args.paths
            forward(args)
        else:
            args.model, args.text, args.out = args.paths
            evaluate(args)


if __name__ == "__main__":
    main()
