"""What a request is on the wire, and what is known of its answers, whatever the protocol.

The load prepares all requests before a run. An answer is checked in full by its protocol
(`Check`); the `Form` which that returns lets later answers like it be checked cheaply.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loadbench import environment
from loadbench.errors import SpecError
from loadbench.plan import Endpoint
from loadbench.units import hostport

MOST = 256 << 20  # bytes of one answer, packed or not


class Form(NamedTuple):
    """What the bodies of good answers of one kind have in common, literally.

    A body fits if it begins with `prefix`, has `length` bytes, and matches `pattern` whole, whose
    groups are JSON arrays of as many numbers as `counts` says; what is None is left open. Without a
    pattern there may be `later` literals, each with the place where it begins.
    """

    prefix: bytes = b""
    length: int | None = None
    pattern: re.Pattern[bytes] | None = None
    counts: tuple[int, ...] = ()
    later: tuple[tuple[int, bytes], ...] = ()


Headers = Mapping[bytes, bytes]  # names in lower case
# (headers, body) → the form of such bodies, None if there is none; raises BadAnswer
Check = Callable[[Headers, bytes], Form | None]


class BadAnswer(Exception):
    """An answer of status 2xx that is not what was asked for, or no answer at all."""

    failure = "bad_answer"


class OverLong(BadAnswer):
    """More than an answer: bytes beyond its framing, or beyond what is taken of any."""

    failure = "over_long"


class WrongOutput(BadAnswer):
    """An answer as it should be but for what it says: not what was expected of these inputs."""

    failure = "wrong_output"


def decoded(headers: Headers, body: bytes, most: int = MOST) -> bytes:
    """The body as it was before it was packed. Raises BadAnswer for what cannot be unpacked, and
    OverLong for what would become more than `most` bytes."""
    coding = headers.get(b"content-encoding", b"identity").lower()
    if coding == b"identity":
        return body
    if coding not in (b"gzip", b"deflate"):
        raise BadAnswer(f"content encoding {coding!r} was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out itself whether gzip or zlib
    try:
        whole = unpack.decompress(body, most)
    except zlib.error as error:
        raise BadAnswer(f"not {coding.decode()}: {error}") from error
    if unpack.unconsumed_tail:
        raise OverLong(f"more than {most:,} bytes when unpacked")
    if not unpack.eof or unpack.unused_data:
        raise BadAnswer(f"incomplete {coding.decode()}")
    return whole


class Prepared(NamedTuple):
    """A request, ready to be sent over and over. Requests with the same `check` are asked the
    same, so that what is learned of one's answers holds for the other's."""

    name: str
    data: bytes
    check: Check
    strict: Check | None = None  # also compares with what is expected; made for some answers only
    kept: int = 0  # bytes of it that are in shared memory
    places: tuple[bytes, ...] = ()  # the same in each place of a sequence: see `sequence`
    statuses: tuple[int, ...] = ()  # of good answers; none: any of 2xx


def welcome(status: int, statuses: tuple[int, ...]) -> bool:
    """Whether a good answer may have it: it is one of these, or of 2xx if there are none."""
    return status in statuses if statuses else 200 <= status < 300


FRAMING = ("content-length", "transfer-encoding", "connection", "expect", "upgrade")


def header_fault(name: str, value: str) -> str:
    """Why a header cannot be sent as part of a request; empty: it can."""
    bad = not name.isascii() or not name.replace("-", "").replace("_", "").isalnum()
    bad = bad or any(char in value for char in "\r\n\0")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        bad = True
    if bad:
        return "is not one that HTTP can carry"
    return "is set by loadbench itself: leave it out" if name.lower() in FRAMING else ""


def http_request(
    endpoint: Endpoint, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    """The bytes of an HTTP/1.1 request on a connection that is kept alive. Headers of the request
    itself stand in for the target's of the same name. SpecError if one of those names what the
    environment lacks, or is no header with it."""
    given = {name.lower() for name in headers}
    usual = {name: text for name, text in own_headers(endpoint) if name.lower() not in given}
    headers = {**usual, **headers}
    given |= {name.lower() for name in usual}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {hostport(endpoint.host, endpoint.port)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def own_headers(endpoint: Endpoint) -> list[tuple[str, str]]:
    """What each request to the target carries, with the values of the environment. SpecError."""
    return filled_headers(endpoint.headers)


def filled_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Headers of a target as they are sent. SpecError for what the environment lacks, and for what
    is no header with it."""
    found = []
    for name, text in headers.items():
        value = environment.filled(text, f"target.headers.{name}")
        if fault := header_fault(name, value):
            raise SpecError(f"target.headers.{name}: with what the environment has it {fault}")
        found.append((name, value))
    return found
