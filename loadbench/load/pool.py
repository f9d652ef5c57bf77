"""The connections of a lane and their place in its epoll: which are open, which idle."""

import select
import time
from typing import Any

import numpy as np

from loadbench.load.connection import BOTH, CONNECTING, IDLE, Address, Connection
from loadbench.load.ledger import Ints
from loadbench.load.schedule import NEVER
from loadbench.model import Note
from loadbench.printable import printable
from loadbench.units import MS, clock

_READABLE = select.EPOLLIN
_HANDSHAKES_NS = MS  # of a turn
_UNASKED = 4096  # bytes looked at of what nobody asked for


class Pool:
    """Open connections by their file descriptor, at most so many. `idle` is used from its end."""

    def __init__(self, epoll: Any, address: Address, most: int) -> None:
        self.open: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.most = most
        self._epoll = epoll
        self._address = address
        self._unasked = 0  # answers to nothing
        self._first = (0, "")  # of them: when, and what it was
        self._turn = 0

    @property
    def full(self) -> bool:
        return len(self.open) >= self.most

    @property
    def settled(self) -> bool:
        """No request is under way."""
        return len(self.idle) == len(self.open)

    def connect(self, connection: Connection) -> str:
        """Begins to connect; the failure if that fails at once."""
        failure = connection.connect(self._address)
        if not failure:
            self.open[connection.fd] = connection
            self._epoll.register(connection.fd, BOTH)
        return failure

    def establish(self, connection: Connection, turn: int) -> bool:
        """Goes on with connecting; whether that is done. Raises OSError when it failed.

        Handshakes of TLS take so long that many at once would make all else late: what does not
        fit into a turn of the loop (it began at `turn`) is left for the next; epoll tells of it
        again.
        """
        if turn == self._turn and time.monotonic_ns() - turn > _HANDSHAKES_NS:
            return False
        self._turn = turn  # the first may always
        self._await(connection, connection.establish())
        return connection.state != CONNECTING

    def await_room(self, connection: Connection) -> None:
        """Wakes also when more of the request can be sent."""
        self._await(connection, connection.room)

    def await_answer(self, connection: Connection) -> None:
        self._await(connection, _READABLE)

    def _await(self, connection: Connection, events: int) -> None:
        if events != connection.awaited:
            self._epoll.modify(connection.fd, events)
            connection.awaited = events

    @property
    def peer(self) -> str:
        """The address that all connect to, in words."""
        host, port = self._address.address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"

    def leave(self, connection: Connection, now: int) -> None:
        """An idle connection stirs: the server has closed it, or says what nobody asked for."""
        try:
            data = connection.recv(_UNASKED)
        except BlockingIOError:  # TLS talks to itself
            return
        except OSError:  # reset instead of closed: nobody waits for anything on it
            data = b""
        if data and connection.heard(data):
            if connection.reusable:
                return
        elif data:
            self._first = self._first if self._unasked else (now, printable(data))
            self._unasked += 1
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        if connection.state == IDLE:
            self.idle.remove(connection)
        self.open.pop(connection.fd, None)
        connection.close()

    def close(self) -> None:
        for connection in self.open.values():
            connection.close()
        self.open.clear()
        self.idle.clear()

    def notes(self, origin: int) -> tuple[Note, ...]:
        """What is to be said of the connections of a run."""
        if not self._unasked:
            return ()
        moment, found = self._first
        when = clock(moment - origin) if moment >= origin else "warm-up"
        text = f"{self._unasked:,} times the server spoke on an idle connection without having "
        text += f"been asked; first in {when}: {found}"
        hint = "no request is counted for that; servers that time out idle connections do it"
        return (Note("unasked", text, hint),)

    def under_way(self) -> Ints:
        """The requests that have begun and not ended, as rows of the ledger."""
        rows = [
            (found.due, found.begun, found.sent, NEVER, found.code)
            for found in self.open.values()
            if found.state != IDLE
        ]
        return np.array(rows, np.int64).reshape(-1, 5)
