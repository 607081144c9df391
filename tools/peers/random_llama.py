#!/usr/bin/env python3
"""Writes a checkpoint in the shapes of Llama-3.2-1B with random weights: to time servers with, when the real one is not there.

    python tools/peers/random_llama.py TOKENIZER_FOLDER OUT

Needs torch and safetensors. The tokenizer is that of TOKENIZER_FOLDER (byte-level BPE, as models/bookworm-8m), with more words for
the ids that it lacks, so that every id is a text to every server.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 128256, 2048, 8192, 16, 32, 8, 64


def main():
    source, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    known = {*words.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    words.update({f"\u0120x{i:06d}": i for i in range(VOCAB) if i not in known})
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    for name in ("tokenizer_config.json", "generation_config.json"):
        (out / name).write_text((source / name).read_text())
    eos = json.loads((source / "config.json").read_text())["eos_token_id"]
    (out / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "attention_bias": False, "mlp_bias": False, "bos_token_id": eos, "eos_token_id": eos}, indent=1))

    random = torch.Generator().manual_seed(0)

    def weight(*shape):
        return (torch.randn(*shape, generator=random) * 0.02).to(torch.bfloat16)

    shapes = {"self_attn.q_proj": (HEADS * HEAD, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN), "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
              "self_attn.o_proj": (HIDDEN, HEADS * HEAD), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
    norm = torch.ones(HIDDEN, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": weight(VOCAB, HIDDEN), "model.norm.weight": norm}
    for i in range(LAYERS):
        for name, shape in shapes.items():
            tensors[f"model.layers.{i}.{name}.weight"] = weight(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = norm.clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
