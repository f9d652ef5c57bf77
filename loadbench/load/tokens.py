"""The pieces of streamed answers as they come, until the window of their second takes them."""

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadbench.histogram import Histogram
from loadbench.streams import Stream

FIRST, GAP, PACE, COUNTED, PROMPT, BARREN, PIECES = range(7)
_BITS = 3  # of a row's code that say what it is
_CODE, _DUE, _AT, _VALUE = range(4)

Ints = NDArray[np.int64]


class Tokens:
    """Rows of four integers: what it is and of which kind of request, when that was due, when it
    happened, and the value (ns, or a number). Moments are ns of the monotonic clock."""

    def __init__(self) -> None:
        self._rows = array("q")

    def add(self, what: int, kind: int, due: int, at: int, value: int) -> None:
        """One event; `what` is one of the names above."""
        self._rows.extend((kind << _BITS | what, due, at, value))

    def take(self, begin: int, end: int, origin: int, kinds: Sequence[str]) -> dict[str, Stream]:
        """The events before `end`, by the names of the kinds. Windows are taken in order; those
        from `origin` on tell nothing of requests that were due before it."""
        if not self._rows:
            return {}
        rows = np.array(self._rows, np.int64).reshape(-1, 4)
        later = rows[:, _AT] >= end
        self._rows = array("q", rows[later].tobytes())
        mine = rows[~later]
        if begin >= origin:
            mine = mine[mine[:, _DUE] >= origin]
        number, what = mine[:, _CODE] >> _BITS, mine[:, _CODE] & ((1 << _BITS) - 1)
        found = {}
        for name in dict.fromkeys(kinds):
            own = np.isin(number, [at for at, kind in enumerate(kinds) if kind == name])
            if own.any():
                found[name] = _stream(what[own], mine[own, _VALUE])
        return found


class Pieces:
    """When the pieces of the answers on one connection came, an answer after the other."""

    __slots__ = ("_first", "_last", "_tokens", "number")

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._first = self._last = self.number = 0

    @property
    def first(self) -> int:
        """When the first of this answer came; 0 if none has."""
        return self._first

    def came(self, kind: int, due: int, now: int) -> None:
        """One more; the first counts from when its request was due."""
        if self.number:
            self._tokens.add(GAP, kind, due, now, now - self._last)
        else:
            self._first = now
            self._tokens.add(FIRST, kind, due, now, now - due)
        self._last = now
        self.number += 1

    def counted(self, kind: int, due: int, now: int, tokens: int, prompt: int) -> None:
        """The answer is whole, and good; the server says that so many tokens were in it."""
        self._tokens.add(COUNTED, kind, due, now, tokens)
        self._tokens.add(PIECES, kind, due, now, self.number)
        self._tokens.add(PROMPT, kind, due, now, prompt)
        self.paced(kind, due, now, tokens)

    def paced(self, kind: int, due: int, now: int, tokens: int) -> None:
        """The answer is whole, and good, with so many tokens, whoever counted them."""
        if tokens > 1 and self.number > 1:  # one piece has no pace, however many tokens are in it
            self._tokens.add(PACE, kind, due, now, (self._last - self._first) // (tokens - 1))

    def failed(self, kind: int, due: int, now: int) -> None:
        if not self.number:
            self._tokens.add(BARREN, kind, due, now, 1)

    def forget(self) -> None:
        self._first = self._last = self.number = 0


def _stream(what: Ints, value: Ints) -> Stream:
    gaps, first = value[what == GAP], value[what == FIRST]
    return Stream(
        first=Histogram.of(first),
        gaps=Histogram.of(gaps),
        pace=Histogram.of(value[what == PACE]),
        pieces=len(first) + len(gaps),
        tokens=int(value[what == COUNTED].sum()),
        prompt=int(value[what == PROMPT].sum()),
        told=int((what == COUNTED).sum()),
        counted=int(value[what == PIECES].sum()),
        barren=int((what == BARREN).sum()),
    )
