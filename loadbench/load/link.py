"""What the master of a load and its workers say to each other over Locust's link.

Locust carries the bytes (`send_message`, one type of ours: TYPE) and keeps its own messages beside.
Moments on the link are in ns of the worker's monotonic clock: the master alone knows how the clocks
differ. The link has neither encryption nor passwords: whoever can connect can join, and read along.

A worker may send only on a lease: the master acknowledges each of its beats, and that is good for
LEASE from when the beat was sent. The master takes a worker for lost after SILENCE, which is
longer, so that whoever cannot be reached has stopped when others take over its share.
"""

import socket
from typing import Any

import msgspec

from loadbench.model import Note, Value, Window, decode, encode
from loadbench.plan import Broken, Finished, Plan, Share
from loadbench.shape import Steering
from loadbench.units import MS

TYPE = "loadbench"
BEAT = 200 * MS
LEASE = 1300 * MS
SILENCE = 1500 * MS


class Hello(Value, frozen=True, tag_field="kind", tag="hello"):
    """A worker is there. `clock` is the same for processes with the same monotonic clock; `token`
    is of the process, however often it starts anew."""

    version: str
    host: str
    pid: int
    clock: str
    token: str


class Beat(Value, frozen=True, tag_field="kind", tag="beat"):
    """A worker lives. `heard` is the master's last stamp (in its own clock) and `heard_at` when it
    came here; with `sent` they tell how the clocks differ."""

    sent: int
    heard: int = 0
    heard_at: int = 0


class Prepared(Value, frozen=True, tag_field="kind", tag="prepared"):
    """The worker could begin now."""

    notes: tuple[Note, ...] = ()


class Begun(Value, frozen=True, tag_field="kind", tag="begun"):
    """The worker has begun."""


class Leaving(Value, frozen=True, tag_field="kind", tag="leaving"):
    """The worker is asked to end: it finishes what is under way once its share is dealt to the
    others, or, `at_once`, is gone when this arrives."""

    at_once: bool = False


class Remarked(Value, frozen=True, tag_field="kind", tag="remarked"):
    """Something that the worker has to say."""

    note: Note


class Setup(Value, frozen=True, tag_field="kind", tag="setup"):
    """What there is to do; the worker makes it ready. `number` is no other worker's."""

    plan: Plan
    number: int


class Begin(Value, frozen=True, tag_field="kind", tag="begin"):
    """Begin with this share; late in a run with none yet, with windows from `since` on. Good until
    `leased` without another word."""

    origin: int
    share: Share | None
    leased: int
    since: int | None = None
    history: tuple[tuple[int, Steering], ...] = ()


class Ack(Value, frozen=True, tag_field="kind", tag="ack"):
    """The beat sent at `sent` (worker's clock) was heard at `heard` (master's)."""

    sent: int
    heard: int


class Deal(Value, frozen=True, tag_field="kind", tag="deal"):
    """From a moment on this share is the worker's."""

    share: Share | None
    at: int


class Steer(Value, frozen=True, tag_field="kind", tag="steer"):
    """From a moment on the shape is another."""

    steering: Steering
    at: int


class Stop(Value, frozen=True, tag_field="kind", tag="stop"):
    """From a moment on nothing falls due; `at_once` nothing is awaited either."""

    at: int
    at_once: bool = False


class End(Value, frozen=True, tag_field="kind", tag="end"):
    """The worker is not needed any more. It exits with `code`, and says `text` if there is one."""

    code: int = 0
    text: str = ""


class Out(Value, frozen=True, tag_field="kind", tag="out"):
    """The worker was taken for lost. It may come again as a new one."""


Up = Hello | Beat | Prepared | Begun | Leaving | Remarked | Window | Finished | Broken
Down = Setup | Begin | Ack | Deal | Steer | Stop | End | Out

_up: Any = Up
_down: Any = Down


def numeric(host: str, port: int) -> str:
    """The address of a name: IPv4 where there is one, so that it is the same on both sides. Raises
    OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    where = min(found, key=lambda one: one[0] != socket.AF_INET)[4]
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return socket.getnameinfo(where, flags)[0]  # with its zone, which `where` has as a number


def pack(message: Up | Down) -> bytes:
    return encode(message)


def from_worker(data: Any) -> Up:
    """Raises msgspec.MsgspecError for anything else."""
    found: Up = decode(_up, _bytes(data))
    return found


def from_master(data: Any) -> Down:
    """Raises msgspec.MsgspecError for anything else."""
    found: Down = decode(_down, _bytes(data))
    return found


def _bytes(data: Any) -> bytes:
    if not isinstance(data, bytes):
        raise msgspec.ValidationError("not a message of loadbench")
    return data
