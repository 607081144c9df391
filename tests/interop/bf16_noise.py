"""How far bf16 runs of one model lie apart that differ in nothing but the order of sums or the attention kernel.

    python bf16_noise.py TEXT MODEL...     (torch, transformers; CPU)

Prints mean KL divergences over the first 2,048 tokens of TEXT in windows of 512, in nats: of transformers' eager bf16
against itself with oneDNN off, against its sdpa attention, and of its f32 against its bf16.
"""

import sys

import tokenizers
import torch
import transformers

WINDOW, WINDOWS = 512, 4


def load(folder, attention, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    if getattr(model.config, "num_experts", None):
        model.set_experts_implementation("eager")
    return model.eval()


def log_probabilities(model, windows):
    rows = [torch.log_softmax(model(w[None], use_cache=False).logits[0].double(), -1) for w in windows]
    return torch.cat(rows)


def kl(p, q):
    return (p.exp() * (p - q)).sum(-1).mean().item()


def main(text, *folders):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    for folder in folders:
        tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        ids = tokenizer.encode(open(text).read(), add_special_tokens=False).ids[: WINDOW * WINDOWS]
        windows = torch.tensor(ids).reshape(WINDOWS, WINDOW)
        eager = load(folder, "eager", torch.bfloat16)
        usual = log_probabilities(eager, windows)
        torch.backends.mkldnn.enabled = False
        other_sums = log_probabilities(eager, windows)
        torch.backends.mkldnn.enabled = True
        sdpa = log_probabilities(load(folder, "sdpa", torch.bfloat16), windows)
        exact = log_probabilities(load(folder, "eager", torch.float32), windows)
        print(
            f"{folder}: other order of sums {kl(usual, other_sums):.2e}, sdpa {kl(usual, sdpa):.2e}, "
            f"f32 against bf16 {kl(exact, usual):.2e}"
        )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
