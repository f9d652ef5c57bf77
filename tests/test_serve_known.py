"""Heads that were read before take a shorter way: it must lead to the same as the parser's."""

import gzip
import random
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadbench.engine.crowd import Crowd
from loadbench.engine.exchange import Exchange
from loadbench.engine.http import Connection, Limits
from loadbench.engine.tensors import Refused
from tests.served import Engine, read_answer, request_binary, rows, serving, settings, whole
from tests.test_serve_http import Wire, open_files


class Echo:
    """Answers with what it was asked, at once or later, or refuses."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.held: list[tuple[Exchange, bytes]] = []
        self.seen: list[tuple[int | None, bytes]] = []

    def endpoint(self, path: bytes) -> "Echo | None":
        return self if path.startswith(b"/infer") else None

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        return b"%b %b %b;" % (method, path, body)

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        body = bytes(data[start:])
        self.seen.append((exchange.header_length, body))
        draw = self._random.random()
        if draw < 0.1:
            raise Refused(400, "no")
        if draw > 0.99:
            raise ValueError("a fault of ours")
        said = b"%r %b;" % (exchange.header_length, body)
        if draw < 0.5:
            exchange.answer(said)
        else:
            self.held.append((exchange, said))

    def abandon(self, exchange: Exchange) -> None:
        self.held = [kept for kept in self.held if kept[0] is not exchange]

    def announce(self, number: int) -> None: ...

    def settle(self, exchange: Exchange, result: Any) -> bool:
        return True

    def form(self, exchange: Exchange, ran: Any) -> None: ...

    def release(self) -> None:
        """Answers what was held, in any order."""
        self._random.shuffle(self.held)
        for exchange, said in self.held:
            exchange.connection.send(exchange, said)
        self.held.clear()


class Forgetful(Connection):
    """Reads every head anew."""

    def _learn(self, exchange: Exchange, body: bytes) -> None: ...


def side(kind: type[Connection], seed: int) -> tuple[Connection, Echo, Any]:
    echo, wire = Echo(seed), Wire()
    found = kind(echo, Limits(body=4096), Crowd())
    found.connection_made(wire)  # type: ignore[arg-type]
    return found, echo, wire


HEADERS = [
    b"Host: x", b"X-Long: " + b"y" * 300, b"Connection: keep-alive", b"connection:close",
    b"Expect: 100-continue", b"Expect: else", b"Content-Encoding: gzip", b"Upgrade: h2c",
    b"Content-Encoding: identity", b"inference-header-content-length:  4 ",
    b"Inference-Header-Content-Length: 9999999999999999", b"Inference-Header-Content-Length: x",
    b"Content-Length: 5", b"Content-Length: 70000", b"Transfer-Encoding: chunked", b"no colon",
    b"X: a\r\n b", b"X:", b"Connection: upgrade",
]  # fmt: skip


def request(source: random.Random) -> bytes:
    """A request, mostly a good one."""
    body = bytes(source.choices(b"ab\r\n:5", k=source.choice([0, 5, 40])))
    first = source.choices(
        [b"POST /infer HTTP/1.1", b"POST /infer?q=1 HTTP/1.1", b"GET /infer HTTP/1.1",
         b"POST /other HTTP/1.1", b"POST /infer HTTP/1.0", b"HEAD /other HTTP/1.1"],
        [10, 1, 1, 1, 0.3, 1],
    )[0]  # fmt: skip
    headers = [b"Inference-Header-Content-Length: 3"] if source.random() < 0.7 else []
    if source.random() < 0.3:
        headers += source.sample(HEADERS, source.choice([1, 1, 2]))
    if b"Content-Encoding: gzip" in headers and source.random() < 0.5:
        body = gzip.compress(body, mtime=0)
    if b"Transfer-Encoding: chunked" in headers:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    else:
        headers.append(b"Content-Length: %d" % len(body))
    end = b"\n" if source.random() < 0.02 else b"\r\n"
    raw = end.join([first, *headers, b"", b""]) + body
    if source.random() < 0.03:
        return b"\r\n" + raw
    return raw


def pieces(source: random.Random) -> list[bytes]:
    """A client's requests, many of them again and again, whole or in parts or several at once."""
    known = [request(source) for _ in range(3)]
    found: list[bytes] = []
    for _ in range(source.randrange(5, 25)):
        raw = source.choice(known) if source.random() < 0.9 else request(source)
        draw = source.random()
        if draw < 0.1:
            raw += source.choice(known)
        elif draw < 0.2:
            cut = source.randrange(len(raw) + 1)
            found.append(raw[:cut])
            raw = raw[cut:]
        elif draw < 0.25:
            at = source.randrange(len(raw))
            raw = raw[:at] + bytes([source.randrange(256)]) + raw[at + 1 :]
        elif draw < 0.3:  # a request that is the body of another one
            found.append(b"POST /infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(raw))
        found.append(raw)
    return [piece for piece in found if piece]


@pytest.mark.parametrize("seed", range(8))
def test_the_short_way_and_the_parser_say_the_same(seed: int) -> None:
    short = 0
    for number in range(100):
        source = random.Random(seed * 1000 + number)
        ours, theirs = side(Connection, number), side(Forgetful, number)
        for piece in pieces(source):
            for connection, echo, _ in (ours, theirs):
                connection.data_received(piece)
                if number % 2:
                    echo.release()
            known = ours[0]._known
            short += known is not None and len(piece) == known.total
            assert ours[1].seen == theirs[1].seen
            assert vars(ours[2]) == vars(theirs[2])
        for _, echo, _ in (ours, theirs):
            echo.release()
        assert vars(ours[2]) == vars(theirs[2])
    assert short > 100  # else nothing was compared


def test_a_known_head_is_asked_anew_whose_it_is() -> None:
    connection, echo, wire = side(Connection, 1)
    raw = b"POST /infer HTTP/1.1\r\nContent-Length: 1\r\n\r\na"
    connection.data_received(raw)
    connection.data_received(raw)
    assert len(echo.seen) == 2
    echo.endpoint = lambda path: None  # type: ignore[method-assign]
    connection.data_received(raw)
    echo.release()
    assert len(echo.seen) == 2
    assert wire.written.endswith(b"POST /infer a;")


def test_requests_of_several_plans_share_batches_and_get_each_its_own() -> None:
    """One, two and three rows, ids, JSON and binary, all at once and then one by one."""
    with serving("fake", *settings("fake.a=5 ms", "max_batch=8", "fake.width=3")) as engine:
        raws = [message(number) for number in range(60)]
        with engine.connect() as connection, connection.makefile("rb") as stream:
            connection.sendall(b"".join(raws))
            together = [read_answer(stream) for _ in raws]
            alone = []
            for raw in raws:
                connection.sendall(raw)
                alone.append(read_answer(stream))
        stats = engine.stats()
    for number, (first, second) in enumerate(zip(together, alone, strict=True)):
        assert first.status == 200
        assert first.body == second.body
        (times, again) = (found.headers.pop("server-timing") for found in (first, second))
        assert re.fullmatch(TIMES + RIDE, times)
        assert f"size;desc={1 + number % 3}, closed;desc=" in again
        assert first.headers == second.headers
        if number % 4:
            assert first.tail == inputs(number).tobytes()
        else:
            assert first.json["outputs"][0]["data"] == inputs(number).ravel().tolist()
        assert first.json.get("id") == (str(number) if number % 5 == 0 else None)
        assert first.json["outputs"][0]["shape"] == [1 + number % 3, 3]
    assert stats["inference_stats"]["success"]["count"] == 120
    assert stats["execution_count"] < 110


TIMES = r"queue;dur=\d+\.\d{3}, batch;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}, size;desc=[1-8]"
RIDE = r", closed;desc=[\w.-]+, number;desc=\d+(, after;dur=[\d.]+)?(, before;desc=[\w.-]+)?"


def inputs(number: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.ascontiguousarray(rows(1 + number % 3, number)[:, :3])


def message(number: int) -> bytes:
    more: dict[str, Any] = {"id": str(number)} if number % 5 == 0 else {}
    if number % 4 == 0:
        more["parameters"] = {"binary_data_output": False}
    body, headers = request_binary(inputs(number), **more)
    return whole(body, int(headers["Inference_Header_Content_Length"]))


def test_a_client_that_goes_at_any_stage_frees_its_place() -> None:
    raw = message(1)
    with serving("fake", *settings("fake.a=600 ms", "max_batch=2", "fake.width=3")) as engine:
        files = open_files(engine)
        with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):  # their heads are known from now on
                connection.sendall(raw)
            for connection in (first, second):
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
            first.sendall(raw)
            wait_for(lambda: health(engine)["open"] == 1 and health(engine)["waiting"] == 0)
            second.sendall(raw)
            wait_for(lambda: health(engine)["waiting"] == 1)
            second.close()  # while it waits
            wait_for(lambda: health(engine)["waiting"] == 0)
            assert engine.stats()["loadbench"]["shed"] == {"cancelled": 1}
            first.close()  # while it runs
        for cut in (20, len(raw) - 5):  # within the head, within the body
            with engine.connect() as connection:
                connection.sendall(raw[:cut])
        wait_for(lambda: health(engine)["open"] == 0 and open_files(engine) <= files)
        with engine.connect() as connection:
            connection.sendall(raw)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        assert health(engine)["open"] == 0
        assert engine.stats()["loadbench"]["shed"] == {"cancelled": 1}


def health(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.call("/health").json
    return found


def wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")
