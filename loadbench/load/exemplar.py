"""A slow request as a Sample, with what the server said of its parts (Server-Timing)."""

import re

from loadbench.load.connection import Connection
from loadbench.load.ledger import HELD
from loadbench.model import Sample
from loadbench.ride import read
from loadbench.units import MS

# lengths are limited: whatever a server writes there is read quickly, and is a number one can tell
_FIELD = re.compile(rb"\r\nserver-timing:([^\r\n]{0,1000})", re.IGNORECASE)
_DURATION = re.compile(rb"\b(queue|batch|compute)\b[^,]*;\s*dur\s*=\s*([0-9]{1,9}(?:\.[0-9]+)?)\b")
_SIZE = re.compile(rb"\bsize\b[^,]*;\s*desc\s*=\s*\"?([0-9]{1,9})\b")


def sample(connection: Connection, done: int, failure: str, data: bytes) -> Sample:
    """`data` begins with the head of the answer, as far as it is known."""
    field = _FIELD.search(data)
    text = field[1] if field else b""
    parts = {name: round(float(value) * MS) for name, value in _DURATION.findall(text)}
    size = _SIZE.search(text)
    return Sample(
        request=connection.kind.name,
        due=connection.due,
        begun=connection.begun,
        sent=connection.sent,
        done=done,
        failure=failure,
        queue_ns=parts.get(b"queue"),
        batch_wait_ns=parts.get(b"batch"),
        compute_ns=parts.get(b"compute"),
        batch=int(size[1]) if size else None,
        ride=read(text),
        held=bool(connection.code & HELD),
    )
