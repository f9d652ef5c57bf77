"""A KServe-like server whose right answers are known, as a process of its own.

    python tests/known_server.py '{"service_ms": 1, "stall_ms": 500, "period_ms": 5000}'

prints its port, serves until its stdin closes, then prints what it got as one JSON line. Answers
come a constant time after their request, in order on each connection. While it stands still by
schedule it neither reads nor answers; `stalls` in the last line are the true (begin, end) of each
standstill in ns of the monotonic clock, and with `stamped` so is when each answer was written, in
`stamps`, with the client's port. `misbehave` says how it answers every `every`-th request.
`made` are the moments of its connections, in ns since it began to listen.
With `cert` (a PEM file with its key) it speaks TLS; with `client_ca` it wants a certificate, too.
"""

import asyncio
import json
import os
import socket
import ssl
import struct
import sys
import time
from typing import Any

import uvloop

OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [0.25, -1.5, 3.0]}
BODY = json.dumps({"model_name": "m", "model_version": "1", "outputs": [OUTPUT]}).encode()
WRONG = json.dumps({"outputs": [{**OUTPUT, "shape": [1, 2], "data": [1.0, 2.0]}]}).encode()
TYPE = b"Content-Type: application/json\r\n"


def answer(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + TYPE + extra + length + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:half], body[half:]))
    return head + parts + b"0\r\nX-Trailer: 1\r\n\r\n"


GOOD = answer(BODY)
# what is written instead of a good answer, and whether the connection is closed after it
BAD: dict[str, tuple[bytes, bool]] = {
    "wrong": (answer(WRONG), False),
    "garbage": (b"no HTTP at all\r\n\r\n", False),
    "short": (GOOD[:-10], True),
    "long": (GOOD + b"more", False),
    "close": (b"", True),
    "chunked": (chunked(BODY), False),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, False),
    "until_close": (b"HTTP/1.0 200 OK\r\n" + TYPE + b"\r\n" + BODY, True),
    "last": (answer(BODY, extra=b"Connection: close\r\n"), True),
    "hasty": (GOOD, True),  # and does not say so
    "busy": (answer(b'{"error":"busy"}', b"503 Service Unavailable"), False),
    "timing": (answer(BODY, extra=b"Server-Timing: queue;dur=1.5, compute;dur=2, size;desc=4\r\n"),
               False),
    "hang": (b"", False),
    "trickle": (GOOD[:-10], False),
    "reset": (b"", False),
    "reset_amid": (GOOD[:-10], False),
    "half_closed": (b"", False),
    "half_closed_amid": (GOOD[:-10], False),
    "stray": (GOOD, False),
}  # fmt: skip
STRAY_S = 0.02  # after which a stray answer follows the answer proper


class Server:
    """The counts of all connections, and the standstills."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.service = options.get("service_ms", 0) / 1000
        self.stall = int(options.get("stall_ms", 0) * 1e6)
        self.period = int(options.get("period_ms", 0) * 1e6)
        self.misbehave = options.get("misbehave", "")
        self.every = options.get("every", 1)
        self.idle = options.get("idle_ms", 0) / 1000  # after which a connection is closed
        kept = options.get("kept_s", 0)  # for how long it says that it keeps idle connections
        self.answer = answer(BODY, extra=b"Keep-Alive: timeout=%d\r\n" % kept) if kept else GOOD
        self.got = self.good = self.bad = self.connections = self.resumed = 0
        self.stalls: list[tuple[int, int]] = []
        self.made: list[int] = []
        self.stamped = options.get("stamped", False)
        self.stamps: list[tuple[int, int]] = []
        self.begun = time.monotonic_ns()

    async def stand_still(self) -> None:
        """Blocks the whole loop, as a garbage collection would."""
        number = 0
        while self.stall:  # the first time after half a period
            due = self.begun + number * self.period + self.period // 2
            await asyncio.sleep((due - time.monotonic_ns()) / 1e9)
            begin = time.monotonic_ns()
            time.sleep(self.stall / 1e9)
            self.stalls.append((begin, time.monotonic_ns()))
            number += 1


class Connection(asyncio.Protocol):
    """Reads requests by their Content-Length and answers each."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.data = b""
        server.connections += 1
        server.made.append(time.monotonic_ns() - server.begun)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        tls = transport.get_extra_info("ssl_object")
        self.server.resumed += tls is not None and tls.session_reused

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            at = self.data.lower().find(b"content-length:", 0, end)
            length = int(self.data[at + 15 : end].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            self.data = self.data[end + 4 + length :]
            if self.server.service:
                loop = asyncio.get_running_loop()
                loop.call_later(self.server.service, self.respond)
            else:
                self.respond()

    def respond(self) -> None:
        server = self.server
        server.got += 1
        if server.misbehave and server.got % server.every == 0:
            server.bad += 1
            data, close = BAD[server.misbehave]
            how = server.misbehave
        else:
            server.good += 1
            data, close, how = server.answer, False, ""
        if server.stamped:  # uvloop writes only at the end of its round, all at once
            os.write(self.transport.get_extra_info("socket").fileno(), data)
            port = self.transport.get_extra_info("peername")[1]
            server.stamps.append((port, time.monotonic_ns()))
        elif data:
            self.transport.write(data)
        if how.startswith("reset"):
            fd = self.transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(fd)) as mine:
                mine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif how.startswith("half_closed"):
            self.transport.write_eof()
        elif how == "stray":
            loop = asyncio.get_running_loop()
            loop.call_later(STRAY_S, self.transport.write, answer(b"", b"408 Request Timeout"))
        elif close:
            self.transport.close()
        elif server.idle:
            asyncio.get_running_loop().call_later(server.idle, self.transport.close)


def secured(options: dict[str, Any]) -> ssl.SSLContext | None:
    if "cert" not in options:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options["cert"])
    if "client_ca" in options:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(options["client_ca"])
    return context


async def main(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    server = Server(options)
    listener = await loop.create_server(
        lambda: Connection(server),
        "127.0.0.1",
        options.get("port", 0),
        backlog=4096,
        ssl=secured(options),
    )
    print(listener.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    still = asyncio.create_task(server.stand_still())
    await ended.wait()
    still.cancel()
    keys = ("got", "good", "bad", "connections", "resumed", "stalls", "made", "stamps")
    print(json.dumps({key: getattr(server, key) for key in keys}), flush=True)


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}))
