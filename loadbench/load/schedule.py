"""When requests fall due: warm-up and load on one absolute axis, and the account of what was asked.

The sequence of all arrivals is drawn once, by its seed, at a rate of one, and mapped to the shape;
so it can be mapped anew from any moment on when the load is steered, and every load process knows
the same sequence and takes its share of it by number. Due times are never shifted: what waits keeps
its own. Whoever sends takes them in order with `next` and `advance`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from loadbench.plan import Plan, Share
from loadbench.shape import Phase, arrivals, length_ns, replay, times, unit_arrivals

NEVER = 1 << 62
_NOTHING = np.empty(0, np.int64)

Ints = NDArray[np.int64]


class _Piece:
    """A stretch of the whole sequence, numbered from `first` on, and what of it is `mine`."""

    __slots__ = ("counts", "due", "first", "mine")

    def __init__(self, first: int, due: Ints, counts: NDArray[np.float64] | None = None) -> None:
        self.first = first
        self.counts = counts  # at a rate of one; None if the shape does not make these arrivals
        self.due = due  # of those that the shape holds
        self.mine = _NOTHING

    @property
    def short(self) -> bool:
        """The shape ends within it."""
        return self.counts is not None and len(self.due) < len(self.counts)


class Schedule:
    """The arrivals of an open loop from `origin` − warm-up on, or from `since` if the shape has
    changed as `changes` say (from when on, to what). A closed loop has none."""

    def __init__(
        self,
        plan: Plan,
        origin: int,
        since: int | None = None,
        changes: Sequence[tuple[int, Sequence[Phase]]] = (),
    ) -> None:
        self._origin = origin
        self._phases: Sequence[Phase] = plan.phases
        self._deals: list[tuple[int, Share | None]] = [(-NEVER, plan.share)]
        self._source = self._drawn(plan)
        self._pieces: list[_Piece] = []  # not all taken and accounted for yet
        self._taking = -1  # which of them
        self._due: list[int] = [NEVER]  # of that piece
        self._at = 0
        if since is not None:
            self._deals = [(-NEVER, None), (since, plan.share)]
            for at, phases in changes:
                self._forward(min(at, since))
                self._map(phases, at)
            self._forward(since)
        self._refill()

    @property
    def next(self) -> int:
        """When the next request falls due (or fell due, if it waits); NEVER after the last."""
        return self._due[self._at]

    def advance(self) -> None:
        """The next request has been taken up."""
        self._at += 1
        if self._due[self._at] == NEVER:
            self._refill()

    def asked(self, begin: int, end: int) -> int:
        """How many fell due in [begin, end). Accounts must be asked in order of time."""
        self._reach(end)
        number = 0
        for piece in self._pieces:
            first, last = np.searchsorted(piece.mine, (begin, end))
            number += int(last - first)
        while self._taking > 0 and not self._pieces[0].short and self._pieces[0].due[-1] < end:
            del self._pieces[0]
            self._taking -= 1
        return number

    def waiting(self, end: int) -> Ints:
        """Due times before `end` of what has not been taken up."""
        self._reach(end)
        current = self._pieces[self._taking].mine[self._at :] if self._on_a_piece else _NOTHING
        later = [piece.mine for piece in self._pieces[self._taking + 1 :]]
        found = np.concatenate([current, *later])
        return found[: np.searchsorted(found, end)]

    def deal(self, share: Share | None, at: int) -> None:
        """From a moment on, after all earlier ones, this share falls due here; None: nothing."""
        self._deals.append((max(at, self._deals[-1][0]), share))
        self._change(self._deals[-1][0])

    def steer(self, phases: Sequence[Phase], at: int) -> None:
        """From a moment on arrivals follow another shape. `at` must be after all that was taken."""
        self._map(phases, at)
        self._change(at)

    def _map(self, phases: Sequence[Phase], at: int) -> None:
        self._phases = phases
        for piece in self._pieces:
            if piece.counts is not None:
                known = int(np.searchsorted(piece.due, at))
                fresh = np.maximum(self._mapped(piece.counts[known:]), at)
                piece.due = np.concatenate([piece.due[:known], fresh])

    def held(self, share: Share, begin: int, end: int) -> int:
        """How many of a share fall due in [begin, end), whoever it is dealt to."""
        self._reach(end)
        number = 0
        for piece in self._pieces:
            first, last = np.searchsorted(piece.due, (begin, end))
            number += share.count(piece.first + int(first), piece.first + int(last))
        return number

    def forget(self, before: int) -> None:
        """Lets go of what fell due before a moment, for whoever only asks what is `held`."""
        self._reach(before)
        while len(self._pieces) > 1 and not self._pieces[0].short:
            if self._pieces[0].due[-1] >= before:
                return
            del self._pieces[0]

    def stop(self, moment: int) -> None:
        """Nothing falls due from `moment` on, and what waits is given up."""
        self._reach(moment)
        for piece in self._pieces:
            piece.mine = piece.mine[piece.mine < moment]
        self._source = iter(())
        self._deals = [(-NEVER, None)]
        self._taking = len(self._pieces)
        self._due, self._at = [NEVER], 0

    @property
    def _on_a_piece(self) -> bool:
        return 0 <= self._taking < len(self._pieces)

    @property
    def _until(self) -> int:
        """How far the sequence is known."""
        last = self._pieces[-1] if self._pieces else None
        return int(last.due[-1]) if last and len(last.due) and not last.short else -NEVER

    def _change(self, at: int) -> None:
        """What falls due from a moment on is chosen anew."""
        for piece in self._pieces:
            kept = piece.mine[: np.searchsorted(piece.mine, at)]
            chosen = self._chosen(piece)
            piece.mine = np.concatenate([kept, chosen[np.searchsorted(chosen, at) :]])
        if self._on_a_piece:
            self._due = [*self._pieces[self._taking].mine.tolist(), NEVER]
        if self._due[self._at] == NEVER:
            self._refill()

    def _chosen(self, piece: _Piece) -> Ints:
        """What of a piece is ours, by its number and by when it falls due."""
        if self._deals == [(-NEVER, Share())]:
            return piece.due
        edges = [*np.searchsorted(piece.due, [at for at, _ in self._deals]), len(piece.due)]
        mine = np.zeros(len(piece.due), bool)
        for (_, share), first, last in zip(self._deals, edges, edges[1:], strict=False):
            if share:
                numbers = np.arange(piece.first + first, piece.first + last)
                mine[first:last] = numbers % share.of == share.index
            else:
                mine[first:last] = False
        return piece.due[mine]

    def _pull(self) -> bool:
        """Draws the next piece; False if the shape holds no more."""
        if self._pieces and self._pieces[-1].short:
            return False
        for piece in self._source:
            piece.mine = self._chosen(piece)
            self._pieces.append(piece)
            return True
        return False

    def _reach(self, end: int) -> None:
        """Pulls until all that falls due before `end` is here."""
        while self._until < end and self._pull():
            pass

    def _forward(self, moment: int) -> None:
        """Passes over what falls due before a moment."""
        while self._until < moment and self._pull():
            del self._pieces[:-1]

    def _refill(self) -> None:
        """Goes on to the next piece that has anything for us; stays at the end of the last."""
        while self._taking + 1 < len(self._pieces) or (self._goes_on and self._pull()):
            self._taking += 1
            self._due, self._at = [*self._pieces[self._taking].mine.tolist(), NEVER], 0
            if self._due[0] != NEVER:
                return

    @property
    def _goes_on(self) -> bool:
        """Whether further pieces can hold anything for us, as far as is known now."""
        since, share = self._deals[-1]
        return share is not None or self._until < since

    def _drawn(self, plan: Plan) -> Iterator[_Piece]:
        """Warm-up draws from a stream of its own, so that the load's arrivals do not depend on
        it."""
        if plan.arrivals == "closed":
            return
        number = 0
        if plan.warmup_ns:
            rate = plan.phases[0].start
            flat = (Phase(rate, rate, plan.warmup_ns),)
            kind = "poisson" if plan.arrivals in ("trace", "once") else plan.arrivals
            for due in arrivals(flat, kind, plan.seed + 1, plan.cv):
                yield _Piece(number, due + (self._origin - plan.warmup_ns))
                number += len(due)
        number = 0
        if plan.arrivals in ("trace", "once"):
            for due in _given(plan):
                yield _Piece(number, due + self._origin)
                number += len(due)
            return
        for counts in unit_arrivals(plan.arrivals, plan.seed, plan.cv):
            yield _Piece(number, self._mapped(counts), counts)
            number += len(counts)

    def _mapped(self, counts: NDArray[np.float64]) -> Ints:
        return times(self._phases, counts) + self._origin


def _given(plan: Plan) -> Iterator[Ints]:
    """Arrivals that no rate makes."""
    if plan.arrivals == "once":
        return arrivals(plan.phases, "once", plan.seed)
    due = np.frombuffer(plan.trace, "<i8").astype(np.int64)
    return replay(due, length_ns(plan.phases), plan.loop_ns)
