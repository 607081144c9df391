#!/usr/bin/env python3
"""Runs lm-eval's local-completions against `lowp serve` and compares its numbers with those of `lowp eval`.

    python tests/interop/lm_eval_check.py LOWP MODEL WIKITEXT CHOICES

WIKITEXT is a raw WikiText file (its first 40,000 characters are used), CHOICES a .jsonl of multiple-choice questions as `lowp
eval --task` takes it. Needs lm-eval[api]; without it prints 'skipped' and exits with 0. lm-eval is used unmodified, with its remote
tokenizer; max_length is the context + 2, because it keeps one place for a new token and one for its own count. Prints both
numbers; exit code 1 if they differ by more than 1e-3.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import lowp_cli  # noqa: E402
from serve_client import Server  # noqa: E402

TOLERANCE = 1e-3
PAGES = '''
task: lowp_pages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {pages}}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
process_results: !function lowp_words.results
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
'''
WORDS = '''
import re
def results(doc, results):
    (loglikelihood,) = results
    words, size = len(re.split(r"\\s+", doc["words_of"])), len(doc["words_of"].encode("utf-8"))
    return {"word_perplexity": (loglikelihood, words), "byte_perplexity": (loglikelihood, size)}
'''
CHOICES = '''
task: lowp_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {choices}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean}}
  - {{metric: acc_norm, aggregation: mean}}
'''


def run(folder, server, tasks, context):
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    out = folder / "out"
    subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args",
                    f"model=model,base_url=http://127.0.0.1:{server.port}/v1/completions,max_length={context + 2},num_concurrent=4,tokenizer_backend=remote", "--batch_size", "2",
                    "--tasks", ",".join(tasks), "--include_path", str(folder), "--output_path", str(out)], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    return json.loads(next(out.rglob("results_*.json")).read_text())["results"]


def main():
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        print("skipped: lm-eval is not installed")
        return
    lowp, model, wikitext, choices = sys.argv[1:]
    lowp_cli.lowp_path = str(pathlib.Path(lowp).resolve())
    failed = False

    def compare(what, theirs, ours):
        nonlocal failed
        close = abs(theirs - ours) <= TOLERANCE * max(1, abs(ours))
        failed |= not close
        print(f"{what}: lm-eval {theirs:.6f}, lowp eval {ours:.6f}{'' if close else '  DIFFERS'}", flush=True)

    with tempfile.TemporaryDirectory(prefix="lowp-lm-eval-") as name:
        folder = pathlib.Path(name)
        text = pathlib.Path(wikitext).read_text()[:40000]
        (folder / "text.txt").write_text(text)
        # One document, as it is: `lowp eval` without --documents.
        (folder / "pages.jsonl").write_text(json.dumps({"text": text, "words_of": text}) + "\n")
        questions = [json.loads(line) for line in pathlib.Path(choices).read_text().splitlines() if line]
        questions = [q for q in questions if "choices" in q]
        (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
        (folder / "lowp_words.py").write_text(WORDS)
        (folder / "pages.yaml").write_text(PAGES.format(pages=json.dumps(str(folder / "pages.jsonl"))))
        (folder / "choices.yaml").write_text(CHOICES.format(choices=json.dumps(str(folder / "questions.jsonl"))))
        server = Server(model, "--served-model-name", "model")
        try:
            context = server.get("/v1/models").json["data"][0]["max_model_len"]
            results = run(folder, server, ["lowp_pages", "lowp_choices"], context)
        finally:
            server.stop()
        ours = json.loads(lowp_cli.run("eval", model, "--text", folder / "text.txt", "--method", "rolling", "--json").out)
        compare("word perplexity", results["lowp_pages"]["word_perplexity,none"], ours["word_perplexity"])
        compare("byte perplexity", results["lowp_pages"]["byte_perplexity,none"], ours["byte_perplexity"])
        ours = json.loads(lowp_cli.run("eval", model, "--task", folder / "questions.jsonl", "--json").out)
        compare("acc", results["lowp_choices"]["acc,none"], ours["acc"])
        compare("acc_norm", results["lowp_choices"]["acc_norm,none"], ours["acc_norm"])
    sys.exit(failed)


if __name__ == "__main__":
    main()
