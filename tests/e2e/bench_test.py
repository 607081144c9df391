"""End to end: `lowp bench`: rows, comparison, bad usage. Times are not looked at.

    python3 tests/e2e/bench_test.py build/lowp
"""
import json

import lowp_cli
from lowp_cli import MODELS, Case, run
from timed_server import TimedServer

KEYS = {"op", "recipe", "m", "n", "k", "device", "seconds", "bytes", "flop", "limit_name", "limit", "share", "peer",
        "peer_seconds", "ratio", "samples"}
SMALL = ["bench", "kernels", "--op", "cast", "-m", 256, "-k", 512, "--samples", 2, "--seconds", 0]


class Kernels(Case):
    def rows(self, *args):
        done = run(*SMALL, "--json", *args)
        self.assertEqual(done.code, 0, done.err)
        rows = [json.loads(line) for line in done.out.splitlines()]
        for row in rows:
            self.assertEqual(set(row), KEYS)
        return rows

    def test_rows_have_the_keys_and_a_limit_of_the_same_run(self):
        rows = self.rows("--format", "mxfp8,int4_g32")
        probes = {row["recipe"] for row in rows if row["op"] == "probe"}
        self.assertLessEqual({"read", "copy"}, probes)
        measured = [row for row in rows if row["op"] != "probe"]
        self.assertEqual([(row["op"], row["recipe"]) for row in measured],
                         [("cast:bf16", "mxfp8"), ("dequantize:bf16", "mxfp8"),
                          ("cast:bf16", "int4_g32"), ("dequantize:bf16", "int4_g32")])
        for row in measured:
            self.assertEqual(len(row["samples"]), 2)
            self.assertIn(row["limit_name"], probes)
            self.assertAlmostEqual(row["share"], row["bytes"] / row["seconds"] / row["limit"])
        self.assertEqual(measured[0]["bytes"], 256 * 512 * 2 + 256 * 512 + 256 * 512 // 32)

    def test_comparison(self):
        other = self.folder / "before.json"
        other.write_text("".join(json.dumps(row) + "\n" for row in self.rows("--format", "mxfp8")))
        compared = [row for row in self.rows("--format", "mxfp8,mxfp4", "--compare", other) if row["op"] != "probe"]
        self.assertEqual([row["peer"] is not None for row in compared], [True, True, False, False])
        self.assertAlmostEqual(compared[0]["ratio"], compared[0]["peer_seconds"] / compared[0]["seconds"])

    def test_products(self):
        done = run("bench", "kernels", "--op", "gemm", "--recipe", "bf16,mxfp4-int8", "-m", 2, "-n", 40, "-k", 64,
                   "--samples", 2, "--seconds", 0, "--json")
        self.assertEqual(done.code, 0, done.err)
        rows = [row for row in map(json.loads, done.out.splitlines()) if row["op"] == "gemm"]
        self.assertEqual([row["recipe"] for row in rows], ["bf16", "mxfp4-int8"])
        self.assertEqual([row["flop"] for row in rows], [2 * 2 * 40 * 64] * 2)

    def test_bad_usage(self):
        for arguments, message in ((["--op", "cats"], "cast"), (["--format", "mxfp9"], "mxfp8"),
                                   (["-k", 33, "--format", "mxfp8"], "divisible"), (["--dtype", "bf17"], "bf17"),
                                   (["--device", "tpu"], "tpu"), (["--compare", self.folder / "missing"], "missing")):
            done = run("bench", "kernels", *arguments, "--samples", 1, "--seconds", 0)
            self.assertIn(done.code, (1, 2), arguments)
            self.assertIn(message, done.err)
            self.assertEqual(done.out, "")
        self.assertEqual(run("bench").code, 2)


class Model(Case):
    def test_rows(self):
        out = self.lowp("bench", "model", MODELS / "bookworm-8m", "--prefill", 16, "--decode", 4, "--batches", "1,3",
                        "--runs", 2, "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([row["op"] for row in rows], ["pp16", "tg4", "batch1", "batch3", "memory"])
        for row in rows[:-1]:
            self.assertEqual(set(row), KEYS)
            self.assertEqual(len(row["samples"]), 2)
            work = row["flop"] if row["op"] == "pp16" else row["bytes"]
            self.assertAlmostEqual(row["share"], work / row["seconds"] / row["limit"])
        self.assertEqual(rows[1]["bytes"] % 4, 0)  # every step reads the same
        self.assertGreater(rows[-1]["bytes"], 1 << 20)

    def test_bad_usage(self):
        self.refused("bench", "model", code=2, words=["--shapes"])
        self.refused("bench", "model", "--shapes", "llama-3.2-1", code=2, words=["llama-3.2-1b", "qwen3-30b-a3b"])
        self.refused("bench", "model", "--shapes", "llama-3.2-1b", "--recipe", "int9", code=2, words=["int9"])
        self.refused("bench", "model", MODELS / "bookworm-8m", "--prefill", 100000, words=["100000"])


class Roofline(Case):
    def test_expected_speedups_need_no_gpu(self):
        page = self.folder / "roofline.html"
        out = self.lowp("roofline", "--peaks", "b200", "--recipe", "mxfp8,nvfp4-nvfp4_tensor", "--html", page, "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([row["fwd_K"] for row in rows], [1024, 2048, 4096, 8192, 16384] * 2)
        speedups = [round(row["r_fp8_gemm_and_ovhd_spdp"], 2) for row in rows]
        self.assertEqual(speedups, [1.00, 1.76, 1.89, 1.94, 1.97, 1.00, 2.36, 2.89, 3.32, 3.62])
        self.assertEqual({row["b_fp8_gemm_s"] for row in rows}, {-1})
        self.assertIn("<svg", page.read_text())

    def test_measured_peaks_of_the_cpu(self):
        out = self.lowp("roofline", "--device", "cpu", "--recipe", "int8", "--shapes", "llama-3.2-1b", "--json")
        for row in map(json.loads, out.splitlines()):
            self.assertGreater(row["r_bf16_gemm_s"], 0)

    def test_bad_usage(self):
        self.refused("roofline", "--peaks", "b201", code=2, words=["b200"])
        self.refused("roofline", "--peaks", self.folder / "none.json", words=["none.json"])
        self.refused("roofline", "--peaks", "h100", "--shapes", "llama-3.2-1", code=2, words=["llama-3.2-1b"])
        self.refused("roofline", "--peaks", "h100", "--recipe", "int9", code=2, words=["int9"])


class ServeClient(Case):
    """Times of `lowp bench serve`, against a server that takes known ones."""

    def test_tokens_count_when_they_come(self):
        server = TimedServer(first=0.2, gap=0.1)
        self.addCleanup(server.stop)
        done = run("bench", "serve", server.url, "--num-prompts", 3, "--random-input-len", 4,
                   "--random-output-len", 5, "--percentile-metrics", "ttft,tpot,itl,e2el", "--json", "--disable-tqdm")
        self.assertEqual(done.code, 0, done.err)
        result = json.loads(done.out)
        self.assertEqual((result["completed"], result["total_input_tokens"], result["total_output_tokens"]), (3, 21, 15))
        first, gap = 200, 100
        for key, expected in (("ttft", first), ("tpot", gap), ("itl", gap), ("e2el", first + 4 * gap)):
            self.assertGreater(result[f"median_{key}_ms"], 0.9 * expected, key)
            self.assertLess(result[f"median_{key}_ms"], expected + 90, key)


if __name__ == "__main__":
    lowp_cli.main()
