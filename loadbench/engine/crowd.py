"""All HTTP clients together: how many connections there may be, and how much may be half arrived.

Both bounds are far from what a load test opens. Where one is reached, what serves nobody goes
first: the connection that has been idle for longest, the body that has made no progress for
longest. A client that does nothing wrong is refused only if none of the others is idle.
"""

import os
import resource
from collections.abc import Iterator
from typing import Protocol

from loadbench.engine.tensors import Refused

MOST = 16_384  # connections, if the system lets us have as many files
LEFT_FILES = 256  # that are no connections: models, regions, libraries
REFUSED = 128  # connections beyond the most that are told so; more are cut off
IDLE_S = 900.0  # pools and proxies close theirs within 6 minutes, so that they are not met by ours
LEAST_BYTES = 1 << 30
SHARE = 4  # of the machine's memory bodies that arrive may hold one part in so many


class Member(Protocol):
    """A connection, as far as it concerns the others."""

    stirred: bool  # something came since the last sweep, which takes it back

    def sweep(self, now: float) -> None:
        """Ends what takes too long."""

    def is_idle(self) -> bool:
        """Whether nothing is in flight now."""

    def close_idle(self) -> None:
        """Closes it if nothing is in flight."""

    def refuse(self, fault: Refused) -> None:
        """Answers a request that was not read to its end, and ends the connection."""


class Crowd:
    """The connections that there are. Everything runs on the event loop's thread."""

    def __init__(self, most: int | None = None, most_bytes: int | None = None) -> None:
        """By default as many connections as the process may have files, at most `MOST`; and a
        quarter of the machine's memory."""
        self.most = most or _most()
        self.most_bytes = most_bytes or max(LEAST_BYTES, _memory() // SHARE)
        self.arriving = 0  # bytes
        self._members: dict[Member, None] = {}
        self._idle: dict[Member, float] = {}  # since when, as sweeps saw it; the longest first
        self._held: dict[Member, int] = {}  # bytes of half a body each; what moved last comes last

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Member) -> None:
        """A new connection; it is refused if there is no room for it."""
        number = len(self._members)
        fits = number < self.most or self._make_room()
        self._members[member] = None  # also one that is refused, until it has read so
        if number >= self.most + REFUSED:
            member.close_idle()
        elif not fits:
            text = f"{self.most} connections are open, which is the most, and none is idle"
            member.refuse(Refused(503, text, "full"))

    def leave(self, member: Member) -> None:
        """A connection is gone."""
        self._members.pop(member, None)
        self._idle.pop(member, None)
        self.hold(member, 0)

    def hold(self, member: Member, size: int) -> None:
        """A connection has so many bytes of a body that has not come to its end; 0: of none."""
        self.arriving += size - self._held.pop(member, 0)
        if size:
            self._held[member] = size
        while self.arriving > self.most_bytes:
            slowest = next(iter(self._held))
            self.arriving -= self._held.pop(slowest)
            slowest.refuse(Refused(
                503, f"requests that are still arriving hold {self.most_bytes} bytes together, "
                "which is the most, and this one has waited for longest", "full",
            ))  # fmt: skip

    def sweep(self, now: float) -> None:
        """Ends what takes too long, also doing nothing. Called every second."""
        for member in self:
            member.sweep(now)
            if member.stirred or not member.is_idle():
                member.stirred = False
                self._idle.pop(member, None)
            elif now - self._idle.setdefault(member, now) > IDLE_S:
                member.close_idle()

    def _make_room(self) -> bool:
        """Closes the connection that has been idle for longest. Those that were busy within the
        last second or two are spared: a closed loop's clients pause between two requests."""
        while self._idle:
            found = next(iter(self._idle))
            del self._idle[found]
            if found.is_idle() and not found.stirred:
                found.close_idle()
                return True
        return False


def _most() -> int:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST
    return min(MOST, max(files // 2, files - LEFT_FILES))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
