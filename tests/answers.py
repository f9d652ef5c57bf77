"""Answers to take apart: good ones of every kind, changes to them, and what a connection that has
learned makes of them beside one that asks the parser about every byte."""

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from loadbench.load.answer import Kind
from loadbench.load.connection import Connection
from loadbench.model import Tensor
from loadbench.plan import Endpoint
from loadbench.targets import kserve, plain
from loadbench.targets.wire import Check

TYPE = b"Content-Type: application/json\r\n"


class Case(NamedTuple):
    """What came on one connection, in which pieces; and what its kind had learned from before."""

    check: str
    taught: tuple[bytes, ...]
    data: bytes
    cuts: tuple[int, ...]
    closes: bool  # the server ends the connection afterwards

    @property
    def pieces(self) -> list[bytes]:
        edges = sorted({0, len(self.data), *(cut for cut in self.cuts if cut < len(self.data))})
        return [self.data[a:b] for a, b in pairwise(edges)]


class Seen(NamedTuple):
    """What a connection said: the failure ("" for none, None for nothing yet), after how many
    pieces, and whether it can be used on."""

    failure: str | None
    pieces: int
    reusable: bool


def see(kind: Kind, case: Case) -> Seen:
    """What one connection makes of it."""
    connection = Connection(kind, 0)
    pieces = [*case.pieces, b""] if case.closes else case.pieces
    for number, piece in enumerate(pieces, 1):
        failure = connection.take(piece)
        if failure is not None:
            return Seen(failure, number, not failure and connection.reusable)
    return Seen(None, len(pieces), False)


def both(case: Case) -> tuple[Seen, Seen]:
    """(by what was learned, by the parser alone). They must not differ."""
    learned, fresh = (Kind(0, "x", CHECKS[case.check]) for _ in range(2))
    for data in case.taught:
        assert see(learned, Case(case.check, (), data, (), False)).failure == "", data
    return see(learned, case), see(fresh, case)


