"""One connection of the lane: its socket, the request on it, and what came of its answer so far."""

import _socket
import errno
import os
import re
import select
from collections.abc import Callable

from loadbench.load import failure
from loadbench.load.answer import Incoming, Kind, Sight
from loadbench.load.deck import Deal
from loadbench.load.schedule import NEVER
from loadbench.targets.wire import BadAnswer
from loadbench.units import duration, hostport

CONNECTING, SENDING, WAITING, IDLE, CLOSED = range(5)
_NODELAY = (_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
_KIND = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_KEPT = re.compile(rb"\btimeout\s*=\s*([0-9]{1,6})\b", re.IGNORECASE)
_UNDER_WAY = (0, errno.EINPROGRESS)
BOTH = select.EPOLLIN | select.EPOLLOUT


class Address:
    """Where to connect to: (family, socket address)."""

    def __init__(self, family: int, address: tuple[object, ...]) -> None:
        self.family = family
        self.address = address

    def __str__(self) -> str:
        return hostport(str(self.address[0]), int(str(self.address[1])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]


class Connection:
    """A socket and at most one request on it. Its stamps are plain fields: the loop sets them."""

    __slots__ = (
        "_incoming", "_parts", "_size", "_wanted", "awaited", "begun", "code", "deal", "due", "fd",
        "idle_since", "kind", "partial", "reason", "recv", "replica", "rest", "retired", "send",
        "sent", "sock", "state", "tries", "uses",
    )  # fmt: skip
    deal: Deal  # of what is sent on it
    recv: Callable[[int], bytes]
    send: Callable[[bytes | memoryview], int]

    def __init__(self, kind: Kind, tries: int) -> None:
        self.kind = kind
        self.replica = 0  # of the target: where it leads to
        self.retired = False
        self.tries = tries  # failures in a row of this place in a closed loop
        self.fd = -1
        self.idle_since = 0
        self.state = CONNECTING
        self.awaited = BOTH  # events
        self.uses = 0  # requests after the first
        # a part of the answer is here; or it is not to be taken by its bytes alone, since it shows
        # that the target is back
        self.partial = tries > 0
        self.reason = ""  # in words, once it has failed
        self.due = self.begun = self.code = 0
        self.sent = NEVER
        self.rest: memoryview | None = None  # of the request, still to be sent
        self._incoming: Incoming | None = None
        self._parts: list[bytes] = []
        self._size = self._wanted = 0

    def connect(self, address: Address) -> str:
        """Begins to connect; the failure if that fails at once."""
        try:
            sock = self.sock = _socket.socket(address.family, _KIND)
            self.fd, self.recv, self.send = sock.fileno(), sock.recv, sock.send
            sock.setsockopt(*_NODELAY)
            found = sock.connect_ex(address.address)
        except OSError as error:
            return self.failure(error.errno)
        return "" if found in _UNDER_WAY else self.failure(found)

    def establish(self) -> int:
        """Goes on with connecting, until it is SENDING: for which events to wait. Raises OSError
        when it failed."""
        error = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self.state = SENDING
        return BOTH

    @property
    def room(self) -> int:
        """The events to wait for while a request is not out."""
        return BOTH

    @property
    def first(self) -> int:
        """When the first piece of the answer came; 0 if none has, or it has no pieces."""
        return 0

    def heard(self, data: bytes) -> bool:
        """Whether the server may say this while nobody has asked for anything."""
        return False

    def flush(self) -> bool:
        """Sends what it can of the rest of the request; whether all is out."""
        assert self.rest is not None
        try:
            self.rest = self.rest[self.send(self.rest) :]
        except BlockingIOError:
            return False
        if self.rest:
            return False
        self.rest = None
        return True

    def take(self, data: bytes) -> str | None:
        """Takes a piece of the answer: its failure once it is whole ("" for none), None before.

        An empty piece is the end of the connection.
        """
        try:
            return self._end() if not data else self._piece(data)
        except BadAnswer as error:
            self.reason = str(error)
            return error.failure

    def _piece(self, data: bytes) -> str | None:
        if self._incoming is None:
            self._size += len(data)
            if self.partial and self._size < self._wanted:
                self._parts.append(data)
                return None
            if self.partial:
                data = b"".join([*self._parts, data])
            sight = self.kind.look(data)
            if sight is Sight.GOOD:
                self._size = 0
                return ""
            self.partial = True
            if sight is Sight.MORE:
                self._parts, self._wanted = [data], self.kind.wanted
                return None
            self._incoming, self._parts = Incoming(), []
        self._incoming.feed(data)
        return self._incoming.verdict(self.kind) if self._incoming.complete else None

    def _end(self) -> str:
        if self._incoming is not None and self._incoming.end():
            return self._incoming.verdict(self.kind)
        return self.ended()

    def ended(self) -> str:
        """The failure that it is that the server has closed now."""
        if self.received:
            self.reason = f"the server closed the connection after {self.received:,} bytes"
            return failure.TRUNCATED
        kept = ", kept open from an earlier one," if self.uses else ""
        self.reason = f"the server closed the connection{kept} without a byte of an answer"
        return failure.CLOSED_EARLY

    @property
    def received(self) -> int:
        """How many bytes of the answer are here."""
        return self._size if self._incoming is None else self._incoming.size

    @property
    def reusable(self) -> bool:
        """After a whole answer: whether the server keeps the connection open for the next."""
        if self.retired or self.rest is not None:
            return False
        return self._incoming is None or self._incoming.keep_alive

    @property
    def kept_s(self) -> int:
        """For how long the server says that it keeps it open while it is idle; 0: not said."""
        if self._incoming is None:
            return 0
        found = _KEPT.search(self._incoming.headers.get(b"keep-alive", b""))
        return int(found[1]) if found else 0

    def retire(self) -> None:
        """It ends with the answer under way, since it leads to where the target is no longer."""
        self.retired = True
        self.partial = True  # or the answer would be known by its bytes, and the next be asked

    def head(self, data: bytes) -> bytes:
        """The first bytes of the answer whose last are `data`."""
        if self._incoming is not None:
            return self._incoming.head
        return self._parts[0] if self._parts else data

    def answer(self, data: bytes) -> bytes:
        """What can be shown of the answer whose last bytes are `data`: its body, else its bytes."""
        if self._incoming is not None and self._incoming.status:
            return self._incoming.beginning()
        return self.head(data)

    def forget(self) -> None:
        """The answer has been dealt with; the next may come."""
        self.partial = False
        self.reason = ""
        self._size = self._wanted = 0
        self._parts = []
        self._incoming = None

    def failure(self, number: int | None) -> str:
        """The failure that an error of the operating system is."""
        found, connecting = number or 0, self.state == CONNECTING
        self.reason = os.strerror(found)
        if not connecting:
            self.reason += f", {self.received:,} bytes of an answer had come"
        return failure.of_error(found, connecting)

    def expired(self, limit_ns: int) -> str:
        """The failure that it is to be where it is now after so long."""
        limit = duration(limit_ns)
        if self.state == CONNECTING:
            self.reason = f"not connected within {limit}"
            return failure.CONNECT_TIMEOUT
        if self.rest is not None:
            self.reason = f"{len(self.rest):,} bytes of the request could not be sent in {limit}"
        elif self.received:
            self.reason = f"{self.received:,} bytes of an answer came in {limit}, not the whole"
        else:
            self.reason = f"no byte of an answer came in {limit}"
            return failure.FIRST_BYTE_TIMEOUT
        return failure.TIMEOUT

    def failed(self, now: int) -> None:
        """The request on it has failed at that moment."""

    def close(self) -> None:
        self.state = CLOSED
        if self.fd >= 0:
            self.sock.close()
