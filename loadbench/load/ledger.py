"""The account of a run: stamps of requests in, windows of one second out.

The loop writes one row of five integers for each request that ended; rows are folded by numpy into
histograms, a few thousand at a time so that the loop never stands still for long. Windows are cut
by the stamps alone, so a window is the same whether it is cut in time or after a stall.

What counts when: asked in the second of `due`; sent in the second of `sent`; done or failed in the
second of `done`. A request that failed before its last byte was out (refused, say) counts as sent
at the moment it failed. So at each window's end, over the stages load and drain,
asked = sent + unsent + waiting and sent = done + failed + in flight.
"""

import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.histogram import EMPTY, Histogram
from loadbench.load.examples import Examples
from loadbench.load.tokens import Tokens
from loadbench.model import Part, Requests, Sample, Stage, Window
from loadbench.streams import Stream
from loadbench.units import MS, SECOND

ROWS = 8192  # held before they must be folded
ROW_BYTES = 40
HELD = 1 << 15  # a row's code: the kind's index, whether held, the failure
_FAILURE = 16
_PROBES_NS = 10 * MS  # from one answer to the next that is asked where its time went
DUE, BEGUN, SENT, DONE, CODE = range(5)

Ints = NDArray[np.int64]
_NO_ROWS = np.empty((0, 5), np.int64)


class Cut(NamedTuple):
    """What the ledger cannot know about the window it is to cut."""

    begin: int
    end: int
    second: int
    stage: Stage
    asked: int | None  # None: a closed loop, where what was begun was asked
    waiting: Ints  # due and not taken up, due before `end`
    open: Ints  # requests under way as rows: sent is NEVER if it is not, done is NEVER
    limit_ns: int | None
    phase: int | None
    rate: float | None
    stall_ns: int
    connections: int


