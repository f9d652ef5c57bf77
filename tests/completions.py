"""A server that speaks OpenAI's API on a timetable: `python -m tests.completions` prints its port
and, once its stdin closes, what it did as one JSON object.

What a request asks for beside its prompt (`options` of a scenario) says how it is answered: the
first token after `first_ms`, the next ones each `gap_ms` later (from the first on, so that lateness
does not add up), `max_tokens` of them; `per_event` tokens in one event; `together` events sent as
one; `part` bytes of an event at a time; `breaks` after so many events, by an error of its own or by
hanging up; `usage` false: no count of tokens; `status`, another one than 200; `empty`: an answer
without a choice.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"


class Completions(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, slower_ms: float = 0, root: str = "/v1") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.slower_ms = slower_ms  # than it is asked to be
        self.lock = threading.Lock()
        self.sent: list[int] = []  # when each event with a token was (monotonic ns)
        self.asked: list[dict[str, Any]] = []
        self.tokens = self.answered = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Completions

    def do_GET(self) -> None:
        if self.path == f"{self.server.root}/models":
            self._whole(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._whole(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked["path"] = self.path
        with self.server.lock:
            self.server.asked.append(asked)
        if "status" in asked:
            self._whole(asked["status"], {"error": {"message": "slow down"}})
        elif asked.get("stream"):
            self._stream(asked)
        else:
            time.sleep((asked.get("first_ms", 0) + self.server.slower_ms) / 1000)
            text = {"role": "assistant", "content": "word " * asked["max_tokens"]}
            choice = {"index": 0, "message": text, "finish_reason": "length"}
            choices = [] if asked.get("empty") else [choice]
            self._whole(200, {"choices": choices, "usage": _usage(asked)})
            self._count(asked["max_tokens"])

    def _stream(self, asked: dict[str, Any]) -> None:
        chat = self.path.endswith("/chat/completions")
        first_ms = asked.get("first_ms", 10) + self.server.slower_ms
        first = time.monotonic() + first_ms / 1000
        gap_s, per_event = asked.get("gap_ms", 2) / 1000, asked.get("per_event", 1)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if asked.get("empty"):
            self._raw(b"data: [DONE]\n\n")
            self._raw(b"")
            return
        if chat:
            self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        sent, held = [], b""
        for index in range(-(-asked["max_tokens"] // per_event)):
            if index == asked.get("breaks"):
                self._break(asked["by"])
                return
            behind = index % asked.get("together", 1)  # others that it is sent with
            time.sleep(max(0.0, first + (index - behind) * gap_s - time.monotonic()))
            text = "word " * per_event
            choice = {"delta": {"content": text}} if chat else {"text": text}
            held += _event({"choices": [{"index": 0, **choice}]})
            if behind + 1 == asked.get("together", 1):
                self._chunks(held, asked.get("part"))
                held = b""
            sent.append(time.monotonic_ns())
        ended: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        self._event({"choices": [{"index": 0, **ended, "finish_reason": "length"}]})
        if asked.get("usage", True) and asked.get("stream_options", {}).get("include_usage"):
            self._event({"choices": [], "usage": _usage(asked)})
        self._raw(b": that was all\n\n")
        self._raw(b"data: [DONE]\n\n")
        with self.server.lock:
            self.server.sent += sent
        self._count(asked["max_tokens"])  # before its end: who has that may ask what was counted
        self._raw(b"")

    def _break(self, how: str) -> None:
        if how == "error":
            self._event({"error": {"message": "out of memory", "code": 500}})
            self._raw(b"")
        elif how == "silence":  # the stream ends as HTTP wants it, and says nothing of it
            self._raw(b"")
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _event(self, found: dict[str, Any]) -> None:
        self._chunks(_event(found))

    def _chunks(self, data: bytes, part: int | None = None) -> None:
        for at in range(0, len(data), part or len(data)):
            self._raw(data[at : at + (part or len(data))])

    def _raw(self, data: bytes) -> None:
        """One chunk; an empty one is the last."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _count(self, tokens: int) -> None:
        with self.server.lock:
            self.server.tokens += tokens
            self.server.answered += 1

    def _whole(self, status: int, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _event(found: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(found).encode() + b"\n\n"


def _usage(asked: dict[str, Any]) -> dict[str, int]:
    words = json.dumps(asked.get("messages", asked.get("prompt"))).split()
    return {"prompt_tokens": len(words), "completion_tokens": asked["max_tokens"]}


class Running:
    """The server in a process of its own. After its block `did` is what it told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.did: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def completions(slower_ms: float = 0, root: str = "/v1") -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.completions", str(slower_ms), root]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        server = Running(process)
        try:
            yield server
        finally:
            out, _ = process.communicate()
            server.did = json.loads(out)


def main() -> None:
    server = Completions(float(sys.argv[1]), sys.argv[2])
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    with server.lock:
        told = {"sent": server.sent, "asked": server.asked, "tokens": server.tokens,
                "answered": server.answered}  # fmt: skip
        print(json.dumps(told))


if __name__ == "__main__":
    main()
