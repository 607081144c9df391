"""A running `lowp serve` for the end-to-end tests, and a client with the standard library only."""
import http.client
import json
import signal
import socket
import ssl
import subprocess
import time

import lowp_cli


def certificate(folder, name, *options):
    """A self-signed certificate for 127.0.0.1 and its key."""
    paths = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(["openssl", "req", "-x509", *(options or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")), "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]],
                   check=True, capture_output=True)
    return paths


class Server:
    """A server on a free port, from its first answer on /ready until stop(); over TLS if its certificate is given."""

    def __init__(self, model, *args, wait=True, certificate=None):
        self.tls = certificate and ssl.create_default_context(cafile=certificate)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([lowp_cli.lowp_path, "serve", str(model), "--port", str(self.port), *map(str, args)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.process.stderr.read()}")
            try:
                if self.get("/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("the server does not become ready")

    def connect(self, timeout=120):
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def open(self, timeout=None, receive_buffer=None):
        """A connected socket. Over TLS an end that the server did not announce is an error of its reads."""
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(timeout)
        s.connect(("127.0.0.1", self.port))
        return self.tls.wrap_socket(s, server_hostname="127.0.0.1", suppress_ragged_eofs=False) if self.tls else s

    def request(self, method, path, body=None, headers=None):
        """An answer with its body in .text, and as .json if it is JSON."""
        connection = self.connect()
        data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        answer.text = answer.read().decode()
        is_json = answer.text and answer.getheader("Content-Type", "").startswith("application/json")
        answer.json = json.loads(answer.text) if is_json else None
        connection.close()
        return answer

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def stream(self, path, body):
        """The chunks of a streamed answer."""
        connection = self.connect()
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise AssertionError(f"{answer.status}: {answer.read().decode()}")
        for line in answer:
            line = line.decode().strip()
            if line.startswith("data: "):
                if line == "data: [DONE]":
                    break
                yield json.loads(line.removeprefix("data: "))
        connection.close()

    def raw(self, data, timeout=10):
        """What comes back for these bytes."""
        with self.open(timeout) as s:
            s.sendall(data)
            out = b""
            try:
                while part := s.recv(65536):
                    out += part
            except (TimeoutError, ConnectionResetError):
                pass
            return out

    def metrics(self):
        """The values of /metrics by their names, labels summed up."""
        values = {}
        for line in self.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                values[name] = values.get(name, 0) + float(value)
        return values

    def stop(self, how=signal.SIGTERM, seconds=60):
        """The exit code."""
        self.process.send_signal(how)
        code = self.process.wait(seconds)
        self.process.stderr.close()
        return code
