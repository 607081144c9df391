"""Compares lowp with llama.cpp (the package llama-cpp-python 0.3) on a GGUF model:

    python gguf_check.py LOWP MODEL.gguf TEXT [--tokenize TOKENIZE_LINES] [--ppl-tolerance 0.005] [--compute f32] [--batch 512]

Greedy continuations of ten prompts, 64 tokens each: equal, or at the first difference llama.cpp prefers its token by less
than 0.3. Perplexity of TEXT by the `half` method, within the tolerance. With --tokenize: ids of 10,000 strings made from
TEXT and of hard ones, equal. LOWP is the binary, TOKENIZE_LINES the one that the tests build.
"""

import argparse
import json
import math
import subprocess
import sys

import numpy as np
from llama_cpp import Llama
from varied_strings import strings

PROMPTS = [
    "The capital of France is", "Once upon a time, there was a", "def fibonacci(n):", "Water boils at",
    "The three primary colours are", "In 1969, the first man", "My favourite recipe for soup begins with",
    "La vie est", "To be, or not to be,", "A list of planets: Mercury, Venus,",
]  # fmt: skip


def check_ids(llama, args, text):
    made = strings(text, 10000)
    lines = "".join(json.dumps(s) + "\n" for s in made)
    result = subprocess.run([args.tokenize, args.model], input=lines, capture_output=True, text=True, check=True)
    ours = [json.loads(line) for line in result.stdout.splitlines()]
    different = [
        (s, a, b)
        for s, a in zip(made, ours)
        if s and a != (b := llama.tokenize(s.encode(), add_bos=False, special=True))
    ]
    print(f"token ids: {len(made) - len(different)} of {len(made)} strings equal")
    for s, a, b in different[:8]:
        print(f"  {s!r}: lowp {a}, llama.cpp {b}")
    return not different


def greedy(llama, ids, steps):
    """Tokens, and by how much each is preferred to the next best."""
    llama.reset()
    tokens, gaps = [], []
    llama.eval(ids)
    for _ in range(steps):
        logits = np.array(llama.scores[llama.n_tokens - 1])
        best, second = np.argsort(logits)[::-1][:2]
        tokens.append(int(best))
        gaps.append((float(logits[best] - logits[second]), int(second)))
        llama.eval([int(best)])
    return tokens, gaps


def check_greedy(llama, args):
    good, equal = 0, 0
    for prompt in PROMPTS:
        wanted, gaps = greedy(llama, llama.tokenize(prompt.encode(), add_bos=True, special=True), args.tokens)
        command = [args.lowp, "generate", args.model, "-p", prompt, "--temperature", "0", "--ignore-eos", "-n",
                   str(args.tokens), "--compute", args.compute, "--json"]  # fmt: skip
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["text"].encode()
        at = next((i for i in range(len(wanted)) if not found.startswith(llama.detokenize(wanted[: i + 1]))), None)
        ok = at is None or gaps[at][0] < 0.3
        good, equal = good + ok, equal + (at is None)
        if at is not None:
            print(f"  {prompt!r}: differs at {at}, gap {gaps[at][0]:.3f}")
    print(f"greedy: {good} of {len(PROMPTS)} prompts agree, {equal} to the last of {args.tokens} tokens")
    return good == len(PROMPTS)


def half_perplexity(llama, text, context):
    ids = llama.tokenize(text.encode(), add_bos=True, special=False)
    adds_bos = llama.tokenize(b"a", add_bos=True)[0] == llama.token_bos() if llama.token_bos() >= 0 else False
    total, count = 0.0, 0
    for at in range(0, len(ids) - context + 1, context):
        window = ids[at : at + context]
        if adds_bos:
            window[0] = llama.token_bos()
        llama.reset()
        llama.eval(window)
        logits = np.array(llama.scores[context // 2 : context - 1], dtype=np.float64)
        top = logits.max(axis=1, keepdims=True)
        norm = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        total += (norm - logits[np.arange(len(logits)), window[context // 2 + 1 :]]).sum()
        count += len(logits)
    return math.exp(total / count), count


def check_perplexity(llama, args, text):
    wanted, count = half_perplexity(llama, text, 512)
    command = [args.lowp, "eval", args.model, "--text", args.text, "--method", "half", "--context", "512",
               "--compute", args.compute, "--json"]  # fmt: skip
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    off = found["perplexity"] / wanted - 1
    print(f"perplexity (half, 512): lowp {found['perplexity']:.4f}, llama.cpp {wanted:.4f} over {count} tokens, {100 * off:+.3f} %")
    return abs(off) <= args.ppl_tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lowp")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--tokenize")
    parser.add_argument("--tokens", type=int, default=64)
    # A token at a time: 0.3.36 built by GCC 12 for a machine with AMX crashes on larger batches (its tiles have no shape).
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compute", default="f32")
    parser.add_argument("--ppl-tolerance", type=float, default=0.005)
    parser.add_argument("--skip", nargs="*", default=[])
    args = parser.parse_args()
    text = open(args.text, encoding="utf-8", newline="").read()  # as it is, as lowp reads it
    llama = Llama(args.model, n_ctx=1024, n_batch=args.batch, n_threads=1, logits_all=True, verbose=False)
    good = True
    if args.tokenize:
        good &= check_ids(llama, args, text)
    if "greedy" not in args.skip:
        good &= check_greedy(llama, args)
    if "perplexity" not in args.skip:
        good &= check_perplexity(llama, args, text)
    sys.exit(not good)


if __name__ == "__main__":
    main()
