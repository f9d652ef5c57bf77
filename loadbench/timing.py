"""What a server tells with an answer of where its time went: the HTTP header Server-Timing.

    Server-Timing: queue;dur=0.4, batch;dur=1.2, compute;dur=8.1         what our engine writes
    Server-Timing: prepare;dur=2, model;dur=8.1, total;dur=10.4          what others may

`queue` and `batch` are times of waiting. Where no `compute` is told, all others are what it is made
of, one after the other; a `total` is left out beside them, for it holds them.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from loadbench.units import MS

# lengths are limited: whatever a server writes there is read quickly, and is a number one can tell
LONGEST = 1000  # bytes of it that are read
_MOST = 8  # parts
_FIELD = re.compile(rb"\r\nserver-timing:([^\r\n]{0,1000})", re.IGNORECASE)
_SIMPLE = re.compile(rb'"([^",;]*)"')
_QUOTED = re.compile(rb'"[^"]*"')
_PART = re.compile(
    rb"(?:^|,)\s*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40})\s*;[^,]*?\bdur\s*=\s*"
    rb"([0-9]{1,9}(?:\.[0-9]{1,20})?)(?=[\s;,]|$)"
)
_SIZE = re.compile(rb"\bsize\b[^,]*;\s*desc\s*=\s*\"?([0-9]{1,9})\b")


class Timing(NamedTuple):
    """In ns; None is what was not told. `parts` are what compute is made of, by the names that the
    server gives them."""

    queue: int | None = None
    batch: int | None = None
    compute: int | None = None
    parts: Mapping[str, int] = {}
    size: int | None = None  # rows of the batch

    @property
    def told(self) -> dict[str, int]:
        """What of it is there, by the names of `model.Window.timing`."""
        known = {"queue": self.queue, "batch": self.batch, "compute": self.compute, **self.parts}
        return {name: ns for name, ns in known.items() if ns is not None}


def field(head: bytes) -> bytes:
    """The header's value in the head of an answer; b"" without one. Several are put together."""
    end = head.find(b"\r\n\r\n")
    found = _FIELD.findall(head if end < 0 else head[:end])
    return b",".join(found)[:LONGEST]


def read(text: bytes) -> Timing:
    """Of the header's value."""
    plain = _QUOTED.sub(b"", _SIMPLE.sub(rb"\1", text))
    found: dict[str, int] = {}
    for name, ms in _PART.findall(plain):
        known = name.decode()
        found[known] = found.get(known, 0) + round(float(ms) * MS)
    size = _SIZE.search(text)
    queue, batch = found.pop("queue", None), found.pop("batch", None)
    compute, total = found.pop("compute", None), found.pop("total", None)
    parts = dict(list(found.items())[:_MOST]) if compute is None else {}
    if compute is None:
        compute = sum(found.values()) if found else total
    return Timing(queue, batch, compute, parts, int(size[1]) if size else None)