class Ledger:
    """Rows in, windows out. `kinds` names the request of each kind's index."""

    def __init__(
        self, kinds: list[str], origin: int, slowest: int, tokens: Tokens | None = None
    ) -> None:
        self._kinds = kinds
        self._tokens = tokens
        self._origin = origin
        self._slowest = slowest
        self._failures: dict[str, int] = {"": 0}
        self._cells = np.zeros((ROWS, 5), np.int64)
        self.cells = self._cells.data.cast("B")
        self._begin = 0
        self._later = _NO_ROWS  # ended after the window that is being gathered
        self._totals = [0, 0, 0]  # to be sent, sent, ended since the stage of load began
        self._unsent = 0
        self._exemplars: list[Sample] = []  # the slowest first
        self.floor = -1  # latency beyond which a request is among the slowest of its second
        self.next_probe = 0  # when `probe` is to be called
        self._probing = False
        self._probes_ns = _PROBES_NS
        self.examples = Examples(origin)
        self._new_rows()
        self._new_window()

    def _new_rows(self) -> None:
        self._free = iter(range(0, ROWS * ROW_BYTES, ROW_BYTES))
        self.place = self._free.__next__  # where in `cells` the next row goes

    def _new_window(self) -> None:
        self._done: dict[str, list[tuple[Histogram, Histogram]]] = {}
        self._failed: dict[str, dict[str, int]] = {}
        self._lateness: list[Histogram] = []
        self._timing: dict[str, Part] = {}
        self._sent = self._held = self._begun = 0
        self._tail = [0, 0, 0, 0, 0]

    @property
    def rows(self) -> int:
        """How many rows wait to be folded."""
        return ROWS - operator.length_hint(self._free)

    def failure(self, name: str) -> int:
        """What is added to a row's code for a request that failed so."""
        return self._failures.setdefault(name, len(self._failures)) << _FAILURE

    def unsent(self, number: int) -> None:
        """So many requests have been given up before they were sent."""
        self._unsent += number

    def probe(self, now: int) -> None:
        """Lets the next answer tell where its time went, whether it is a slow one or not: the slow
        ones alone are no sample. Of a server that tells nothing it is asked less and less often."""
        self.next_probe = now + self._probes_ns
        self._probing, self.floor = True, -1

    def exemplar(self, sample: Sample) -> None:
        """A request slower than `floor`, or the one that a probe asked for."""
        if self._probing and not sample.failure:
            self._probing = False
            self._probed(sample)
        found = sorted([*self._exemplars, sample], key=_latency, reverse=True)
        self._exemplars = found[: 4 * self._slowest]
        if self._probing:  # a failed request tells nothing: the next one is asked
            return
        if not self._slowest:
            self.floor = 1 << 62
        elif len(found) >= self._slowest:
            self.floor = _latency(found[self._slowest - 1])

    def _probed(self, sample: Sample) -> None:
        known = sample.told
        self._probes_ns = _PROBES_NS if known else min(2 * self._probes_ns, SECOND)
        for name, ns in known.items():
            before = self._timing.get(name, Part(0, 0))
            self._timing[name] = Part(before.count + 1, before.total_ns + ns)

    def fold(self, begin: int, end: int) -> None:
        """Takes the rows in: those that ended before `end` into the window from `begin` on."""
        rows = np.concatenate([self._later, self._cells[: self.rows]])
        self._new_rows()
        now = rows[:, DONE] < end
        self._later = rows[~now]
        self._take(rows[now], begin, end)

    def _take(self, rows: Ints, begin: int, end: int) -> None:
        tail = (rows[:, DUE] < self._origin) & (self._origin <= begin)
        failure = rows[:, CODE] >> _FAILURE
        if tail.any():
            self._tail[0] += _within(rows[tail, SENT], begin, end)
            good = rows[tail & (failure == 0)]
            self._tail[1] += len(good)
            self._tail[2] += int((tail & (failure != 0)).sum())
            self._tail[3] += int((good[:, DONE] - good[:, BEGUN]).sum())
            self._tail[4] += int((good[:, DONE] - good[:, DUE]).sum())
            rows, failure = rows[~tail], failure[~tail]
        kinds = rows[:, CODE] & (HELD - 1)
        for kind in np.flatnonzero(np.bincount(kinds, minlength=1)):
            mine = kinds == kind
            self._ended(self._kinds[kind], rows[mine], failure[mine])
        self._count(rows, begin, end)

    def _ended(self, name: str, rows: Ints, failure: Ints) -> None:
        good = rows[failure == 0]
        if len(good):
            latency = Histogram.of(good[:, DONE] - good[:, DUE])
            service = Histogram.of(good[:, DONE] - good[:, BEGUN])
            self._done.setdefault(name, []).append((latency, service))
        if len(good) == len(rows):
            return
        names = list(self._failures)
        counts = self._failed.setdefault(name, {})
        for index, number in enumerate(np.bincount(failure)):
            if index and number:
                counts[names[index]] = counts.get(names[index], 0) + int(number)

    def _count(self, rows: Ints, begin: int, end: int) -> None:
        """What happened in [begin, end) to these requests before their end."""
        self._sent += _within(rows[:, SENT], begin, end)
        begun = rows[(rows[:, BEGUN] >= begin) & (rows[:, BEGUN] < end)]
        held = (begun[:, CODE] & HELD) != 0
        self._begun += _within(rows[:, DUE], begin, end)
        self._held += int(held.sum())
        late = begun[~held]
        if len(late):
            self._lateness.append(Histogram.of(late[:, BEGUN] - late[:, DUE]))

    def cut(self, cut: Cut) -> Window:
        """The window [cut.begin, cut.end). Windows are cut in order, without gaps."""
        self.fold(cut.begin, cut.end)
        alive = np.concatenate([self._later, cut.open])  # unanswered at the end of the window
        waiting = cut.waiting
        if cut.begin >= self._origin:
            recorded = alive[:, DUE] >= self._origin
            self._tail[0] += _within(alive[~recorded, SENT], cut.begin, cut.end)
            alive = alive[recorded]
            waiting = waiting[waiting >= self._origin]
        if cut.begin == self._origin:
            self._totals = [0, 0, 0]
        self._count(alive, cut.begin, cut.end)
        due = np.concatenate([alive[:, DUE], waiting])
        age = cut.end - due[due < cut.end]
        asked = self._begun if cut.asked is None else cut.asked
        requests = self._requests(self._streams(cut))
        self._add_up(asked, requests)
        window = Window(
            second=cut.second,
            stage=cut.stage,
            phase=cut.phase,
            rate=cut.rate,
            asked=asked,
            unsent=self._unsent,
            sent=self._sent,
            in_flight=self._totals[1] - self._totals[2],
            waiting=self._totals[0] - self._totals[1],
            held=self._held,
            requests=requests,
            tail_sent=self._tail[0],
            tail_done=self._tail[1],
            tail_failed=self._tail[2],
            tail_service_ns=self._tail[3],
            tail_latency_ns=self._tail[4],
            lateness=EMPTY if cut.asked is None else Histogram.merged(self._lateness),
            oldest_ns=int(age.max(initial=0)),
            overdue=0 if cut.limit_ns is None else int((age > cut.limit_ns).sum()),
            stall_ns=cut.stall_ns,
            connections=cut.connections,
            slowest=self._pick(cut),
            examples=self.examples.take(cut.begin, cut.end),
            timing=self._timing,
        )
        self._unsent = 0
        self._new_window()
        return window

    def _add_up(self, asked: int, requests: dict[str, Requests]) -> None:
        ended = sum(part.done + sum(part.failed.values()) for part in requests.values())
        for index, number in enumerate((asked - self._unsent, self._sent, ended)):
            self._totals[index] += number

    def _streams(self, cut: Cut) -> dict[str, Stream]:
        if self._tokens is None:
            return {}
        return self._tokens.take(cut.begin, cut.end, self._origin, self._kinds)

    def _requests(self, streams: dict[str, Stream]) -> dict[str, Requests]:
        found = {}
        for name in dict.fromkeys(self._kinds):
            parts = self._done.get(name, [])
            failed = self._failed.get(name, {})
            stream = streams.get(name)
            if parts or failed or stream:
                latency = Histogram.merged(part[0] for part in parts)
                service = Histogram.merged(part[1] for part in parts)
                found[name] = Requests(latency.count, failed, latency, service, stream)
        return found

    def _pick(self, cut: Cut) -> tuple[Sample, ...]:
        mine = [found for found in self._exemplars if found.done < cut.end]
        self._exemplars = [found for found in self._exemplars if found.done >= cut.end]
        self.floor = -1
        recorded = cut.begin >= self._origin
        counted = [found for found in mine if (found.due >= self._origin) == recorded]
        return tuple(counted[: self._slowest])


def _latency(sample: Sample) -> int:
    return sample.done - sample.due


def _within(stamps: Ints, begin: int, end: int) -> int:
    return int(((stamps >= begin) & (stamps < end)).sum())