def body(**changed: object) -> bytes:
    y = {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0.5, -1.25, 3, 4e-3, 5, 6]}
    n = {"name": "n", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    return json.dumps({"model_name": "m", "outputs": [{**y, **changed}, n]}).encode()


def single(value: object) -> bytes:
    y = {"name": "y", "datatype": "FP32", "shape": [1], "data": value}
    return json.dumps({"outputs": [y]}, separators=(",", ":")).encode()


def answer(content: bytes, fields: bytes = TYPE, status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d\r\n\r\n" % len(content)
    return b"HTTP/1.1 " + status + b"\r\n" + fields + length + content


def chunked(content: bytes, trailer: bytes = b"") -> bytes:
    parts = [content[at : at + 40] for at in range(0, len(content), 40)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    head = b"HTTP/1.1 200 OK\r\n" + TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n" + trailer + b"\r\n"


def binary(size: int = 24, shape: Sequence[int] = (2, 3), tail: bytes = bytes(range(40))) -> bytes:
    y = {"name": "y", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    n = {"name": "n", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"outputs": [y, n]}).encode()
    fields = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
    return answer(text + tail, fields % len(text))


def _checks() -> dict[str, Check]:
    y, n = Tensor("y", "FP32", (3,)), Tensor("n", "INT64", ())
    pair = Endpoint(host="h", port=1, protocol="kserve", model="m", outputs=(y, n))
    one = Endpoint(host="h", port=1, protocol="kserve", outputs=(Tensor("y", "FP32", ()),))
    return {
        "pair": kserve.checker(pair, rows=2), "one": kserve.checker(one, rows=1),
        "plain": plain.check,
    }  # fmt: skip


CHECKS = _checks()
DATED = TYPE + b"Date: Mon, 01 Jan 2024\r\nServer-Timing: queue;dur=1.5\r\n"
# good answers that teach something, by check
GOOD: dict[str, list[bytes]] = {
    "pair": [
        answer(body()), answer(body(), DATED), answer(body(), b"connection: keep-alive\r\n" + TYPE),
        binary(), binary(tail=bytes(40)), answer(body(data=[[1, 2, 3], [4, 5, 6]])),
        answer(body().replace(b" ", b"")), answer(body(), TYPE + b"X: 1\r\nX: 2\r\n"),
    ],
    "one": [answer(single([0.25])), answer(single([-1e9]), DATED)],
    "plain": [
        answer(b"hello"), answer(b"hello, hello, hello", DATED), answer(b""),
        answer(bytes(300)), b"HTTP/1.1 204 No Content\r\n\r\n", answer(b"x", status=b"201 Created"),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ],
}  # fmt: skip
# and others: good ones that teach nothing, wrong ones, ones that are no answers
OTHER = [
    chunked(body()), chunked(single([1.0]), b"X-Trailer: 1\r\n"),
    answer(gzip.compress(body(), mtime=0), TYPE + b"Content-Encoding: gzip\r\n"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(body()),
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(single([2.0])),
    b"HTTP/1.0 200 OK\r\n\r\n" + body(), b"HTTP/1.1 200 OK\r\n\r\n" + single([1.0]),
    answer(body(), TYPE + b"Connection: close\r\n"),
    answer(body(), TYPE + b"X-Folded: a\r\n b\r\n"), answer(body(), TYPE + b"X:\r\n\tfolded\r\n"),
    answer(body(), TYPE + b"Content-Length: 5\r\n"), answer(body(), b"Content-Length : 3\r\n"),
    answer(body(data=[1, 2, 3, 4, 5])), answer(body(data=["a"] * 6)), answer(body(shape=[3, 2])),
    answer(body(name="z")), answer(single([])), answer(single([1, 2])), answer(single([[1]])),
    answer(single("x")), answer(b'{"error": "busy"}', status=b"503 Service Unavailable"),
    answer(b'{"error": "no"}'), answer(b"", b"Location: /\r\n", b"302 Found"),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nx", b"\r\n\r\n", b"",
    answer(b"hello", b"Transfer-Encoding: chunked\r\n"), answer(b"a" * 3000),
    binary(tail=bytes(39)), binary(20, tail=bytes(36)), binary(shape=(3, 2)),
]  # fmt: skip
TOKENS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b"[", b"]", b"[]", b"0", b"-", b"e",
    b"1e999", b"00", b"\xff", b"\x7f", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n", b" \r\n", b"\r\n ", b'"data": [',
    b"Content-Encoding: gzip\r\n", b"chunked", b"999999999999999999999", b'"', b"}", b"NaN", b".",
    b"Inference-Header-Content-Length: 1\r\n", b"0\r\n\r\n",
]  # fmt: skip


def change(data: bytes, draw: Random, others: Sequence[bytes]) -> bytes:
    """One change, small or large."""
    at = draw.randrange(len(data) + 1)
    to = min(len(data), at + draw.choice((1, 1, 2, 5, 20, 200)))
    match draw.randrange(10):
        case 0:
            return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + draw.choice(TOKENS) + data[at:]
        case 2:
            return data[:at] + draw.choice(TOKENS) + data[to:]
        case 3:
            return data[:at] + data[to:]
        case 4:
            return data[:at] + data[at:to] * 2 + data[to:]
        case 5:
            return data[:at]
        case 6:
            other = draw.choice(others)
            return data[:at] + other[draw.randrange(len(other) + 1) :]
        case 7:
            return _lines(data, draw)
        case 8:
            return _length(data, draw)
        case _:
            return data + draw.choice((*others, *TOKENS))


def _lines(data: bytes, draw: Random) -> bytes:
    """Header lines in another order, one twice, one left out, one in other letters."""
    head, end, rest = data.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    if fields:
        at = draw.randrange(len(fields))
        match draw.randrange(4):
            case 0:
                draw.shuffle(fields)
            case 1:
                fields.insert(draw.randrange(len(fields) + 1), fields[at])
            case 2:
                del fields[at]
            case _:
                fields[at] = fields[at].swapcase()
    return b"\r\n".join([first, *fields]) + end + rest


def _length(data: bytes, draw: Random) -> bytes:
    """Another number in the content length, or the same said otherwise."""
    before, name, after = data.partition(b"Content-Length:")
    value, end, rest = after.partition(b"\r\n")
    number = value.strip()
    if not number.isdigit():
        return data
    other = int(number) + draw.choice((0, 1, -1, 10, -10, 10**11))
    form = draw.choice((b" %d", b"%d", b"\t%d ", b" 00%d", b" +%d", b" %d,", b" 0x%x", b" -%d"))
    return before + name + form % max(0, other) + end + rest


def made(draw: Random, corpus: Sequence[bytes] = ()) -> Case:
    """A case as it comes: mostly a good answer with few changes."""
    check = draw.choice(list(GOOD))
    good = GOOD[check]
    taught = tuple(draw.sample(good, draw.randint(1, min(3, len(good)))))
    bases = (taught, taught, good, OTHER, corpus or good)
    data = draw.choice(draw.choice(bases))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 6))):
        data = change(data, draw, draw.choice((good, OTHER)))
    number = draw.choice((0, 0, 1, 3, 10)) if data else 0
    cuts = tuple(draw.randrange(1, len(data) + 1) for _ in range(number))
    return Case(check, taught, data, cuts, draw.random() < 0.7)
