"""A webhook's receiver on loopback: what comes, and how it is answered."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One message."""

    path: str
    token: str | None
    body: dict[str, Any]


class Receiver(NamedTuple):
    """Where it listens, and all that came."""

    url: str
    came: list[Received]


@contextmanager
def receiver(status: int = 200, wait_s: float = 0.0, to: str = "") -> Iterator[Receiver]:
    """Answers with a status, after a wait; with a redirection if `to` is given."""
    came: list[Received] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            came.append(Received(self.path, self.headers["Authorization"], body))
            over.wait(wait_s)
            self.send_response(status)
            if to:
                self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Receiver(f"http://127.0.0.1:{server.server_port}", came)
        finally:
            over.set()
            server.shutdown()
            thread.join()


def until(found: Callable[[], object], patience_s: float = 20.0) -> None:
    """Waits for something to become true; AssertionError if it does not."""
    end = time.monotonic() + patience_s
    while not found():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
