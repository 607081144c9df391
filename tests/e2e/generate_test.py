"""lowp generate and lowp chat: what they print, and what they refuse."""
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import lowp_cli
from lowp_cli import MODELS, Case

MODEL = MODELS / "bookworm-8m"
PROMPT = "It was a bright morning, and the old man"


class Generate(Case):
    def generate(self, *args, prompt=PROMPT, model=MODEL, **options):
        return self.json("generate", model, "-p", prompt, *args, **options)

    def test_greedy_is_repeatable_and_streams_the_same_text(self):
        row = self.generate("-n", 40, "--temperature", 0, "--ignore-eos")
        self.assertEqual(list(row), ["prompt_tokens", "tokens", "text", "finish_reason", "seconds", "tokens_per_second"])
        self.assertEqual((row["tokens"], row["finish_reason"]), (40, "length"))
        self.assertGreater(row["prompt_tokens"], 4)
        self.assertAlmostEqual(row["tokens_per_second"], 40 / row["seconds"], delta=1e-6 * row["tokens_per_second"])
        self.assertFalse(row["text"].startswith(PROMPT))
        streamed = self.lowp("generate", MODEL, "-p", PROMPT, "-n", 40, "--temperature", 0, "--ignore-eos")
        self.assertEqual(streamed, row["text"])  # nothing added, no newline: this is not a terminal

    def test_a_longer_run_begins_as_a_shorter_one(self):
        long = self.generate("-n", 30, "--seed", 5, "--ignore-eos")["text"]
        self.assertTrue(long.startswith(self.generate("-n", 10, "--seed", 5, "--ignore-eos")["text"]))

    def test_seeds(self):
        texts = [self.generate("-n", 30, "--seed", seed, "--temperature", 1)["text"] for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_sampling_narrowed_to_one_token_is_greedy(self):
        greedy = self.generate("-n", 20, "--temperature", 0)["text"]
        for narrow in (["--top-k", 1], ["--top-p", 1e-9], ["--min-p", 1], ["--temperature", 1e-9]):
            self.assertEqual(self.generate("-n", 20, "--seed", 9, *narrow)["text"], greedy, narrow)

    def test_threads(self):
        texts = [self.generate("-n", 20, "--temperature", 0, "--threads", count)["text"] for count in (1, 2, 5)]
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(texts[0], texts[2])
        for count in (0, -1, 5000, "many"):
            self.refused("generate", MODEL, "-p", PROMPT, "--threads", count, code=2, words=["--threads"])

    def with_generation_config(self, config):
        folder = self.folder / "model"
        if not folder.exists():
            folder.mkdir()
            for name in ("config.json", "tokenizer.json", "model.safetensors"):
                os.symlink(MODEL / name, folder / name)
        (folder / "generation_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return folder

    def test_generation_config_is_the_default(self):
        greedy = self.generate("-n", 20, "--temperature", 0)["text"]
        self.assertEqual(self.generate("-n", 20, model=self.with_generation_config({"do_sample": False, "temperature": 2}))["text"], greedy)
        self.assertEqual(self.generate("-n", 20, model=self.with_generation_config({"top_k": 1}))["text"], greedy)
        sampled = self.generate("-n", 20, "--temperature", 1.5, "--seed", 3, "--top-p", 1)["text"]
        self.assertEqual(self.generate("-n", 20, "--temperature", 1.5, "--seed", 3, model=self.with_generation_config({"do_sample": False}))["text"], sampled)
        self.assertEqual(self.generate("--ignore-eos", model=self.with_generation_config({"max_new_tokens": 7}))["tokens"], 7)
        self.refused("generate", self.with_generation_config({"top_p": 7}), "-p", "x", words=["generation_config.json", "top_p", "7"])
        self.refused("generate", self.with_generation_config("{"), "-p", "x", words=["generation_config.json"])

    def test_end_of_sequence_ids_of_both_files(self):
        tokens = self.generate("-n", 1, "--temperature", 0, "--ignore-eos")
        ids = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
        first = ids[tokens["text"].replace(" ", "\u0120")]
        row = self.generate("-n", 9, "--temperature", 0, model=self.with_generation_config({"eos_token_id": [8191, first]}))
        self.assertEqual((row["tokens"], row["text"], row["finish_reason"]), (0, "", "stop"))
        row = self.generate("-n", 9, "--temperature", 0, "--ignore-eos", model=self.folder / "model")
        self.assertEqual((row["tokens"], row["finish_reason"]), (9, "length"))

    def test_stop_text_is_not_printed(self):
        free = self.generate("-n", 40, "--temperature", 0, "--ignore-eos")["text"]
        stop = free[20:27]
        row = self.generate("-n", 40, "--temperature", 0, "--ignore-eos", "--stop", "never said", "--stop", stop)
        self.assertEqual((row["text"], row["finish_reason"]), (free[:free.index(stop)], "stop"))
        self.assertLess(row["tokens"], 40)
        row = self.generate("-n", 40, "--temperature", 0, "--ignore-eos", "--stop", free[-1:] + "\u2603")  # held back, never completed
        self.assertEqual((row["text"], row["finish_reason"]), (free, "length"))

    def test_prompt_from_a_file_and_from_standard_input(self):
        (self.folder / "prompt.txt").write_text(PROMPT)
        expected = self.generate("-n", 8, "--temperature", 0)
        row = self.json("generate", MODEL, "-f", self.folder / "prompt.txt", "-n", 8, "--temperature", 0)
        self.assertEqual((row["text"], row["prompt_tokens"]), (expected["text"], expected["prompt_tokens"]))
        done = subprocess.run([lowp_cli.lowp_path, "generate", MODEL, "-f", "-", "-n", "8", "--temperature", "0"], input=PROMPT.encode(), capture_output=True)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, expected["text"]))

    def test_compute_types(self):
        for compute in ("bf16", "f32"):
            self.assertEqual(self.generate("-n", 5, "--compute", compute, "--device", "cpu", "--ignore-eos")["tokens"], 5)

    def test_no_tokens_asked_for(self):
        row = self.generate("-n", 0)
        self.assertEqual((row["tokens"], row["text"], row["finish_reason"]), (0, "", "length"))

    def test_the_context_caps_what_is_generated(self):
        row = self.generate("-n", 5000, "--temperature", 0, "--ignore-eos", prompt="and so on " * 330)
        self.assertLess(row["prompt_tokens"], 1024)
        self.assertEqual((row["prompt_tokens"] + row["tokens"], row["finish_reason"]), (1024, "length"))

    def test_refused(self):
        def refused(*args, code=2, words=()):
            self.refused("generate", MODEL, *args, code=code, words=words)

        refused("-p", "and so on " * 2000, code=1, words=["1024", "prompt"])
        refused("-p", "", words=["empty"])
        refused("-p", b"caf\xe9".decode(errors="surrogateescape"), words=["UTF-8"])
        (self.folder / "latin1").write_bytes(b"caf\xe9")
        refused("-f", self.folder / "latin1", words=["UTF-8", "latin1"])
        refused("-f", self.folder / "absent", code=1, words=["absent"])
        refused(words=["-p"])
        refused("-p", "x", "-f", "y")
        for flag, values in {"--temperature": (-1, "nan", "inf", "hot"), "--top-p": (-0.1, 0, 1.5, "nan"), "--top-k": (-5, 1.5, "nan"),
                             "--min-p": (-0.1, 2, "nan"), "--seed": ("x", -1), "-n": (-1, "x"), "--compute": ("int8",)}.items():
            for value in values:
                refused("-p", "x", f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}", words=[flag.strip("-") if flag != "-n" else ""])
        refused("-p", "x", "--stop", "", words=["--stop"])
        refused("-p", "x", "--device", "abacus", words=["abacus"])
        self.refused("generate", self.folder / "nowhere", "-p", "x", words=["nowhere"])

    def test_a_broken_tokenizer_is_an_error(self):
        shutil.copytree(MODEL, self.folder / "model")
        text = (MODEL / "tokenizer.json").read_bytes()
        for broken in (b"", text[:1000], b"[]", b'{"version": "1.0"}'):
            (self.folder / "model/tokenizer.json").write_bytes(broken)
            self.refused("generate", self.folder / "model", "-p", "x", words=["tokenizer.json"])
        (self.folder / "model/tokenizer.json").unlink()
        self.refused("generate", self.folder / "model", "-p", "x", words=["tokenizer.json"])

    def test_interrupted_ends_with_what_there_is(self):
        process = subprocess.Popen([lowp_cli.lowp_path, "generate", MODEL, "-p", PROMPT, "-n", "100000", "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        start = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, b""))
        (start + out).decode()


class Chat(Case):
    def chat(self, text, *args):
        done = subprocess.run([lowp_cli.lowp_path, "chat", MODEL, "--temperature", "0", "-n", "12", "--ignore-eos", *args], input=text, capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode(), done.stderr.decode()

    def continuation(self, prompt):
        return self.json("generate", MODEL, "-p", prompt, "-n", 12, "--temperature", 0, "--ignore-eos")["text"]

    def test_each_line_continues_the_text(self):
        out, err = self.chat(b"Once upon a time\n")
        first = self.continuation("Once upon a time")
        self.assertEqual(out, first + "\n")
        self.assertIn("no chat template", err)
        out, err = self.chat(b"Once upon a time\n/reset\nOnce upon a time\n")
        self.assertEqual(out, (first + "\n") * 2)

    def test_messages_of_several_lines(self):
        expected = self.continuation("Once upon\na time") + "\n"
        for text in (b"Once upon\\\na time\n", b'"""Once upon\na time"""\n', b'"""\nOnce upon\na time\n"""\n', b'"""Once upon\na time'):
            self.assertEqual(self.chat(text)[0], expected, text)

    def test_commands(self):
        out, err = self.chat(b"/help\n/reste\nHello\n/stats\n/exit\nnot read\n")
        self.assertEqual(out, self.continuation("Hello") + "\n")
        for word in ("/reset", "did you mean '/reset'", "tokens/s", "of 1024 tokens", "memory"):
            self.assertIn(word, err)

    def test_bad_messages_are_not_the_end(self):
        out, err = self.chat(b"caf\xe9\n" + b"and so on " * 2000 + b"\nHello\n")
        self.assertEqual(out, self.continuation("Hello") + "\n")
        self.assertIn("UTF-8", err)
        self.assertIn("1024", err)

    def test_the_context_forgets_its_beginning(self):
        out, err = self.chat(b"".join(b"and so on " * 150 + b"\n" for _ in range(4)))
        self.assertEqual(len(out.splitlines()), out.count("\n"))
        self.assertIn("forgetting the first", err)

    def test_refused(self):
        self.refused("chat", MODEL, "--top-p", 3, code=2, words=["top-p"])
        self.refused("chat", MODEL, "--device", "abacus", code=2, words=["abacus"])


class Terminal(Case):
    """Chat with a person: a pseudo-terminal, its keys and its history."""

    def setUp(self):
        super().setUp()
        self.screen = b""
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.environ.update(HOME=str(self.folder), TERM="dumb", INPUTRC="/dev/null")
            os.execv(lowp_cli.lowp_path, [lowp_cli.lowp_path, "chat", str(MODEL), "-n", "900", "--ignore-eos", "--temperature", "0"])
        self.pid = pid
        self.addCleanup(os.close, self.terminal)

    def until(self, words, seconds=60):
        """Reads until the words show; what came before them."""
        end = time.monotonic() + seconds
        while words.encode() not in self.screen:
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.fail(f"no {words!r} in {self.screen!r}")
            try:
                self.screen += os.read(self.terminal, 4096)
            except OSError:
                self.fail(f"ended without {words!r}: {self.screen!r}")
        before, self.screen = self.screen.split(words.encode(), 1)
        return before

    def keys(self, text):
        os.write(self.terminal, text)

    def test_a_session(self):
        self.until("> ")
        self.keys(b"Once upon a time\r")
        self.until("time\r\n")
        time.sleep(0.3)
        self.keys(b"\x03")  # stops the answer, not the program
        self.until("> ")
        self.keys(b"half a line\x03")  # forgets the line
        self.until("Ctrl-D leaves")
        self.until("> ")
        self.keys(b"/stats\r")
        tokens = int(self.until("of 1024 tokens").split()[-1])
        self.assertGreater(tokens, 4)
        self.assertLess(tokens, 900)
        self.until("> ")
        self.keys(b"\x10\x10\r")  # two lines up in the history
        self.until("time\r\n")
        time.sleep(0.1)
        self.keys(b"\x03")
        self.until("> ")
        self.keys(b"\x04")
        self.assertEqual(os.waitpid(self.pid, 0)[1], 0)
        history = (self.folder / ".lowp_history").read_text().splitlines()
        self.assertEqual(history, ["Once upon a time", "/stats", "Once upon a time"])


if __name__ == "__main__":
    lowp_cli.main()
