"""Whose batches run on a device: all that come, but for one that needs the device to itself.

A batch that cannot be split further may lack memory only because others run beside it, those of
other models among them. It waits until they have ended, nothing new begins meanwhile, and it runs
alone. Several such batches do so in the order in which they came. Every wait ends: an instance that
hangs must not hold up a whole device.

Whether a batch lacked memory, and what is told if it lacks it again, is `execution`'s business.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 30.0

_known: dict[str, "Turns"] = {}


class Seat:
    """Of whoever runs one batch after the other on a device; for one thread.

    Nothing is locked as long as nobody wants to be alone: a seat says first that it runs and looks
    then whether somebody does, who has said so first and looks then who runs. One of them sees it.
    """

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns
        self.runs = False

    def __enter__(self) -> "Seat":
        self._turns.joins(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.leaves(self)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for this one's batches to end: none should be begun."""
        return self._turns.closed

    def begin(self) -> bool:
        """Before a batch runs: waits while another one is alone, or wants to be. Whether it had to.
        The batch ends with the next call, or with `end`."""
        self.runs = True
        if not self._turns.closed:
            return False
        self._turns.let_in(self)
        return True

    def end(self) -> None:
        """Nothing runs here now."""
        self.runs = False
        if self._turns.closed:
            self._turns.told()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Between two parts of a batch: waits until nothing else runs, and keeps it so inside.
        False: it did not come to that in time."""
        try:
            yield self._turns.clear(self)
        finally:
            self._turns.reopen(self)


class Turns:
    """One device, for this process. `closed`: batches that have not begun have to wait."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.closed = False
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._seats: set[Seat] = set()
        self.wanting: deque[Seat] = deque()  # to be alone; the first one is, or is next

    @property
    def taken(self) -> bool:
        """Whether somebody runs batches here, if only now and then."""
        return bool(self._seats)

    def joins(self, seat: Seat) -> None:
        with self._changed:
            self._seats.add(seat)

    def leaves(self, seat: Seat) -> None:
        with self._changed:
            seat.runs = False
            self._seats.discard(seat)
            self._changed.notify_all()

    def told(self) -> None:
        """Something ended."""
        with self._changed:
            self._changed.notify_all()

    def let_in(self, seat: Seat) -> None:
        """Waits until nobody wants to be alone. After too long it runs all the same: at worst it
        lacks memory, and is split."""
        with self._changed:
            seat.runs = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self.closed, self._patience_s)
            seat.runs = True

    def clear(self, seat: Seat) -> bool:
        """Waits until it is this one's turn and no other runs; False if that took too long."""
        with self._changed:
            self.wanting.append(seat)
            self.closed = True
            seat.runs = False
            self._changed.notify_all()
            free = self._changed.wait_for(lambda: self._is_next(seat), self._patience_s)
            seat.runs = True
            return free

    def reopen(self, seat: Seat) -> None:
        with self._changed:
            self.wanting.remove(seat)
            self.closed = bool(self.wanting)
            self._changed.notify_all()

    def _is_next(self, seat: Seat) -> bool:
        return self.wanting[0] is seat and not any(found.runs for found in self._seats)


def taken() -> bool:
    """Whether batches of any model may run in this process now."""
    return any(found.taken for found in list(_known.values()))


def turns_of(device: str) -> Turns:
    """Those of the device with this name, one for all models."""
    return _known.setdefault(device, Turns())
