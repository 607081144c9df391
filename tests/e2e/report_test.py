"""End to end: `lowp report` of a small model and of formats.

    python3 tests/e2e/report_test.py build/lowp
"""
import html.parser
import json
import os
import shutil
import signal
import subprocess
import time

import lowp_cli
from lowp_cli import MODELS, Case

MODEL = MODELS / "bookworm-8m"
TEXT = "The clock struck nine, and nobody came down to breakfast. " * 60


class Page(html.parser.HTMLParser):
    """Tags are balanced; tables are lists of rows of cell texts."""

    VOID = {"meta", "br", "hr", "link", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.svgs, self.texts = [], [], 0, []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and ("td" in self.open or "th" in self.open) and "sup" not in self.open:
            self.tables[-1][-1][-1] += data


class ReportCase(Case):
    def setUp(self):
        super().setUp()
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT)

    def report(self, *args, **options):
        return self.lowp("report", *args, env={"TMPDIR": str(self.temporary)}, **options)

    def refused_report(self, *args, **options):
        message = self.refused("report", *args, env={"TMPDIR": str(self.temporary)}, **options)
        self.assertEqual(self.names(self.temporary), [])
        return message

    def check_page(self, path):
        text = path.read_text()
        self.assertNotRegex(text, r"https?:|<link|<img|@import|src=|\bnan\b")
        return Page(text)


class ModelReport(ReportCase):
    def test_json_and_page_agree(self):
        page_file = self.folder / "report.html"
        task = self.folder / "task.jsonl"
        task.write_text('{"context": "The clock struck", "choices": ["nine", "zqx"], "answer": 0}\n' * 3)
        report = json.loads(self.report(MODEL, "--recipes", "bf16,int4,mxfp8", "--text", self.text, "--task", task, "--methods", "disjoint,half,rolling",
                                        "--context", 64, "-o", page_file, "--json"))
        rows = {row["recipe"]: row for row in report["rows"]}
        self.assertEqual(list(rows), ["bf16", "int4_g128-bf16", "mxfp8-mxfp8"])
        original, int4 = rows["bf16"], rows["int4_g128-bf16"]
        self.assertIsNone(original["kl"])
        self.assertGreater(int4["kl"]["mean"], rows["mxfp8-mxfp8"]["kl"]["mean"])
        self.assertLess(int4["bits_per_weight"], 4.5)
        self.assertLess(int4["file_bytes"], original["file_bytes"])
        self.assertEqual(int4["task"]["questions"], 3)
        for row in rows.values():
            self.assertEqual(list(row["perplexity"]), ["disjoint", "half", "rolling"])
            self.assertEqual(row["perplexity"]["disjoint"]["context"], 64)
            self.assertIsNotNone(row["perplexity"]["rolling"]["word_perplexity"])
            speed = row["speed"]
            self.assertGreater(speed["decode_tokens_per_second"], 1)
            self.assertAlmostEqual(speed["bandwidth_bytes_per_second"] / (speed["streamed_bytes"] * speed["decode_tokens_per_second"]), 1)
            self.assertGreater(speed["peak_bytes"], speed["streamed_bytes"])
        self.assertEqual(original["speed"]["decode_speedup"], 1)
        page = self.check_page(page_file)
        self.assertEqual(page.svgs, 4)
        self.assertEqual([row[0] for row in page.tables[0][1:]], list(rows))
        self.assertIn(f"{int4['perplexity']['disjoint']['perplexity']:#.6g}", page.tables[0][2])
        self.assertTrue(any("measured on" in text for text in page.texts))
        self.assertEqual(self.names(self.temporary), [])

    def test_agrees_with_eval(self):
        report = json.loads(self.report(MODEL, "--recipes", "int8-bf16", "--text", self.text, "--context", 64, "--json"))
        self.lowp("quantize", MODEL, "--recipe", "int8-bf16", "-o", self.folder / "q")
        alone = self.json("eval", self.folder / "q", "--text", self.text, "--against", MODEL, "--context", 64)
        row = report["rows"][1]
        self.assertEqual(row["perplexity"]["disjoint"]["perplexity"], alone["perplexity"])
        self.assertEqual(row["kl"]["mean"], alone["kl"]["mean"])

    def test_without_text_says_what_is_left_out(self):
        out = self.report(MODEL, "--recipes", "int4")
        self.assertIn("decode tokens/s", out)
        self.assertIn("no --text was given", out)
        self.assertNotIn("ppl disjoint", out)

    def test_calibrated_recipe(self):
        self.refused_report(MODEL, "--recipes", "int8-int8_static", code=2, words=["int8-int8_static", "--calibrate"])
        out = self.report(MODEL, "--recipes", "int8-int8_static", "--calibrate", self.text, "--calibrate-tokens", 64)
        self.assertIn("int8_static", out)

    def test_recipe_that_does_not_fit_has_a_reason(self):
        model = lowp_cli.write_model(self.folder / "m", lowp_cli.llama_tensors())  # K = 256
        config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 64, "rms_norm_eps": 1e-5}
        (model / "config.json").write_text(json.dumps(config))
        report = json.loads(self.report(model, "--recipes", "int4_g512-bf16,int8", "--json"))
        self.assertIn("512", report["rows"][1]["refused"])
        self.assertEqual(report["rows"][2]["speed"]["prefill_tokens"], 32)  # the context is short

    def test_bad_input(self):
        page = self.folder / "r.html"
        self.refused_report(code=2, words=["MODEL"])
        self.refused_report(MODEL, code=2, words=["--recipes"])
        self.refused_report(MODEL, "--recipes", "int4,mxpf8", code=2, words=["did you mean 'mxfp8'"])
        self.refused_report(MODEL, "--recipes", "int4,", code=2, words=["empty name"])
        self.refused_report(MODEL, "--recipes", "int4", "--methods", "disjont", code=2, words=["did you mean 'disjoint'"])
        self.refused_report(MODEL, "--recipes", "int4", "--device", "cuda", words=["cuda"])
        self.refused_report(MODEL, "--recipes", "int4", "-o", self.folder / "absent" / "r.html", words=["absent", "does not exist"])
        self.refused_report(MODEL, "--recipes", "int4", "-o", self.folder, code=2, words=["is a folder"])
        self.refused_report(MODEL, "--recipes", "int4", "--text", self.folder / "absent.txt", "-o", page, words=["absent.txt"])
        self.refused_report(self.folder / "absent", "--recipes", "int4", "-o", page, words=["absent"])
        self.refused_report(MODEL, "--recipes", "int4", "--text", self.text, "--context", 10**6, "-o", page, code=2, words=["1000000"])
        self.assertEqual(self.names(), ["text.txt", "tmp"])

    def test_quantized_model_is_refused(self):
        self.lowp("quantize", MODEL, "--recipe", "int4", "-o", self.folder / "q")
        self.refused_report(self.folder / "q", "--recipes", "int8", code=2, words=["quantized already"])

    def test_interruption_leaves_nothing(self):
        process = subprocess.Popen([lowp_cli.lowp_path, "report", MODEL, "--recipes", "demo", "-o", self.folder / "r.html"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(self.temporary)})
        deadline = time.monotonic() + 60
        while not self.names(self.temporary) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertTrue(self.names(self.temporary), "no temporary folder was seen")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (-signal.SIGINT, b""))
        self.assertEqual(self.names(self.temporary), [])
        self.assertEqual(self.names(), ["text.txt", "tmp"])


