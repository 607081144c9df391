#!/usr/bin/env python3
"""Loads folders with vLLM and compares its greedy continuations with those of `lowp generate`.

    python tests/interop/vllm_check.py LOWP FOLDER[=OURS]...

Needs vllm (its CPU build will do) and tokenizers; without vllm it prints 'skipped' and exits with 0.
vLLM takes the tokens from the folder's tokenizer.json and computes in bfloat16. A difference counts as agreement where vLLM
itself was undecided: its two best tokens were less than 0.3 apart in log probability; the rest of that text is not compared.
With OURS, lowp generates from that folder instead: vLLM's CPU kernels multiply fp8 weights by activations that they leave as
they are, so an fp8-fp8 folder is compared with the fp8-bf16 one of the same model, which has the same weights.
Prints a line for each folder; exit code 1 if one did not load or did not agree.
"""

import json
import os
import pathlib
import subprocess
import sys

PROMPTS = ["It was a dark night, and", "The old man looked at", "Chapter 1", "She had never", "In the morning the",
           "\"I do not know,\" said", "There was once a", "The ship sailed", "My father was", "At the end of"]
TOKENS = 32
GAP = 0.3


def ours(lowp, folder, prompt):
    command = [lowp, "generate", folder, "-p", prompt, "-n", str(TOKENS), "--temperature", "0", "--ignore-eos", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["text"]


def load(folder):
    from vllm import LLM

    return LLM(model=str(folder), skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True, max_model_len=256,
               max_num_seqs=16, disable_log_stats=True)


def theirs(model, ids):
    """For each prompt: the new tokens and the gap between the two best at each."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, logprobs=2, detokenize=False)
    outputs = model.generate([{"prompt_token_ids": prompt} for prompt in ids], sampling, use_tqdm=False)
    for output in outputs:
        best = [sorted((entry.logprob for entry in step.values()), reverse=True) for step in output.outputs[0].logprobs]
        yield list(output.outputs[0].token_ids), [pair[0] - pair[1] for pair in best]


def compare(text, tokens, gaps, tokenizer):
    """(tokens that agree, None or the gap at the first that does not)."""
    for count in range(1, len(tokens) + 1):
        if not text.startswith(tokenizer.decode(tokens[:count], skip_special_tokens=False).rstrip("\ufffd")):
            return count - 1, gaps[count - 1]
    return len(tokens), None


def check(lowp, folder, other):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = load(folder)
    agreed = wrong = undecided = 0
    for prompt, (tokens, gaps) in zip(PROMPTS, theirs(model, [tokenizer.encode(p).ids for p in PROMPTS])):
        count, gap = compare(ours(lowp, other, prompt), tokens, gaps, tokenizer)
        agreed += count
        undecided += gap is not None and gap < GAP
        wrong += gap is not None and gap >= GAP
        if gap is not None and gap >= GAP:
            print(f"{folder}: {prompt!r}: differs at token {count}, where vLLM's gap is {gap:.2f}")
    print(f"{folder}: {agreed} tokens agree, {undecided} prompts end where vLLM was undecided, {wrong} disagree", flush=True)
    return wrong == 0


def main():
    lowp, pairs = sys.argv[1], []
    for argument in sys.argv[2:]:
        folder, _, other = argument.partition("=")
        pairs.append((pathlib.Path(folder).resolve(), pathlib.Path(other or folder).resolve()))
    try:
        import vllm  # noqa: F401
    except ImportError:
        print("skipped: vllm is not installed")
        return 0
    if len(pairs) == 1:
        return 0 if check(lowp, *pairs[0]) else 1
    # One process for each: an engine does not give everything back.
    failed = 0
    for folder, other in pairs:
        done = subprocess.run([sys.executable, __file__, lowp, f"{folder}={other}"], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith(str(folder))]
        if not lines:
            reasons = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]
            lines = [f"{folder}: does not load: {reasons[-1].strip() if reasons else 'exit code ' + str(done.returncode)}"]
        print("\n".join(lines), flush=True)
        failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    sys.exit(main())
