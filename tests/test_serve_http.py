"""HTTP as rough clients speak it: byte by byte, all at once, compressed, broken, too large."""

import gzip
import json
import os
import random
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from loadbench.engine.crowd import Crowd
from loadbench.engine.http import HEAD_BYTES, Connection, Handler, Limits
from loadbench.engine.packing import inflated
from loadbench.engine.tensors import Refused
from tests.served import (
    Answer,
    Engine,
    read_answer,
    request_binary,
    request_json,
    rows,
    serving,
    settings,
    whole,
)

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake", *settings("fake.a=1 ms", "max_batch=8")) as found:
        yield found


def message(first: float = 0, path: str = "/v2/models/fake/infer") -> bytes:
    body, headers = request_binary(rows(1, first))
    return whole(body, int(headers["Inference_Header_Content_Length"]), path)


def talk(engine: Engine, *parts: bytes, answers: int = 1) -> list[Answer]:
    """Sends the parts one after the other, and reads so many answers."""
    with engine.connect() as connection, connection.makefile("rb") as stream:
        for part in parts:
            connection.sendall(part)
            if len(parts) > 1:
                time.sleep(0.002)
        return [read_answer(stream) for _ in range(answers)]


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, soon."""
    connection.settimeout(10)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def is_alive(engine: Engine) -> bool:
    return talk(engine, message(3))[0].tail == rows(1, 3).tobytes()


def test_a_connection_serves_many_requests(engine: Engine) -> None:
    with engine.connect() as connection, connection.makefile("rb") as stream:
        for number in range(50):
            connection.sendall(message(number))
            assert read_answer(stream).tail == rows(1, number).tobytes()


def test_head_gets_the_head_of_the_answer_and_nothing_more(engine: Engine) -> None:
    heads = [LIVE.replace(b"GET /v2/health/live", b"HEAD " + path) for path in (b"/v2", b"/no")]
    with engine.connect() as connection:
        connection.sendall(
            b"".join(heads) + LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        with connection.makefile("rb") as stream:
            server, unknown, live, rest = stream.read().split(b"\r\n\r\n")
    assert server.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: 0" not in server
    assert unknown.startswith(b"HTTP/1.1 404 ")
    assert live.startswith(b"HTTP/1.1 200 ")
    assert not rest


def test_pipelined_requests_are_answered_in_order(engine: Engine) -> None:
    unknown = b"GET /no HTTP/1.1\r\n\r\n"
    wish = b"".join((LIVE, message(number), unknown)[number % 3] for number in range(300))
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(wish)
        for number in range(300):
            answer = read_answer(stream)
            assert answer.status == (200, 200, 404)[number % 3]
            if number % 3 == 1:
                assert answer.tail == rows(1, number).tobytes()


def test_a_request_may_come_byte_by_byte(engine: Engine) -> None:
    raw = message(5)
    parts = [raw[at : at + 1] for at in range(len(raw))]
    assert talk(engine, *parts)[0].tail == rows(1, 5).tobytes()


def test_chunked_bodies(engine: Engine) -> None:
    body, headers = request_binary(rows(1, 9))
    head = (
        "POST /v2/models/fake/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        f"INFERENCE-HEADER-CONTENT-LENGTH: {headers['Inference_Header_Content_Length']}\r\n\r\n"
    )
    chunks = [body[at : at + 50] for at in range(0, len(body), 50)]
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert talk(engine, head.encode() + raw)[0].tail == rows(1, 9).tobytes()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "identity"])
def test_compressed_bodies(engine: Engine, encoding: str) -> None:
    body, headers = request_binary(rows(1, 4))
    raw_deflate = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(body, mtime=0),
        "deflate": zlib.compress(body),
        "raw deflate": raw_deflate.compress(body) + raw_deflate.flush(),
        "identity": body,
    }[encoding]
    answer = engine.call(
        "/v2/models/fake/infer", packed, Content_Encoding=encoding.split()[-1], **headers
    )
    assert answer.tail == rows(1, 4).tobytes()


@pytest.mark.parametrize(
    ("encoding", "packed", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400),
        ("deflate", b"\x00no deflate", 400),
        ("br", b"{}", 415),
    ],
)
def test_bodies_that_cannot_be_unpacked(
    engine: Engine, encoding: str, packed: bytes, status: int
) -> None:
    answer = engine.call("/v2/models/fake/infer", packed, Content_Encoding=encoding)
    assert answer.status == status
    assert answer.json["error"]


def test_a_decompression_bomb_is_refused(engine: Engine) -> None:
    bomb = gzip.compress(bytes(Limits().body + 1))
    assert len(bomb) < 100_000
    answer = engine.call("/v2/models/fake/infer", bomb, Content_Encoding="gzip")
    assert answer.status == 413
    assert inflated(gzip.compress(bytes(1000)), b"gzip", 1000) == bytes(1000)
    with pytest.raises(Refused):
        inflated(gzip.compress(bytes(1001)), b"gzip", 1000)


def test_an_expectation_is_met_before_the_body_is_sent(engine: Engine) -> None:
    raw = message(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    head, _, body = raw.partition(b"\r\n\r\n")
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(head + b"\r\n\r\n")
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        connection.sendall(body)
        assert read_answer(stream).tail == rows(1, 2).tobytes()
        connection.sendall(LIVE.replace(b"Host", b"Expect"))
        assert read_answer(stream).status == 417


def test_an_expectation_behind_another_request_is_met_after_its_answer(engine: Engine) -> None:
    raw = message(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    head, _, body = raw.partition(b"\r\n\r\n")
    for first in (message(1), gzipped(message(1))):
        with engine.connect() as connection, connection.makefile("rb") as stream:
            connection.settimeout(5)
            connection.sendall(first + head + b"\r\n\r\n")
            assert read_answer(stream).status == 200
            assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert stream.readline() == b"\r\n"
            connection.sendall(body)
            assert read_answer(stream).tail == rows(1, 2).tobytes()


def gzipped(raw: bytes) -> bytes:
    """It asks for a packed answer, which takes another way."""
    return raw.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n", 1)


def test_whoever_waits_to_be_asked_for_a_body_is_not_too_slow() -> None:
    class Slow(Nobody):
        def infer(self, exchange: Any, data: bytes, start: int) -> None:
            asked.append(exchange)

    asked: list[Any] = []
    found, wire = connection(Slow())
    raw = message(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    found.data_received(message(1) + raw[: raw.index(b"\r\n\r\n") + 4])
    found.sweep(time.monotonic() + 1000)
    asked[0].answer(b"")
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    found.sweep(time.monotonic() + 1000)
    assert b" 408 " in wire.written


def test_too_large_a_body_is_refused_before_it_is_sent(engine: Engine) -> None:
    head = (
        b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    )
    for length in (Limits().body + 1, 10**15):
        with engine.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(head % length)
            answer = read_answer(stream)
            assert answer.status == 413
            assert answer.headers["connection"] == "close"
            assert is_closed(connection)
    assert is_alive(engine)


def test_too_large_a_chunked_body_is_refused_while_it_comes(engine: Engine) -> None:
    chunk = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"POST /v2/models/fake/infer HTTP/1.1\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        try:
            for _ in range(80):
                connection.sendall(chunk)
        except OSError:
            pass  # it may have hung up already
        assert read_answer(stream).status == 413
    assert is_alive(engine)


def test_an_endless_head_is_refused(engine: Engine) -> None:
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nX: ")
        try:
            for _ in range(50):
                connection.sendall(b"a" * 20_000)
                time.sleep(0.001)
        except OSError:
            pass  # it may have hung up already
        assert read_answer(stream).status == 431
    assert is_alive(engine)


@pytest.mark.parametrize("before", [b"0\r\nX: ", b"5;x="])
def test_endless_headers_behind_a_body_are_refused(engine: Engine, before: bytes) -> None:
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"POST /v2/models/fake/infer HTTP/1.1\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n" + before)  # fmt: skip
        try:
            for _ in range(50):
                connection.sendall(b"a" * 20_000)
                time.sleep(0.001)
        except OSError:
            pass  # it may have hung up already
        connection.settimeout(5)
        assert read_answer(stream).status == 431
    assert is_alive(engine)


def test_a_trailer_changes_nothing(engine: Engine) -> None:
    body = json.dumps(request_json(rows(1))).encode()
    raw = b"POST /v2/models/fake/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    trailers = b"Inference-Header-Content-Length: 3\r\nContent-Encoding: br\r\n\r\n"
    assert talk(engine, raw + trailers)[0].status == 200


def test_a_body_in_many_small_chunks_is_no_large_head() -> None:
    found, wire = connection()
    found.data_received(
        b"POST /v2/models/fake/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(HEAD_BYTES // 3):
        found.data_received(b"1\r\n")
        found.data_received(b"x\r\n")
    assert not wire.written


GARBAGE = [
    b"hello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"GET /v2 HTTP/9.9\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /v2/models/fake/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("raw", GARBAGE)
def test_garbage_gets_a_400_and_an_end(engine: Engine, raw: bytes) -> None:
    with engine.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(raw)
        answer = read_answer(stream)
        assert answer.status == 400
        assert json.loads(answer.body)["error"]
        assert is_closed(connection)
    assert is_alive(engine)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b'"\xff"', b"[]", b"{"])
@pytest.mark.parametrize(
    "path",
    ["/v2/repository/index", "/v2/repository/models/fake/load", "/v2/models/fake/infer",
     "/v2/repository/models/fake/traffic", "/v2/logging", "/v2/trace/setting"],
)  # fmt: skip
def test_json_that_is_none_or_too_deep_is_a_400(engine: Engine, path: str, body: bytes) -> None:
    answer = engine.call(path, body)
    assert answer.status == 400
    assert answer.json["error"]


def test_random_bytes_hurt_nobody(engine: Engine) -> None:
    source = random.Random(1)
    good = message(1)
    for _ in range(200):
        raw = bytearray(good if source.random() < 0.7 else os.urandom(200))
        for _ in range(source.randrange(1, 6)):
            raw[source.randrange(len(raw))] = source.randrange(256)
        with engine.connect() as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            assert is_closed(connection)
    assert is_alive(engine)
    assert engine.process.poll() is None


def test_half_a_request_and_a_hang_up_leave_nothing(engine: Engine) -> None:
    raw = message(1)
    before = open_files(engine)
    for cut in range(1, len(raw), 40):
        with engine.connect() as connection:
            connection.sendall(raw[:cut])
    assert is_alive(engine)
    for _ in range(100):
        if open_files(engine) <= before:
            return
        time.sleep(0.02)
    raise AssertionError("connections stay open")


def open_files(engine: Engine) -> int:
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


def test_close_and_old_clients(engine: Engine) -> None:
    for raw in (
        LIVE.replace(b"Host: x", b"Connection: close"),
        LIVE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with engine.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(raw)
            answer = read_answer(stream)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert stream.read() == b""


def test_an_upgrade_is_not_made_and_the_request_answered(engine: Engine) -> None:
    for raw in (
        LIVE.replace(b"Host: x", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"),
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with engine.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(raw)
            assert read_answer(stream).status == (200 if raw.startswith(b"GET") else 404)
            assert stream.read() == b""


def test_a_client_that_reads_nothing_does_not_stop_others(engine: Engine) -> None:
    body, headers = request_binary(rows(8))
    raw = whole(body, int(headers["Inference_Header_Content_Length"]))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.connect(("127.0.0.1", engine.port))
        connection.settimeout(0.5)
        try:
            for _ in range(100_000):
                connection.sendall(raw)
        except TimeoutError:
            pass
        else:
            raise AssertionError("the engine took everything from a client that reads nothing")
        assert is_alive(engine)


class Wire:
    """A transport that keeps what is written: for what would take a test too long to wait for."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = self.closed = self.ended = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Nobody:
    """Answers nothing."""

    def endpoint(self, path: bytes) -> "Nobody":
        return self

    def infer(self, exchange: Any, data: bytes, start: int) -> None: ...
    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        return b""

    def abandon(self, exchange: Any) -> None: ...
    def announce(self, number: int) -> None: ...
    def settle(self, exchange: Any, result: Any) -> bool:
        return True

    def form(self, exchange: Any, ran: Any) -> None: ...


