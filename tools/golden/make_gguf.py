"""Writes golden GGUF files with the `gguf` package (0.17 or later), for the reader:

    python make_gguf.py ../../tests/golden

`gguf_blocks.gguf` has a tensor of random blocks of every type, `gguf_blocks.safetensors` the values that the package
makes of them. `gguf_llama.gguf` is a tiny seeded Llama whose q and k have their rows in the order that llama.cpp's
converter gives them, with a few tokens and transformers' logits as `expected.tokens` and `expected.logits`.
"""

import argparse
import pathlib

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

TYPES = (
    "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4".split()
)
ROWS, COLUMNS = 2, 256
# Offsets of the f16 parameters in a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip


def random_blocks(rng, name):
    if name in ("F32", "F16", "BF16"):
        values = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
        return gguf.quants.quantize(values, T[name])
    values, size = gguf.GGML_QUANT_SIZES[T[name]]
    blocks = rng.integers(0, 256, (ROWS * COLUMNS // values, size), dtype=np.uint8)
    for at in HALVES.get(name, []):
        halves = (rng.standard_normal(len(blocks)) * 0.1).astype(np.float16)
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
    if name == "TQ2_0":  # a fourth digit has no meaning
        packed = rng.integers(0, 3, (len(blocks), 64, 4), dtype=np.uint8)
        blocks[:, :64] = packed[..., 0] | packed[..., 1] << 2 | packed[..., 2] << 4 | packed[..., 3] << 6
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(0, 140, len(blocks))
    return blocks.reshape(ROWS, -1)


def write_blocks(out):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / "gguf_blocks.gguf", "none")
    values = {}
    for name in TYPES:
        data = random_blocks(rng, name)
        raw = data if name in ("F32", "F16") else data.view(np.uint8)
        writer.add_tensor(name, raw, raw_dtype=None if name in ("F32", "F16") else T[name])
        values[name] = gguf.quants.dequantize(data, T[name]).astype(np.float32).reshape(ROWS, COLUMNS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, out / "gguf_blocks.safetensors")


def paired(weight, heads):
    """Rows of each head from halves (i, i + d/2) to neighbours (2 i, 2 i + 1)."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_llama(out):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    with torch.no_grad():
        model = LlamaForCausalLM(config)
        for name, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn(p.shape) if "norm" in name else torch.randn(p.shape) * p.shape[-1] ** -0.5)
            p.copy_(p.to(torch.float16))  # not model.to(): that rounds the frequencies of RoPE as well
        tokens = torch.randint(0, 64, (16,))
        logits = model(tokens[None]).logits[0]
    writer = gguf.GGUFWriter(out / "gguf_llama.gguf", "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_array("expected.tokens", [int(t) for t in tokens])
    writer.add_array("expected.logits", [float(x) for x in logits.flatten()])
    for name, tensor in model.state_dict().items():
        data = tensor.numpy()
        stem = name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            _, _, layer, rest = stem.split(".", 3)
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                data = paired(data, 4 if rest.endswith("q_proj") else 2)
            stem = f"blk.{layer}.{NAMES[rest]}"
        else:
            stem = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem]
        writer.add_tensor(stem + ".weight", data if data.ndim == 1 else data.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    write_blocks(out)
    write_llama(out)


if __name__ == "__main__":
    main()
