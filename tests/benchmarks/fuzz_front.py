"""Requests taken apart byte by byte: does the engine ever crash, hang, leak or answer unclearly?

    python -m tests.benchmarks.fuzz_front [--for 5m] [--seed N]

A real engine gets whole requests of every kind, changed at random, spliced, cut off and sent in
pieces. Whatever comes back must be HTTP, of a status that has a reason, with a text in JSON if it
is an error, and never a 500; when the client has said all it has to say the connection must end.
Between them ordinary requests must be answered as ever. In the end the engine holds no more files
and, but for what its pools took, no more memory than in the beginning, its log has no traceback,
and it drains. Each fault is printed with the bytes that caused it. Exits with 1 when there was one.
"""

import argparse
import base64
import gzip
import json
import random
import socket
import sys
import tempfile
import time
from collections.abc import Iterator

import httptools
import numpy as np
import psutil

from loadbench.units import SECOND, parse_duration
from tests.served import Engine, request_binary, request_json, rows, serving, settings, whole

WAIT_S = 5.0  # for what must come at once
GROWTH = 64 << 20
SHOWN = 20
EXPECTED = (200, 400, 403, 404, 405, 408, 413, 415, 417, 431, 501, 503)
WORDS = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b" ", b":", b"%00", b"%2f", b"..", b"{", b"}", b"[", b"]",
    b'"', b"null", b"NaN", b"-1", b"0", b"1e999", b"99999999999999999999", b"\xff\xfe", b"\xf0\x9f",
    b"Content-Length: 0\r\n", b"Content-Length: 99999999999\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    b"Accept-Encoding: *\r\n", b"Inference-Header-Content-Length: 0\r\n",
    b"Inference-Header-Content-Length: 18446744073709551616\r\n", b"timeout-ms: 0.001\r\n",
    b"GET", b"HEAD", b"PUT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.0", b"HTTP/9.9",
    b"[" * 3000, b'{"a":' * 3000, b"A" * 70_000, b"INT64", b"BYTES", b"BOOL", b'"shape":[-1]',
    b'"shape":[9223372036854775807,2]', b'"binary_data_size":1e3', b'"shared_memory_region":"x"',
    b'"timeout":1', b'"priority":99', b'"binary_data":"yes"', b'"classification":3',
]  # fmt: skip


def seeds() -> list[bytes]:
    """Requests as clients send them."""
    binary, headers = request_binary(rows(2))
    length = int(headers["Inference_Header_Content_Length"])
    plain = json.dumps(request_json(rows(1))).encode()
    packed = gzip.compress(plain)
    streamed = (
        b"POST /v2/models/fake/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for part in (plain[:50], plain[50:], b""):
        streamed += b"%x\r\n%b\r\n" % (len(part), part)
    raw = rows(1).tobytes()
    paths = (
        "/v2", "/v2/health/ready", "/v2/models/fake", "/v2/models/fake/versions/1/config",
        "/v2/models/fake/stats", "/v2/models/stats", "/health", "/metrics",
        "/v2/systemsharedmemory/status", "/v2/trace/setting", "/v2/logging",
        "/v2/repository/models/fake/traffic",
    )  # fmt: skip
    calls = (
        ("/v2/repository/index", {"ready": True}),
        ("/v2/repository/models/nothing/unload", {"parameters": {"version": "7"}}),
        ("/v2/repository/models/nothing/load", {"parameters": {"config": "{}"}}),
        ("/v2/models/fake/profile", {"batches": 1, "seconds": 0.01}),
        ("/v2/systemsharedmemory/region/x/register", {"key": "/x", "offset": 0, "byte_size": 8}),
        ("/v2/cudasharedmemory/unregister", {}),
    )  # fmt: skip
    return [
        whole(binary, length),
        whole(binary, length) + whole(binary, length, "/v2/models/fake/versions/1/infer"),
        post("/v2/models/fake/infer", plain),
        post("/v2/models/fake/infer", plain, "Content-Encoding: gzip\r\n", packed),
        post("/v2/models/fake/infer", plain, "Accept-Encoding: gzip\r\nConnection: close\r\n"),
        post("/v2/models/fake/infer", raw, "Inference-Header-Content-Length: 0\r\n"),
        streamed,
        streamed[:-2] + b"Inference-Header-Content-Length: 7\r\nX: y\r\n\r\n",
        *(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths),
        *(post(path, json.dumps(body).encode()) for path, body in calls),
    ]  # fmt: skip


def post(path: str, body: bytes, extra: str = "", sent: bytes | None = None) -> bytes:
    sent = body if sent is None else sent
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(sent)}\r\n\r\n".encode()
        + sent
    )


