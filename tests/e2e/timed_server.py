"""A server that takes known times, to see what clients measure: OpenAI's completions, streamed, with no model behind."""
import http.server
import json
import threading
import time


class TimedServer:
    """Every answer has max_tokens tokens: the first after `first` seconds, the others `gap` seconds apart. A prompt has 7."""

    def __init__(self, first, gap):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = json.dumps({"object": "list", "data": [{"id": "model", "root": "model"}]}).encode()
                self.send_response(200 if self.path == "/v1/models" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                due = time.monotonic() + first
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/completions":  # clients ask for what else a server may have
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                count = request["max_tokens"]
                for _ in range(count):
                    time.sleep(max(0, due - time.monotonic()))
                    due += gap
                    self.event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]})
                self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}})
                self.chunk(b"data: [DONE]\n\n")
                self.chunk(b"")

            def event(self, event):
                self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

            def chunk(self, data):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
