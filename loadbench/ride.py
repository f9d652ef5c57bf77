"""The batch that a request rode in, as our engine tells it with each answer (Server-Timing).

    …, size;desc=32, closed;desc=deadline, number;desc=812, after;dur=4.213, before;desc=32.full

Both ends of it are here, so that they cannot differ: what the engine writes (once for a batch, the
answers share it) and what the load reads of the slowest requests.
"""

import re

from loadbench.units import MS
from loadbench.value import Value

WHY_CLOSED = {  # in words, by what the engine calls it
    "idle": "instance was idle",
    "late-bind": "instance came free",
    "full": "full",
    "bucket": "at a good size",
    "deadline": "deadline near",
    "announced": "announced came",
    "hold": "waited its time",
    "defer": "held for more",
    "probe": "probing the time",
    "drain": "draining",
}

_FIRST = ".first"
# lengths are limited: whatever a server writes there is read quickly, and is a number one can tell
_CLOSED = re.compile(rb"\bclosed;desc=([a-z-]{1,20})(\.first)?(?=,|$)")
_NUMBER = re.compile(rb"\bnumber;desc=([0-9]{1,15})\b")
_AFTER = re.compile(
    rb"\bafter;dur=([0-9]{1,9}\.[0-9]{1,6}), before;desc=([0-9]{1,9})"
    rb"\.([a-z-]{1,20})(\.first)?(?=,|$)"
)


class Ride(Value, frozen=True):
    """Why a batch closed, and what its instance was given before. `first`: a batch of this shape
    and size had not run since the engine was warm, so that the model may have had to get ready for
    it."""

    number: int
    closed: str
    first: bool = False
    after_ns: int | None = None  # from the moment the batch before was closed to this one's own
    before_rows: int | None = None
    before_closed: str = ""
    before_first: bool = False


def told(ride: Ride, later_ns: int = 0) -> bytes:
    """For the end of a Server-Timing header; `later_ns`: it began so long after it was closed."""
    first = _FIRST if ride.first else ""
    text = f", closed;desc={ride.closed}{first}, number;desc={ride.number}"
    if ride.after_ns is not None:
        first = _FIRST if ride.before_first else ""
        after = (ride.after_ns + later_ns) / MS
        before = f"{ride.before_rows}.{ride.before_closed}{first}"
        text += f", after;dur={after:.3f}, before;desc={before}"
    return text.encode()


def read(text: bytes) -> Ride | None:
    """Of a Server-Timing header; None if it says nothing of a batch."""
    closed, number = _CLOSED.search(text), _NUMBER.search(text)
    if closed is None or number is None:
        return None
    own = Ride(int(number[1]), closed[1].decode(), closed[2] is not None)
    found = _AFTER.search(text)
    if found is None:
        return own
    return Ride(
        own.number,
        own.closed,
        own.first,
        after_ns=round(float(found[1]) * MS),
        before_rows=int(found[2]),
        before_closed=found[3].decode(),
        before_first=found[4] is not None,
    )
