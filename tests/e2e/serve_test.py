"""`lowp serve`: the OpenAI API over HTTP, streams, limits, disconnects, shutdown."""
import concurrent.futures
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import warnings
from pathlib import Path

import lowp_cli
from serve_client import Server, certificate

MODEL = lowp_cli.MODELS / "bookworm-8m"
GREEDY = {"temperature": 0, "ignore_eos": True}


def setUpModule():
    global server
    server = Server(MODEL, "--served-model-name", "bookworm", "--served-model-name", "other", "--max-num-seqs", 16)


def tearDownModule():
    code = server.stop()
    assert code == 0, code


class Completions(unittest.TestCase):
    def complete(self, prompt="It was a dark", **more):
        answer = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 12, **GREEDY, **more})
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json

    def test_the_same_text_as_generate(self):
        answer = self.complete(max_tokens=40)
        generated = lowp_cli.run("generate", MODEL, "-p", "It was a dark", "-n", 40, "--temperature", 0, "--ignore-eos")
        self.assertEqual(answer["choices"][0]["text"], generated.out)
        self.assertEqual(answer["usage"]["completion_tokens"], 40)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual((answer["object"], answer["model"]), ("text_completion", "bookworm"))

    def test_a_stream_gives_the_same(self):
        whole = self.complete(max_tokens=30)
        chunks = list(server.stream("/v1/completions", {"prompt": "It was a dark", "max_tokens": 30, **GREEDY,
                                                        "stream_options": {"include_usage": True}}))
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks if c["choices"]), whole["choices"][0]["text"])
        self.assertEqual(len({c["id"] for c in chunks}), 1)
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 30)
        self.assertEqual([c["choices"][0]["finish_reason"] for c in chunks[-2:-1]], ["length"])

    def test_streams_together_give_what_they_give_alone(self):
        prompts = [f"Chapter {i}. The" for i in range(24)]
        alone = [self.complete(p)["choices"][0]["text"] for p in prompts]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            def together(prompt):
                chunks = server.stream("/v1/completions", {"prompt": prompt, "max_tokens": 12, **GREEDY})
                return "".join(c["choices"][0]["text"] for c in chunks)
            self.assertEqual(list(pool.map(together, prompts)), alone)

    def test_batches_n_and_seeds(self):
        answer = self.complete(["One day", "The sea"], n=2, temperature=1, seed=7)
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        again = self.complete(["One day", "The sea"], n=2, temperature=1, seed=7)
        self.assertEqual(answer["choices"], again["choices"])
        self.assertNotEqual(answer["choices"][0]["text"], answer["choices"][1]["text"])

    def test_stop_texts(self):
        text = self.complete(max_tokens=60)["choices"][0]["text"]
        stop = text[20:24]
        for stream in (False, True):
            if stream:
                chunks = list(server.stream("/v1/completions", {"prompt": "It was a dark", "max_tokens": 60, **GREEDY, "stop": [stop]}))
                got = "".join(c["choices"][0]["text"] for c in chunks)
                reason = chunks[-1]["choices"][0]["finish_reason"]
            else:
                choice = self.complete(max_tokens=60, stop=stop)["choices"][0]
                got, reason = choice["text"], choice["finish_reason"]
            self.assertEqual((got, reason), (text[:text.index(stop)], "stop"))

    def test_echo_with_scores(self):
        ids = server.post("/tokenize", {"prompt": "It was a dark and stormy night."}).json["tokens"]
        answer = self.complete(ids, echo=True, logprobs=1, max_tokens=1)
        choice = answer["choices"][0]
        scores = choice["logprobs"]
        self.assertTrue(choice["text"].startswith("It was a dark and stormy night."))
        self.assertEqual({len(scores[k]) for k in scores}, {len(ids) + 1})
        self.assertIsNone(scores["token_logprobs"][0])
        self.assertEqual("".join(scores["tokens"]), choice["text"])
        for offset, token in zip(scores["text_offset"], scores["tokens"]):
            self.assertTrue(choice["text"][offset:].startswith(token))
        for logprob, top in zip(scores["token_logprobs"][1:], scores["top_logprobs"][1:]):
            self.assertIn(logprob, top.values())
            self.assertLessEqual(logprob, max(top.values()))
        # The same from a server that has the prompt in its prefix cache, and in a stream.
        self.assertEqual(self.complete(ids, echo=True, logprobs=1, max_tokens=1)["choices"], answer["choices"])
        chunks = list(server.stream("/v1/completions", {"prompt": ids, "max_tokens": 1, **GREEDY, "echo": True, "logprobs": 1}))
        joined = [x for c in chunks for x in c["choices"][0]["logprobs"]["token_logprobs"]]
        self.assertEqual(joined, scores["token_logprobs"])

    def test_a_prompt_one_longer_than_the_context_is_scored(self):
        ids = [(i * 37) % 8000 + 1 for i in range(1025)]
        answer = self.complete(ids, echo=True, logprobs=1, max_tokens=1)
        scores = answer["choices"][0]["logprobs"]["token_logprobs"]
        self.assertEqual(len(scores), 1026)
        self.assertEqual([i for i, s in enumerate(scores) if s is None], [0, 1025])
        refused = server.post("/v1/completions", {"prompt": ids, "max_tokens": 1})
        self.assertEqual(refused.status, 400)
        self.assertIn("1025", refused.json["error"]["message"])
        self.assertIn("1024", refused.json["error"]["message"])

    def test_special_tokens_are_not_read_from_text(self):
        plain = self.complete("<|endoftext|>", max_tokens=1)["usage"]["prompt_tokens"]
        parsed = self.complete("<|endoftext|>", max_tokens=1, parse_special=True)["usage"]["prompt_tokens"]
        self.assertEqual(parsed, 1)
        self.assertGreater(plain, 1)

    def test_prefix_cache_counts(self):
        ids = [(i * 91) % 8000 + 1 for i in range(300)]
        first = self.complete(ids)
        second = self.complete(ids)
        self.assertEqual(second["choices"], first["choices"])
        self.assertEqual(second["usage"]["prompt_tokens_details"]["cached_tokens"], 256)