def connection(handler: Handler | None = None) -> tuple[Connection, Any]:
    wire: Any = Wire()
    found = Connection(handler or Nobody(), Limits(), Crowd())
    found.connection_made(wire)
    return found, wire


def test_a_request_that_drips_is_ended_and_an_idle_connection_is_not() -> None:
    found, wire = connection()
    found.sweep(time.monotonic() + 1000)
    assert not wire.written
    found.data_received(b"POST /v2/models/fake/infer HTTP/1.1\r\n")
    found.sweep(time.monotonic() + 9)
    assert not wire.written
    found.sweep(time.monotonic() + 11)
    assert wire.written.startswith(b"HTTP/1.1 408 ")
    assert wire.ended
    found.sweep(time.monotonic() + 60)
    assert wire.aborted


def test_many_requests_in_one_piece_are_no_large_head() -> None:
    """The piece begins and ends within a head, with thousands of whole requests between."""
    found, wire = connection()
    found.data_received(LIVE[:20])
    piece = LIVE[20:] + LIVE * 2000 + LIVE[:20]
    assert len(piece) > HEAD_BYTES
    for _ in range(3):
        found.data_received(piece)
    assert not wire.ended
    assert b" 431 " not in wire.written
    for _ in range(3):
        found.data_received(b"x" * (HEAD_BYTES // 2))
    assert wire.ended


def test_a_large_body_may_take_longer() -> None:
    found, wire = connection()
    found.data_received(b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
    found.data_received(bytes(20_000_000))
    found.sweep(time.monotonic() + 200)
    assert not wire.written
    found.sweep(time.monotonic() + 400)
    assert wire.written.startswith(b"HTTP/1.1 408 ")


def test_a_request_in_flight_is_never_too_slow() -> None:
    found, wire = connection()
    found.data_received(message(1))
    found.sweep(time.monotonic() + 1000)
    assert not wire.written


def test_an_answer_that_nobody_reads_is_dropped() -> None:
    found, wire = connection()
    found.pause_writing()
    found.sweep(time.monotonic() + 29)
    assert not wire.aborted
    found.sweep(time.monotonic() + 31)
    assert wire.aborted
