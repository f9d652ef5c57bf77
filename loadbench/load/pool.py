"""The connections of a lane and their place in its epoll: which are open, which idle."""

import select
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from loadbench.environment import hidden
from loadbench.load.connection import BOTH, CONNECTING, IDLE, Address, Connection
from loadbench.load.ledger import Ints
from loadbench.load.schedule import NEVER
from loadbench.load.sequences import Turns, amid
from loadbench.model import Note
from loadbench.printable import printable
from loadbench.units import MS, SECOND, clock

_READABLE = select.EPOLLIN
_HANDSHAKES_NS = MS  # of a turn
_UNASKED = 4096  # bytes looked at of what nobody asked for
_MOVES = 4  # of a name that are told one by one
_HASTY_NS = 50 * MS  # after an answer: whoever closes so soon does not close what is idle
_HASTY = 3  # times in a row, and a replica is known for it


class Pool:
    """Open connections by their file descriptor, at most so many. `idle` has those of each replica,
    used from the end; `in_turn` from the beginning."""

    def __init__(
        self, epoll: Any, addresses: Sequence[Address], most: int, weights: Sequence[float] = (),
        in_turn: bool = False,
    ) -> None:  # fmt: skip
        self.open: dict[int, Connection] = {}
        kind: Any = Turns if in_turn else list
        self.idle: list[list[Connection]] = [kind() for _ in addresses]
        self.most = most
        self._epoll = epoll
        self._addresses = list(addresses)
        self._weights = weights or (1.0,) * len(addresses)
        self._numbers = [0] * len(addresses)  # of open connections
        self._kept_ns: dict[int, int] = {}  # replica → how long a connection may be idle
        self._hasty = [0] * len(addresses)
        self._cut_at = [0] * len(addresses)  # the last time that one of them closed so soon
        self.unkept: set[int] = set()  # replicas that close each connection after one answer
        self._moved: list[tuple[int, Address, Address]] = []  # when, from where, to where
        self._unasked = 0  # answers to nothing
        self._first = (0, "")  # of them: when, and what it was
        self._turn = 0
        self._in_turn = in_turn  # each connection goes through sequences

    @property
    def resting(self) -> int:
        """How many connections are idle."""
        return sum(map(len, self.idle))

    @property
    def settled(self) -> bool:
        """No request is under way."""
        return self.resting == len(self.open)

    def room(self) -> bool:
        """Whether one more may be opened. Idle connections to other replicas make way, but for
        those in the midst of a sequence: it would be cut off."""
        if len(self.open) < self.most:
            return True
        spare = max(self.idle, key=len)
        if self._in_turn:
            spare = [one for idle in self.idle for one in idle if not amid(one.deal)]
        if not spare:
            return False
        self.drop(spare[0])
        return True

    def lacking(self) -> int:
        """The replica that has the fewest connections for its weight."""
        pairs = zip(self._numbers, self._weights, strict=True)
        found = [number / weight for number, weight in pairs]
        return found.index(min(found))

    def connect(self, connection: Connection) -> str:
        """Begins to connect; the failure if that fails at once."""
        failure = connection.connect(self._addresses[connection.replica])
        if not failure:
            self.open[connection.fd] = connection
            self._numbers[connection.replica] += 1
            self._epoll.register(connection.fd, BOTH)
        return failure

    def move(self, replica: int, address: Address, now: int) -> None:
        """A replica is somewhere else: new connections go there, and those that are open end as
        they become free."""
        self._moved.append((now, self._addresses[replica], address))
        self._addresses[replica] = address
        for connection in [one for one in self.open.values() if one.replica == replica]:
            if connection.state == IDLE:
                self.drop(connection)
            else:
                connection.retire()

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

    def peer(self, connection: Connection) -> str:
        """Where it leads to, in words."""
        return str(self._addresses[connection.replica])

    def leave(self, connection: Connection, now: int, headers: Mapping[str, str]) -> None:
        """An idle connection stirs: the server has closed it, or says what nobody asked for, maybe
        something of the headers that it was sent."""
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
            self._first = self._first if self._unasked else (now, printable(hidden(data, headers)))
            self._unasked += 1
        else:
            self.cut(connection, now)
        self.drop(connection)

    def cut(self, connection: Connection, now: int) -> None:
        """The server closed an idle connection, or one with a request on it, without having said
        that it would. Of one that always does so after one answer, a connection is used once: a
        request that is sent before that is noticed fails.

        A server that ends closes all at once, also those with one answer: what has been answered
        since the last of them says that it is still there."""
        replica = connection.replica
        idle = connection.state == IDLE
        since = connection.idle_since if idle else connection.begun
        once = connection.uses == (0 if idle else 1) and not connection.received
        if not once or now - since > _HASTY_NS or self._keeps(replica):
            self._hasty[replica] = 0
            return
        if (connection.idle_since or connection.begun) < self._cut_at[replica]:
            return
        self._hasty[replica] += 1
        self._cut_at[replica] = now
        if self._hasty[replica] == _HASTY:
            self.unkept.add(replica)

    def _keeps(self, replica: int) -> bool:
        """Whether a connection is open that had more than one answer."""
        return any(one.uses > 1 and one.replica == replica for one in self.open.values())

    def hear(self, connection: Connection) -> None:
        """Its server may have said with an answer how long it keeps idle connections."""
        said = connection.kept_s * SECOND
        if said and not self._in_turn:
            self._kept_ns[connection.replica] = said - min(SECOND, said // 2)

    def weed(self, now: int) -> None:
        """Closes what has been idle for almost as long as its server keeps it, so that no request
        is lost on a connection that the server is just closing."""
        for replica, kept in self._kept_ns.items():
            idle = self.idle[replica]
            while idle and now - idle[0].idle_since > kept:
                self.drop(idle[0])

    def drop(self, connection: Connection) -> None:
        if connection.state == IDLE:
            self.idle[connection.replica].remove(connection)
        if self.open.pop(connection.fd, None) is not None:
            self._numbers[connection.replica] -= 1
        connection.close()

    def close(self) -> None:
        for connection in self.open.values():
            connection.close()
        self.open.clear()
        for idle in self.idle:
            idle.clear()

    def notes(self, origin: int) -> tuple[Note, ...]:
        """What is to be said of the connections of a run."""
        return (*self._moves(origin), *self._answers_to_nothing(origin), *self._used_once())

    def _used_once(self) -> Iterator[Note]:
        if not self.unkept:
            return
        where = ", ".join(str(self._addresses[replica]) for replica in sorted(self.unkept))
        text = f"{where} closes each connection after one answer, without saying so"
        text += " (Connection: close): since that was noticed each request makes its own"
        hint = "its latency has the time of connecting, as that of every client of this server"
        yield Note("unkept", text, hint)

    def _moves(self, origin: int) -> Iterator[Note]:
        if not self._moved:
            return
        told = [f"{_when(at, origin)} from {old} to {new}" for at, old, new in self._moved]
        text = f"the target's name changed its meaning: {', '.join(told[:_MOVES])}"
        text += ", …" if len(told) > _MOVES else ""
        hint = "new connections went to the new place, old ones ended with their answer"
        yield Note("moved", text, hint)

    def _answers_to_nothing(self, origin: int) -> Iterator[Note]:
        if not self._unasked:
            return
        moment, found = self._first
        text = f"{self._unasked:,} times the server spoke on an idle connection without having "
        text += f"been asked; first in {_when(moment, origin)}: {found}"
        hint = "no request is counted for that; servers that time out idle connections do it"
        yield Note("unasked", text, hint)

    def under_way(self) -> Ints:
        """The requests that have begun and not ended, as rows of the ledger."""
        rows = [
            (found.due, found.begun, found.sent, NEVER, found.code)
            for found in self.open.values()
            if found.state != IDLE
        ]
        return np.array(rows, np.int64).reshape(-1, 5)


def _when(moment: int, origin: int) -> str:
    return clock(moment - origin) if moment >= origin else "warm-up"
