"""What a request is on the wire, and what is known of its answers, whatever the protocol.

The load prepares all requests before a run. An answer is checked in full by its protocol
(`Check`); the `Form` which that returns lets later answers like it be checked cheaply.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loadbench.plan import Endpoint
from loadbench.units import hostport


class Form(NamedTuple):
    """What the bodies of good answers of one kind have in common, literally.

    A body fits if it begins with `prefix`, has `length` bytes, and matches `pattern` whole, whose
    groups are JSON arrays of as many numbers as `counts` says; what is None is left open.
    """

    prefix: bytes = b""
    length: int | None = None
    pattern: re.Pattern[bytes] | None = None
    counts: tuple[int, ...] = ()


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


class Prepared(NamedTuple):
    """A request, ready to be sent over and over. Requests with the same `check` are asked the
    same, so that what is learned of one's answers holds for the other's."""

    name: str
    data: bytes
    check: Check
    strict: Check | None = None  # also compares with what is expected; made for some answers only


def http_request(
    endpoint: Endpoint, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    """The bytes of an HTTP/1.1 request on a connection that is kept alive."""
    given = {name.lower() for name in headers}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {hostport(endpoint.host, endpoint.port)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
