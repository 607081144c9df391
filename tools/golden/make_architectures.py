"""Writes tests/golden/arch_NAME.safetensors: a tiny seeded model of an architecture with what transformers makes of it.

    python make_architectures.py ../../tests/golden [NAME ...]

Holds the model as transformers saves it in bf16, `expected/tokens` [prompts, n] and `expected/logits_<dtype>` [prompts, n,
vocab] in eager mode, the first tokens of a prompt in one call and then one after the other with the cache of keys and
values; the config.json is under `config` of the metadata. gpt_oss_mxfp4 has its experts as gpt-oss's checkpoints have
them: random MXFP4, which transformers decodes. transformers 5, torch 2.13, CPU.
"""

import argparse
import json
import pathlib
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

COMMON = dict(
    vocab_size=64, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    attn_implementation="eager",
)  # fmt: skip
EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2, num_hidden_layers=2, experts_implementation="eager")
YARN = dict(
    rope_type="yarn", rope_theta=100.0, factor=8.0, beta_fast=4.0, beta_slow=0.5, truncate=False,
    original_max_position_embeddings=64,
)  # fmt: skip


def gpt_oss(inner):
    return GptOssForCausalLM(GptOssConfig(
        **COMMON, **EXPERTS, intermediate_size=inner, head_dim=8, sliding_window=7, rope_parameters=YARN,
    ))  # fmt: skip


MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(
        **COMMON, intermediate_size=48, num_hidden_layers=3, rope_theta=1e6, use_sliding_window=True, sliding_window=7,
        max_window_layers=2, tie_word_embeddings=False,
    )),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(
        **COMMON, intermediate_size=48, num_hidden_layers=3, head_dim=16, query_pre_attn_scalar=24, sliding_window=7,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )),
    "mistral": lambda: MistralForCausalLM(MistralConfig(
        **COMMON, intermediate_size=48, num_hidden_layers=3, head_dim=12, sliding_window=7,
    )),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**COMMON, **EXPERTS, intermediate_size=24, sliding_window=7)),
    "gpt_oss": lambda: gpt_oss(24),
    "gpt_oss_mxfp4": lambda: gpt_oss(32),
}  # fmt: skip
# By which the last expert chosen and the first that is not are 0.049 apart at least: bf16 chooses the same ones.
SEEDS = {"mixtral": 65, "gpt_oss": 116, "gpt_oss_mxfp4": 57}
PROMPTS, TOKENS, FIRST = 2, 20, 12
MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
    ],
}  # fmt: skip


def randomize(model):
    """Weights of trained size: norms around their neutral value, products that neither vanish nor explode. Gates of
    gpt-oss are larger, so that clamping shows."""
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            neutral = 0.0 if isinstance(model, Gemma3ForCausalLM) else 1.0
            p.copy_(neutral + 0.3 * torch.randn(p.shape))
        else:
            p.copy_(torch.randn(p.shape) * (0.3 if p.ndim == 1 else 1.5 * p.shape[-1] ** -0.5))
        if isinstance(model, GptOssForCausalLM) and name.endswith("gate_up_proj"):
            p.mul_(3)


def put_mxfp4(model, tensors):
    """Replaces the experts by random codes and scales, in the model by what transformers decodes of them."""
    for name, p in model.named_parameters():
        if not name.endswith(("gate_up_proj", "down_proj")):
            continue
        experts, k, n = p.shape
        blocks = torch.randint(0, 256, (experts, n, k // 32, 16), dtype=torch.uint8)
        scales = torch.randint(123, 126, (experts, n, k // 32), dtype=torch.uint8)
        p.copy_(convert_moe_packed_tensors(blocks, scales))
        del tensors[name]
        tensors |= {name + "_blocks": blocks, name + "_scales": scales}


def logits(model, tokens):
    """Of each prompt by itself."""
    found = []
    for prompt in tokens:
        cache = DynamicCache(config=model.config)
        parts = [prompt[:FIRST], *prompt[FIRST:].split(1)]
        found.append(torch.cat([model(part[None], cache=cache).logits[0] for part in parts]))
    return torch.stack(found).float()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help=", ".join(MODELS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names or MODELS:
        torch.manual_seed(SEEDS.get(name, 7))
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            model = MODELS[name]().eval()
            randomize(model)
            model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
            config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
            model.to(torch.bfloat16).save_pretrained(folder)
            tensors = load_file(folder + "/model.safetensors")
            model.to(torch.float32)
            if name.endswith("mxfp4"):
                put_mxfp4(model, tensors)
                config["quantization_config"] = MXFP4
            buffers = {k: v.clone() for k, v in MODELS[name]().named_buffers()}  # RoPE's frequencies stay in f32
            tokens = torch.randint(0, COMMON["vocab_size"], (PROMPTS, TOKENS))
            tensors["expected/tokens"] = tokens.int()
            for word, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
                model.to(dtype)
                for k, v in buffers.items():
                    module, _, field = k.rpartition(".")
                    setattr(model.get_submodule(module), field, v)
                tensors["expected/logits_" + word] = logits(model, tokens)
        metadata = {
            "config": json.dumps(config),
            "versions": f"transformers {transformers.__version__}, torch {torch.__version__}",
        }
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        save_file(tensors, args.out / f"arch_{name}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