class Requests(unittest.TestCase):
    def test_bad_fields_are_named(self):
        for param, value in [
                ("prompt", None), ("prompt", 3), ("prompt", []), ("prompt", [1, "a"]), ("prompt", [9000]), ("prompt", [-1]),
                ("prompt", ""), ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.5), ("max_tokens", "8"), ("max_tokens", 2000),
                ("temperature", -1), ("temperature", "hot"), ("temperature", 1e308), ("top_p", 0), ("top_p", 1.1), ("top_k", -2),
                ("min_p", 2), ("n", 0), ("n", 10**9), ("n", 1e30), ("seed", "x"), ("seed", 1.5), ("logprobs", -1), ("logprobs", 1000), ("logprobs", True),
                ("stop", ""), ("stop", [1]), ("stop", ["a"] * 100), ("stop", "x" * 10000), ("logit_bias", {"x": 1}),
                ("logit_bias", {"1": 1000}), ("logit_bias", [1]), ("stream", "yes"), ("stream_options", {"include_usage": True}),
                ("presence_penalty", 3), ("repetition_penalty", 0), ("ignore_eos", 1), ("stop_token_ids", [99999]),
                ("stop_token_ids", "a"), ("min_tokens", 50), ("best_of", 4), ("echo", "true"), ("suffix", "end")]:
            body = {"prompt": "a", "max_tokens": 4, param: value}
            answer = server.post("/v1/completions", body)
            self.assertEqual(answer.status, 400, f"{param}={value!r}: {answer.text}")
            self.assertEqual(answer.json["error"]["type"], "invalid_request_error")
            self.assertTrue(answer.json["error"]["param"].startswith(param), answer.text)
        self.assertEqual(server.post("/v1/completions", {"prompt": "a", "model": "gpt-4"}).status, 404)
        self.assertEqual(server.post("/v1/completions", {"prompt": "a", "model": "other", "max_tokens": 1}).status, 200)

    def test_bad_bodies(self):
        for body in ["", "{", "[]", "null", "3", '{"prompt": "a", "prompt": "b"}', '{"temperature": NaN}', "[" * 100000, '{"prompt": "\\ud800"}', b'{"prompt": "\xff"}']:
            answer = server.post("/v1/completions", body)
            self.assertEqual(answer.status, 400, f"{body[:40]!r}: {answer.text}")
            self.assertNotIn("/work", answer.text)
        self.assertEqual(server.post("/v1/completions", "x" * (9 << 20)).status, 413)
        self.assertEqual(server.request("POST", "/v1/completions", b"\x1f\x8b", {"Content-Encoding": "gzip"}).status, 415)

    def test_routes(self):
        self.assertEqual(server.get("/nothing").status, 404)
        self.assertEqual(server.get("/v1/completions").status, 405)
        self.assertEqual(server.get("/health").json, {"status": "ok"})
        self.assertEqual(server.get("/health/").status, 200)
        self.assertEqual(server.request("HEAD", "/health").status, 200)
        self.assertEqual(server.request("OPTIONS", "/v1/completions").status, 204)
        models = server.get("/v1/models").json["data"]
        self.assertEqual([(m["id"], m["max_model_len"]) for m in models], [("bookworm", 1024), ("other", 1024)])
        self.assertIn("version", server.get("/version").json)
        self.assertEqual(server.get("/tokenizer_info").json["eos_token"], "<|endoftext|>")
        self.assertIn("lowp:time_to_first_token_seconds", server.get("/metrics").text)

    def test_tokens_and_back(self):
        text = "Über die Brücke — \U0001f600!"
        tokens = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        self.assertEqual(server.post("/detokenize", {"tokens": tokens["tokens"]}).json["prompt"], text)
        self.assertEqual(server.post("/tokenize", {"prompt": "<|endoftext|>"}).json["tokens"], [0])
        self.assertEqual(server.post("/detokenize", {"tokens": [1 << 40]}).status, 400)

    def test_http_at_its_edges(self):
        for request, status in [
                (b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20000 + b"\r\n", b"431"),
                (b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"431"),
                (b"NOT HTTP AT ALL\r\n\r\n", b"400"),
                (b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
                (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
                (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n", b"400"),
                (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n", b"400"),
                (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"a" * 0x100000 + b"\r\n", None)]:
            if status is None:
                request += (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 10
                status = b"413"
            answer = server.raw(request, timeout=5)
            self.assertEqual(answer.split(b" ")[1:2], [status], request[:80])
        two = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.assertEqual(server.raw(two).count(b"HTTP/1.1 200"), 3)
        self.assertEqual(server.raw(b"GET /health HTTP/1.0\r\n\r\n").split(b" ")[1], b"200")
        for _ in range(20):  # a client that says with its request that nothing follows gets its answer and the end
            with server.open(timeout=5) as s:
                s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                s.shutdown(socket.SHUT_WR)
                self.assertTrue(b"".join(iter(lambda: s.recv(65536), b"")).endswith(b'{"status":"ok"}'))

    def test_other_pages_and_names_are_kept_out(self):
        self.assertEqual(server.get("/health", Host="evil.example").status, 403)
        self.assertEqual(server.get("/health", Origin="https://evil.example").status, 403)
        self.assertEqual(server.get("/health", Origin=f"http://127.0.0.1:{server.port}").status, 200)


class Disconnects(unittest.TestCase):
    @property
    def server(self):
        return server

    def running(self):
        m = self.server.metrics()
        return m["lowp:num_requests_running"] + m["lowp:num_requests_waiting"]

    def wait_idle(self):
        for _ in range(200):
            if self.running() == 0:
                return
            time.sleep(0.05)
        self.fail("requests go on after their clients left")

    def test_in_every_state(self):
        for stream in (False, True):
            for size, after in ((5, 0), (5, 0.05), (900, 0.02), (5, 0.3)):
                body = json.dumps({"prompt": [7] * size, "max_tokens": 100, "n": 20, **GREEDY, "stream": stream}).encode()
                s = self.server.open()
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                time.sleep(after)
                s.close()
                self.wait_idle()
        self.assertEqual(self.server.metrics()["lowp:kv_cache_usage_perc"], 0)

    def test_a_slow_reader_stalls_nobody(self):
        body = json.dumps({"prompt": "a", "max_tokens": 900, **GREEDY, "stream": True, "logprobs": 20}).encode()
        s = self.server.open(receive_buffer=1024)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        begin = time.monotonic()
        answer = self.server.post("/v1/completions", {"prompt": "b", "max_tokens": 20, **GREEDY})
        self.assertEqual(answer.status, 200)
        self.assertLess(time.monotonic() - begin, 10)
        s.close()
        self.wait_idle()


class Tls(Disconnects):
    """Everything about streams and clients that leave, once more over TLS."""

    @classmethod
    def setUpClass(cls):
        if not shutil.which("openssl"):
            raise unittest.SkipTest("no openssl to make a certificate with")
        cls.folder = Path(tempfile.mkdtemp(prefix="lowp-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.files = certificate(cls.folder, "own")
        if "no TLS" in lowp_cli.run("serve", MODEL, "--port", 0, "--ssl-certfile", cls.files[0], "--ssl-keyfile", "/nothing").err:
            raise unittest.SkipTest("a build without TLS")
        cls.own = Server(MODEL, "--max-num-seqs", 16, "--ssl-certfile", cls.files[0], "--ssl-keyfile", cls.files[1], certificate=cls.files[0])

    @classmethod
    def tearDownClass(cls):
        code = cls.own.stop()
        assert code == 0, code

    @property
    def server(self):
        return self.own

    def test_the_same_answers(self):
        body = {"prompt": "It was a dark", "max_tokens": 30, **GREEDY}
        plain = server.post("/v1/completions", body).json["choices"]
        self.assertEqual(self.own.post("/v1/completions", body).json["choices"], plain)
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            texts = list(pool.map(lambda _: "".join(c["choices"][0]["text"] for c in self.own.stream("/v1/completions", body)), range(24)))
        self.assertEqual(texts, [plain[0]["text"]] * 24)

    def test_http_at_its_edges(self):
        two = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 + b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.assertEqual(self.own.raw(two).count(b"HTTP/1.1 200"), 3)
        self.assertTrue(self.own.raw(b"GET /health HTTP/1.0\r\n\r\n").endswith(b'{"status":"ok"}'))
        stream = json.dumps({"prompt": "a", "max_tokens": 5, "stream": True}).encode()  # without chunks its end is the connection's
        answer = self.own.raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(stream) + stream)
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"), answer)
        self.assertEqual(self.own.raw(b"NOT HTTP AT ALL\r\n\r\n").split(b" ")[1], b"400")
        self.assertEqual(self.own.post("/v1/completions", {"prompt": "a " * 400000, "max_tokens": 1}).status, 400)
        self.assertEqual(self.own.post("/v1/completions", "x" * (9 << 20)).status, 413)
        connection = self.own.connect()
        for _ in range(3):
            connection.request("GET", "/health")
            self.assertEqual(connection.getresponse().read(), b'{"status":"ok"}')
        connection.close()

    def test_bench_serve(self):
        load = ("bench", "serve", f"https://127.0.0.1:{self.own.port}", "--num-prompts", 8, "--input-len", 20, "--output-len", 9, "--ignore-eos", "--json")
        for options, env in (((), {"SSL_CERT_FILE": self.files[0]}), (("--insecure",), {})):
            result = lowp_cli.run(*load, *options, env=env)
            self.assertEqual(result.code, 0, result.err)
            self.assertEqual(json.loads(result.out)["total_output_tokens"], 72)
        stranger = lowp_cli.run(*load)
        self.assertEqual(stranger.code, 1, stranger.err)
        self.assertIn("certificate verify failed", stranger.err)

    def test_what_is_no_tls(self):
        for data in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100, bytes(range(256)) * 100):
            with socket.create_connection(("127.0.0.1", self.own.port), timeout=10) as s:
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    self.assertNotIn(b"HTTP", b"".join(iter(lambda: s.recv(65536), b"")))
                except OSError:  # the server may hang up at any of these
                    pass
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(self.files[0])
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of the old
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", self.own.port), timeout=10) as s, self.assertRaises(ssl.SSLError):
            old.wrap_socket(s, server_hostname="127.0.0.1")
        self.assertEqual(self.own.get("/health").status, 200)

    def test_bad_files(self):
        other, rsa = certificate(self.folder, "other"), certificate(self.folder, "rsa", "-newkey", "rsa:2048")
        encrypted, both = self.folder / "encrypted.pem", self.folder / "both.pem"
        subprocess.run(["openssl", "pkey", "-in", self.files[1], "-aes128", "-passout", "pass:secret", "-out", encrypted], check=True)
        for cert, key, words in [("/nothing/here.pem", self.files[1], "/nothing/here.pem"), (self.files[0], "/nothing/key.pem", "/nothing/key.pem"),
                                 (self.files[1], self.files[1], "not certificates"), (self.files[0], self.files[0], "no private key"),
                                 (self.files[0], other[1], "is not that of the certificate"), (self.files[0], rsa[1], "is not that of the certificate"),
                                 (self.files[0], encrypted, "encrypted"), (MODEL / "config.json", self.files[1], "config.json")]:
            result = lowp_cli.run("serve", MODEL, "--port", 0, "--ssl-certfile", cert, "--ssl-keyfile", key)
            self.assertEqual(result.code, 1, result.err)
            self.assertIn(words, result.err)
        self.assertEqual(lowp_cli.run("serve", MODEL, "--port", 0, "--ssl-keyfile", self.files[1]).code, 2)
        both.write_text(self.files[0].read_text() + self.files[1].read_text())
        own = Server(MODEL, "--ssl-certfile", both, certificate=self.files[0])
        self.assertEqual(own.get("/health").status, 200)
        self.assertEqual(own.stop(), 0)


class Lifecycle(unittest.TestCase):
    def test_keys(self):
        own = Server(MODEL, "--api-key", "secret", "--api-key", "another")
        try:
            self.assertEqual(own.get("/health").status, 200)
            for path in ("/v1/models", "/metrics", "/version", "/nothing"):
                self.assertEqual(own.get(path).status, 401, path)
            self.assertEqual(own.get("/v1/models", Authorization="Bearer wrong").status, 401)
            self.assertEqual(own.get("/v1/models", Authorization="Bearer secret").status, 200)
            self.assertEqual(own.request("GET", "/v1/models", headers={"x-api-key": "another"}).status, 200)
        finally:
            self.assertEqual(own.stop(), 0)

    def test_a_full_queue_says_429_and_memory_is_bounded(self):
        own = Server(MODEL, "--max-queue", 4, "--max-num-seqs", 2, "--kv-cache-memory", "3MB", "--metrics-compat", "vllm")
        try:
            def ask(i):
                answer = own.post("/v1/completions", {"prompt": [i + 1] * 300, "max_tokens": 60, **GREEDY})
                return answer.status, answer.getheader("Retry-After"), answer.text
            with concurrent.futures.ThreadPoolExecutor(24) as pool:
                results = list(pool.map(ask, range(24)))
            self.assertEqual({r[0] for r in results}, {200, 429})
            self.assertTrue(all(r[1] for r in results if r[0] == 429))
            self.assertGreater(own.metrics()["vllm:requests_rejected_total"], 0)
        finally:
            self.assertEqual(own.stop(), 0)

    def test_preemption_changes_no_text(self):
        prompts = [[i + 1] * 40 for i in range(6)]
        def ask(s, prompt):
            return s.post("/v1/completions", {"prompt": prompt, "max_tokens": 200, **GREEDY}).json["choices"][0]["text"]
        expected = [ask(server, p) for p in prompts]
        page = 64 * 8 * 2 * 2 * 64 * 2
        own = Server(MODEL, "--max-num-seqs", 8, "--kv-cache-memory", 9 * page, "--max-model-len", 512)
        try:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                self.assertEqual(list(pool.map(lambda p: ask(own, p), prompts)), expected)
            self.assertGreater(own.metrics()["lowp:num_preemptions_total"], 0)
        finally:
            self.assertEqual(own.stop(), 0)

    def test_sigterm_lets_requests_finish(self):
        own = Server(MODEL)
        got = []
        def ask():
            got.extend(own.stream("/v1/completions", {"prompt": "a", "max_tokens": 600, **GREEDY}))
        thread = threading.Thread(target=ask)
        thread.start()
        while not got:
            time.sleep(0.01)
        own.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        if own.process.poll() is None:
            self.assertEqual(own.get("/ready").status, 503)
            self.assertEqual(own.post("/v1/completions", {"prompt": "b"}).status, 503)
        thread.join()
        self.assertEqual(got[-1]["choices"][0]["finish_reason"], "length")
        self.assertEqual(own.process.wait(30), 0)

    def test_progress_of_loading_and_lines_about_the_load(self):
        own = Server(MODEL, "--log-interval", 1, wait=False)
        shares = []
        while not shares or own.get("/ready").status != 200:
            try:
                shares.append(own.get("/ready").json["progress"])
            except OSError:
                time.sleep(0.01)
        self.assertEqual(shares, sorted(shares))
        self.assertTrue(all(0 <= share <= 1 for share in shares), shares)
        self.assertEqual(own.get("/ready").json, {"status": "ready", "progress": 1})
        own.post("/v1/completions", {"prompt": "a", "max_tokens": 20, **GREEDY})
        time.sleep(2.5)
        own.process.send_signal(signal.SIGTERM)
        said = own.process.stderr.read()
        self.assertRegex(said, r"prompts \d+ tok/s, answers \d+\.\d tok/s, running \d, waiting 0, keys and values \d+ %")
        self.assertEqual(said.count("prompts "), 1, said)  # nothing ran in the seconds after it
        own.process.stderr.close()
        self.assertEqual(own.process.wait(30), 0)

    def test_bad_starts(self):
        taken = lowp_cli.run("serve", MODEL, "--port", server.port)
        self.assertEqual(taken.code, 1)
        self.assertIn(str(server.port), taken.err)
        self.assertEqual(lowp_cli.run("serve", MODEL, "--host", "not an address").code, 2)
        self.assertEqual(lowp_cli.run("serve", "/nothing/there", "--port", 0).code, 1)
        self.assertEqual(lowp_cli.run("serve", MODEL, "--port", 0, "--max-model-len", 1024, "--kv-cache-memory", "64KB").code, 2)


if __name__ == "__main__":
    lowp_cli.main()
