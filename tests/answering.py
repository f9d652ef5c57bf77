"""What the tests' own HTTP servers have in common: they answer whole, each request in a thread of
its own, keep quiet about it, and are gone afterwards."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

ANSWER = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]}


def kserve(*extensions: str) -> dict[str, Any]:
    """The pages of a KServe server with a model `m` that takes two numbers; it gives an ANSWER."""
    return {
        "/v2": {"name": "theirs", "version": "1", "extensions": extensions},
        "/v2/health/ready": {},
        "/v2/models/m": {
            "name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
        },
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def body(self) -> bytes:
        """What came with the request; it has to be read before the next one."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def say(self, status: int, text: str | bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answers with a text."""
        data = text.encode() if isinstance(text, str) else text
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def tell(self, status: int, found: Any) -> None:
        """Answers with JSON."""
        self.say(status, json.dumps(found), {"Content-Type": "application/json"})

    def log_message(self, *_: object) -> None:
        pass


class Answering(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[Handler], host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), handler)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"


S = TypeVar("S", bound=Answering)


@contextmanager
def serve(server: S) -> Iterator[S]:
    """It answers within the block."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
