"""Writes tests/golden/arch_NAME.safetensors: a tiny seeded model of an architecture with what transformers makes of it.

    python make_architectures.py ../../tests/golden

Holds the model's weights in bf16, `expected/tokens` [n] and `expected/logits_<dtype>` [n, vocab] of one call in eager
mode, and the config.json under `config` of the metadata. transformers 5, torch 2.13, CPU.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen2Config, Qwen2ForCausalLM

COMMON = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, attn_implementation="eager",
)  # fmt: skip
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(
        **COMMON, num_hidden_layers=3, rope_theta=1e6, use_sliding_window=True, sliding_window=7, max_window_layers=2,
        tie_word_embeddings=False,
    )),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(
        **COMMON, num_hidden_layers=3, head_dim=16, query_pre_attn_scalar=24, sliding_window=7,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )),
}  # fmt: skip
TOKENS = 24


def randomize(model):
    """Weights of trained size: norms around their neutral value, products that neither vanish nor explode."""
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            neutral = 0.0 if isinstance(model, Gemma3ForCausalLM) else 1.0
            p.copy_(neutral + 0.3 * torch.randn(p.shape))
        else:
            p.copy_(torch.randn(p.shape) * (0.3 if p.ndim == 1 else 1.5 * p.shape[-1] ** -0.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    for name, make in MODELS.items():
        torch.manual_seed(7)
        with torch.no_grad():
            model = make()
            randomize(model)
            tensors = {k: v.bfloat16() for k, v in model.state_dict().items()}
            model.load_state_dict({k: v.float() for k, v in tensors.items()})
            if model.config.tie_word_embeddings:
                del tensors["lm_head.weight"]
            tokens = torch.randint(0, COMMON["vocab_size"], (TOKENS,))
            tensors["expected/tokens"] = tokens.int()
            tensors["expected/logits_f32"] = model.eval()(tokens[None]).logits[0]
            buffers = {k: v.clone() for k, v in model.named_buffers()}  # RoPE's frequencies stay in f32
            model.to(torch.bfloat16)
            for k, v in buffers.items():
                module, _, field = k.rpartition(".")
                setattr(model.get_submodule(module), field, v)
            tensors["expected/logits_bf16"] = model(tokens[None]).logits[0].float()
        config = json.dumps({**model.config.to_dict(), "architectures": [type(model).__name__]})
        metadata = {"config": config, "versions": f"transformers {transformers.__version__}, torch {torch.__version__}"}
        save_file(tensors, out / f"arch_{name}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
