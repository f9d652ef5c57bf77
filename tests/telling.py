"""A server of pages that change as it runs: what others tell of themselves, second by second."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Telling(ThreadingHTTPServer):
    """Answers what stands in `pages`; a status other than 200 stands before the text. All answers
    have `headers` besides. `asked` is what was asked for, headers included."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), Handler)
        self.pages: dict[str, bytes | str | tuple[int, str]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.pause_s = 0.0  # before each answer

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Telling

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        time.sleep(self.server.pause_s)
        found = self.server.pages.get(self.path, (404, "{}"))
        status, text = found if isinstance(found, tuple) else (200, found)
        body = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def telling(host: str = "127.0.0.1", port: int = 0) -> Iterator[Telling]:
    with Telling(host, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
