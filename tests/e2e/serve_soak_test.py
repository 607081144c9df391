"""`lowp serve` for longer: many streams at a time, clients that leave at random, malformed requests; memory comes back."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import threading
import time
import unittest

import lowp_cli
from serve_client import Server

MODEL = lowp_cli.MODELS / "bookworm-8m"
REQUESTS = int(os.environ.get("LOWP_SOAK_REQUESTS", "20000"))
SECONDS = float(os.environ.get("LOWP_SOAK_SECONDS", "60"))


def resident(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


class Soak(unittest.TestCase):
    def setUp(self):
        self.server = Server(MODEL, "--max-num-seqs", 64, "--max-queue", 256, "--kv-cache-memory", "64MB")
        self.addCleanup(lambda: self.assertEqual(self.server.stop(), 0))

    def wait_idle(self):
        for _ in range(600):
            m = self.server.metrics()
            if m["lowp:num_requests_running"] + m["lowp:num_requests_waiting"] == 0:
                return m
            time.sleep(0.1)
        self.fail("requests go on though their clients have left")

    def test_a_thousand_streams_end_in_200_or_429(self):
        statuses = []

        def stream(i):
            connection = self.server.connect(timeout=300)
            try:
                connection.request("POST", "/v1/completions", json.dumps({"prompt": [i % 8000 + 1] * (i % 50 + 1), "max_tokens": 30, "stream": True,
                                                                         "ignore_eos": True}))
                answer = connection.getresponse()
                body = answer.read()
                statuses.append(answer.status)
                if answer.status == 200:
                    self.assertTrue(body.endswith(b"data: [DONE]\n\n"), body[-200:])
            finally:
                connection.close()

        threading.stack_size(256 * 1024)
        with concurrent.futures.ThreadPoolExecutor(1000) as pool:
            list(pool.map(stream, range(1000)))
        self.assertEqual(len(statuses), 1000)
        self.assertLessEqual(set(statuses), {200, 429})
        self.assertGreaterEqual(statuses.count(200), 256)
        self.wait_idle()

    def test_memory_comes_back(self):
        chance = random.Random(1)
        plans = [(chance.random() < 1 / 3, chance.random() * 0.05, chance.randrange(1, 80), chance.randrange(1, 12)) for _ in range(REQUESTS)]

        def ask(plan):
            leaves, after, prompt, tokens = plan
            body = json.dumps({"prompt": [prompt * 7 % 8000] * prompt, "max_tokens": tokens, "stream": prompt % 2 == 0}).encode()
            try:
                with socket.create_connection(("127.0.0.1", self.server.port), timeout=120) as s:
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    if leaves:
                        time.sleep(after)
                        return
                    while s.recv(65536):
                        pass
            except (ConnectionError, TimeoutError) as e:
                raise AssertionError(f"{plan}: {e}") from e

        def fill(i):  # pages are the process's from their first use on
            self.server.post("/v1/completions", {"prompt": [i + 1] * 900, "max_tokens": 20, "ignore_eos": True})

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            list(pool.map(fill, range(64)))
            list(pool.map(ask, plans[:2000]))
            before = self.wait_idle()
            baseline = resident(self.server.process)
            list(pool.map(ask, plans[2000:]))
            after = self.wait_idle()
        self.assertEqual(before["lowp:kv_cache_usage_perc"], 0)
        self.assertEqual(after["lowp:kv_cache_usage_perc"], 0)
        self.assertLess(resident(self.server.process), baseline + (8 << 20))

    def test_killed_clients_leave_nothing(self):
        chance = random.Random(3)
        for _ in range(10):
            client = subprocess.Popen([lowp_cli.lowp_path, "bench", "serve", f"http://127.0.0.1:{self.server.port}", "--num-prompts", "48", "--random-input-len", "100",
                                       "--random-output-len", "800", "--ignore-eos", "--disable-tqdm"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while self.server.metrics()["lowp:num_requests_running"] < 2:  # the first one is alone
                time.sleep(0.01)
            time.sleep(chance.random())
            client.kill()
            client.wait()
            self.assertEqual(self.wait_idle()["lowp:kv_cache_usage_perc"], 0)

    def test_streams_that_wait_are_kept_awake_by_empty_lines(self):
        own = Server(MODEL, "--max-num-seqs", 1)
        self.addCleanup(own.process.stderr.close)

        def keep_busy():
            with contextlib.suppress(OSError, http.client.HTTPException):
                own.post("/v1/completions", {"prompt": "a", "max_tokens": 900, "n": 8, "ignore_eos": True})

        busy = [threading.Thread(target=keep_busy) for _ in range(16)]
        for thread in busy:
            thread.start()
        time.sleep(1)
        connection = own.connect()
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2, "stream": True}))
        first = connection.getresponse().read(1)  # the first token waits for 128 others
        own.process.kill()
        own.process.wait()
        for thread in busy:
            thread.join()
        connection.close()
        self.assertEqual(first, b"\n")

    def test_malformed_requests_for_a_while(self):
        chance = random.Random(2)
        seeds = [
            b'{"prompt": "It was", "max_tokens": 3, "temperature": 0.5, "n": 2, "stop": ["a"], "logprobs": 2, "echo": true, "stream": true}',
            b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "tools": [{"type": "function", "function": {"name": "f"}}]}',
            b'{"prompt": [1, 2, 3], "max_tokens": 2, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}',
            b'{"tokens": [1, 2, 3]}',
        ]
        heads = [b"POST /v1/completions HTTP/1.1", b"POST /v1/chat/completions HTTP/1.1", b"POST /tokenize HTTP/1.1", b"POST /detokenize HTTP/1.1",
                 b"GET /metrics HTTP/1.1", b"OPTIONS * HTTP/1.1", b"HEAD / HTTP/1.0"]
        values = [b"-1", b"0", b"1e308", b"null", b"true", b'"x"', b"[]", b"{}", b"[[[[1]]]]", b"9223372036854775808", b"1e-320", b'"\\u0000"']
        end = time.monotonic() + SECONDS
        sent = answered = 0
        while time.monotonic() < end:
            body = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(body))
                if chance.random() < 0.5:
                    body[at] = chance.randrange(256)
                else:
                    body[at:at + chance.randrange(6)] = chance.choice(values)
            head = bytearray(chance.choice(heads) + b"\r\nHost: localhost\r\nContent-Length: %d" % len(body))
            if chance.random() < 0.3:
                head[chance.randrange(len(head))] = chance.randrange(256)
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
                sent += 1
                try:
                    s.sendall(bytes(head) + b"\r\n\r\n" + bytes(body))
                    s.shutdown(socket.SHUT_WR) if chance.random() < 0.2 else None
                    s.settimeout(0.3)
                    answer = s.recv(65536)
                except (ConnectionError, TimeoutError):
                    continue
            if answer:
                answered += 1
                status = answer.split(b" ", 2)[1]
                self.assertIn(status[:1], b"24", answer[:300])
        self.assertGreater(answered, sent / 3)
        self.wait_idle()
        self.assertEqual(self.server.get("/health").status, 200)

    def test_idle_connections_and_slow_heads(self):
        idle = []
        try:
            for i in range(2000):
                s = socket.create_connection(("127.0.0.1", self.server.port))
                if i % 2:
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
                idle.append(s)
            self.assertEqual(self.server.post("/v1/completions", {"prompt": "a", "max_tokens": 5}).status, 200)
        finally:
            for s in idle:
                s.close()


if __name__ == "__main__":
    lowp_cli.main()