class NumericsReport(ReportCase):
    def test_json_page_and_table_agree(self):
        page_file = self.folder / "numerics.html"
        report = json.loads(self.report("numerics", "-o", page_file, "--json"))
        self.assertEqual(report["amax_log2"], list(range(-24, 13, 2)))
        rows = {(row["format"], row["data"], row["dtype"]): row["sqnr"] for row in report["rows"]}
        self.assertEqual({key[1:] for key in rows}, {(d, t) for d in ("normal", "heavy") for t in ("bf16", "f32")})
        self.assertGreaterEqual(len(rows), 4 * 25)
        self.assertGreater(rows["nvfp4", "normal", "bf16"][0], rows["nvfp4_single", "normal", "bf16"][0] + 10)
        self.assertTrue(all(value is None for value in rows["bf16", "normal", "bf16"]))  # nothing is lost
        page = self.check_page(page_file)
        self.assertEqual((len(page.tables), page.svgs), (4, 6))
        table = {row[0]: row for row in page.tables[0][1:]}
        self.assertEqual(table["nvfp4"][2], f"{rows['nvfp4', 'normal', 'bf16'][0]:.1f}")
        again = json.loads(self.report("numerics", "--json"))
        self.assertEqual(again["rows"], report["rows"])  # deterministic

    def test_help_and_usage(self):
        out = self.report("--help")
        for word in ("numerics", "--recipes", "Examples", "TMPDIR"):
            self.assertIn(word, out)
        self.assertNotIn("speed-of", out)
        self.assertIn("Examples", self.report("numerics", "--help"))
        self.refused_report("numerics", "-o", self.folder / "absent" / "n.html", words=["does not exist"])
        self.refused_report("numerics", "--recipes", "int4", code=2)

    def test_a_model_folder_called_numerics(self):
        shutil.copytree(MODEL, self.folder / "numerics")
        self.assertIn("decode tokens/s", self.report("./numerics", "--recipes", "int8", cwd=self.folder))


if __name__ == "__main__":
    lowp_cli.main()