def changed(draw: random.Random, corpus: list[bytes]) -> bytes:
    """A request, changed in one to six places."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + int(draw.expovariate(1 / 20)))
        match draw.randrange(7):
            case 0:
                data[at:at] = draw.choice(WORDS)
            case 1:
                data[at:end] = draw.choice(WORDS)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end] * draw.randint(1, 3)
            case 4 if data:
                data[at % len(data)] ^= 1 << draw.randrange(8)
            case 5:
                other = draw.choice(corpus)
                data[at:end] = other[draw.randrange(len(other)) :]
            case _:
                line = data.find(b"\r\n", at)
                data[line + 2 : line + 2] = draw.choice(WORDS)
    return bytes(data[: 1 << 20])


class Answers:
    """Reads answers as httptools sees them."""

    def __init__(self) -> None:
        self.found: list[tuple[int, bytes]] = []
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.found.append((status, self._body))
        self._body = b""


def faults(draw: random.Random, data: bytes, port: int) -> Iterator[str]:
    """Sends it in pieces, says that this is all, reads to the end; what was wrong with that."""
    answers, got = Answers(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as sock:
        try:
            for piece in pieces(draw, data):
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(1 << 20):
                got += part
        except TimeoutError:
            yield f"hangs after {got[:200]!r}"
        except OSError:  # it hung up before all was sent, which it may
            pass
    head_only = b"HEAD" in data or b"head" in data  # its answer has no body: no parser knows that
    try:
        answers.feed(got)
    except httptools.HttpParserError as error:
        if not head_only:
            yield f"answers what is not HTTP ({error}): {got[:300]!r}"
        return
    for status, body in answers.found:
        if status not in EXPECTED:
            yield f"answers {status}: {body[:300]!r}"
        elif status >= 400 and body and not head_only:
            try:
                json.loads(body)["error"]
            except (ValueError, KeyError, TypeError):
                yield f"answers {status} without saying why: {body[:300]!r}"


def pieces(draw: random.Random, data: bytes) -> Iterator[bytes]:
    """Mostly whole, now and then in a few pieces with a moment between them."""
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.choice((0, 0, 0, 1, 3))))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if begin:
            time.sleep(draw.choice((0, 0, 0.001)))
        yield data[begin:end]


def well(engine: Engine, number: int) -> bool:
    """Whether an ordinary request gets its rows."""
    x = rows(1 + number % 3, first=float(number % 1000))
    body, headers = request_binary(x)
    answer = engine.call("/v2/models/fake/infer", body, **headers)
    if answer.status == 404:  # unloaded, as somebody asked
        engine.call("/v2/repository/models/fake/load", b"{}")
        answer = engine.call("/v2/models/fake/infer", body, **headers)
    return answer.status == 200 and answer.tail == np.asarray(x).tobytes()


def settled(process: psutil.Process, files: int) -> bool:
    until = time.monotonic() + WAIT_S
    while process.num_fds() > files:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def fuzz(length_s: float, seed: int) -> int:
    """The number of faults."""
    draw, corpus, cases, found = random.Random(seed), seeds(), 0, 0
    with (
        tempfile.TemporaryFile("w+") as log,
        serving("fake", *settings("fake.a=0 ms", "max_batch=8"), stderr=log) as engine,
    ):
        process = psutil.Process(engine.process.pid)

        def tell(text: str, data: bytes) -> None:
            nonlocal found
            found += 1
            shown = base64.b64encode(data[:3000]).decode()
            print(f"{text}\n    case {cases}, base64 {shown}\n", flush=True)

        for _ in range(500):  # pools fill
            for _ in faults(draw, draw.choice(corpus), engine.port):
                pass
        files, memory = process.num_fds(), process.memory_info().rss
        end = time.monotonic() + length_s
        while time.monotonic() < end and found < SHOWN and engine.process.poll() is None:
            data = changed(draw, corpus)
            cases += 1
            for text in faults(draw, data, engine.port):
                tell(text, data)
            if cases % 100 == 0 and not well(engine, cases):
                tell("an ordinary request fails after this", data)
        if engine.process.poll() is not None:
            tell(f"the engine is gone: {engine.process.returncode}", data)
            return found
        if not settled(process, files + 2):
            tell(f"open files: {files} -> {process.num_fds()}", b"")
        grown = process.memory_info().rss - memory
        if grown > GROWTH:
            tell(f"memory grew by {grown >> 20} MB", b"")
        if engine.stop() != 0:
            tell("it does not drain", b"")
        log.seek(0)
        if "Traceback" in (said := log.read()):
            tell(said[said.index("Traceback") :][:3000], b"")
    print(f"{cases:,} cases from seed {seed}: {found} faults, {grown >> 10:,} kB more memory")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="length", default="5m")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    return int(fuzz(parse_duration(given.length) / SECOND, given.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
