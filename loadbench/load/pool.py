"""The connections of a lane and their place in its epoll: which are open, idle, too old."""

import select
import time
from typing import Any

import numpy as np

from loadbench.load.connection import BOTH, CONNECTING, IDLE, Address, Connection
from loadbench.load.ledger import Ints
from loadbench.load.schedule import NEVER
from loadbench.units import MS

_READABLE = select.EPOLLIN
_HANDSHAKES_NS = MS  # of a turn


class Pool:
    """Open connections by their file descriptor, at most so many. `idle` is used from its end."""

    def __init__(self, epoll: Any, address: Address, most: int) -> None:
        self.open: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.most = most
        self._epoll = epoll
        self._address = address
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
        events = connection.establish()
        if events != connection.awaited:
            self._epoll.modify(connection.fd, events)
            connection.awaited = events
        return connection.state != CONNECTING

    def leave(self, connection: Connection) -> None:
        """An idle connection stirs: the server closed it, or said what nobody asked for."""
        try:
            connection.recv(1)
        except BlockingIOError:  # TLS talks to itself
            return
        except OSError:  # reset instead of closed: nobody waits for anything on it
            pass
        self.drop(connection)

    def await_room(self, connection: Connection) -> None:
        """Wakes also when more of the request can be sent."""
        self._epoll.modify(connection.fd, BOTH)

    def await_answer(self, connection: Connection) -> None:
        self._epoll.modify(connection.fd, _READABLE)

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

    def under_way(self) -> Ints:
        """The requests that have begun and not ended, as rows of the ledger."""
        rows = [
            (found.due, found.begun, found.sent, NEVER, found.code)
            for found in self.open.values()
            if found.state != IDLE
        ]
        return np.array(rows, np.int64).reshape(-1, 5)

    def begun_before(self, moment: int) -> tuple[list[Connection], int]:
        """Connections whose request began by then, and when the oldest of the others did."""
        busy = [found for found in self.open.values() if found.state != IDLE]
        old = [found for found in busy if found.begun <= moment]
        return old, min((found.begun for found in busy if found.begun > moment), default=NEVER)
