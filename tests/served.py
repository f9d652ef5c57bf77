"""A real `loadbench serve` process for the tests, and a client that speaks HTTP byte by byte."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The JSON of the body, which with binary tensors is only its beginning."""
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(length)] if length else self.body)

    @property
    def tail(self) -> bytes:
        return self.body[int(self.headers["inference-header-content-length"]) :]


class Engine:
    """A running engine."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port

    def call(self, path: str, body: bytes | dict[str, Any] | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; POST if there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            raw = json.dumps(body).encode() if isinstance(body, dict) else body
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if raw is None else "POST", path, raw, names)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def stats(self, model: str = "fake") -> dict[str, Any]:
        found: dict[str, Any] = self.call(f"/v2/models/{model}/stats").json["model_stats"][0]
        return found

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def serving(
    model: str = "fake",
    *arguments: str,
    stdin: int | None = None,
    stderr: int | IO[str] = subprocess.PIPE,
) -> Iterator[Engine]:
    """Starts an engine on a free port, warm; afterwards it is gone."""
    command = [sys.executable, "-m", "loadbench", "serve", model, "--port", "0", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready http://127.0.0.1:"):
                process.kill()
                said = process.stderr.read() if process.stderr else "see its log"
                raise AssertionError(f"no ready line but {line!r}: {said}")
            yield Engine(process, int(line.split()[1].rpartition(":")[2]))
        finally:
            process.kill()


def settings(*pairs: str) -> list[str]:
    """`("max_batch=4", …)` → the options that set them."""
    return [word for pair in pairs for word in ("--set", f"engine.{pair}")]


def rows(number: int, first: float = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Rows for the fake model, all different."""
    return np.arange(first, first + number * 16, dtype=np.float32).reshape(number, 16)


def request_json(x: Any, **more: Any) -> dict[str, Any]:
    """An infer request with its data in JSON."""
    array = np.asarray(x)
    entry = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    return {"inputs": [entry | {"data": array.tolist()}], **more}


def request_binary(x: Any, **more: Any) -> tuple[bytes, dict[str, str]]:
    """An infer request with binary tensors both ways: body and headers."""
    raw = np.asarray(x, np.float32).tobytes()
    entry = {"name": "x", "shape": list(np.shape(x)), "datatype": "FP32"}
    header = json.dumps({
        "inputs": [entry | {"parameters": {"binary_data_size": len(raw)}}],
        **({"parameters": {"binary_data_output": True}} | more),
    }).encode()  # fmt: skip
    return header + raw, {"Inference_Header_Content_Length": str(len(header))}


def whole(body: bytes, length: int, path: str = "/v2/models/fake/infer") -> bytes:
    """A binary infer request as bytes for a socket."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {length}\r\n\r\n"
    )
    return head.encode() + body


def read_answer(stream: Any) -> Answer:
    """One answer from a socket's file; its end of file raises EOFError."""
    first = stream.readline()
    if not first:
        raise EOFError
    headers: dict[str, str] = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    body = stream.read(length)
    if len(body) != length:
        raise EOFError
    return Answer(int(first.split()[1]), headers, body)


def strings(*values: bytes) -> bytes:
    """A BYTES tensor's raw form."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
