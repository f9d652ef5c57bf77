"""Leads one long run through the stages of a search: a window in, an order to the load out.

After each change of the rate what is left of the one before must be gone before anything counts:
arrivals pause until no more is open than the new rate has open within the limit (where the limit is
of tokens: and while answers take their time), and some seconds settle. A stage ends before its time
once it is clear how it ends. No clocks: it knows the time by the windows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadbench.evidence import LIMIT_NS, Evidence
from loadbench.judge.search import LEAST_S, Found, Probe, Terms, ended, following
from loadbench.judge.stage import Seen, judged, read
from loadbench.model import Window
from loadbench.shape import Steering
from loadbench.units import SECOND

_SAME = 1e-6
_DRAIN_S = 120  # longer than that a target is not waited for


class Order(NamedTuple):
    """What the load is to do from now on, None: end; and the words of the mark."""

    steering: Steering | None
    text: str


class Pilot:
    """`told` hears of each stage as it ends, with the seconds spent. The load must begin at the
    rate of `first`."""

    def __init__(
        self,
        terms: Terms,
        told: Callable[[Seen, float], None],
        seen: Sequence[Seen] = (),
        spent_s: float = 0.0,
    ) -> None:
        """`seen` are stages of an earlier run that is gone on with; they took `spent_s`."""
        self.terms = terms
        self.seen = list(seen)
        self._evidence = Evidence(limit_ns=terms.claim.limit_ns or LIMIT_NS)
        self._told = told
        self._before_s = spent_s
        first = following(terms, seen, spent_s)
        self.found = first if isinstance(first, Found) else None
        self.probe = first if isinstance(first, Probe) else None
        self._from = terms.settle_s - 1  # warm-up was at this rate: nothing changes in second 0
        self._drains = 0
        self._windows: list[Window] = []
        self._second = 0
        self._open_s = 0.0  # for so long requests are open where all is well

    @property
    def spent_s(self) -> float:
        return self._before_s + self._second

    def stop(self) -> Found:
        """The search as it stands; the stage at work is lost."""
        self.found = self.found or ended(self.terms, self.seen, self.spent_s, "stopped")
        return self.found

    def see(self, window: Window) -> Order | None:
        """Takes the next window of the run."""
        if window.stage != "load" or self.probe is None:
            return None
        self._second = window.second + 1
        if self._drains:
            return self._drained(window, self.probe)
        if window.rate is not None and abs(window.rate - self.probe.rate) > _SAME * self.probe.rate:
            self._from = max(self._from, window.second + self.terms.settle_s)  # not there yet
            self._windows = []
        if window.second < self._from:
            return None
        self._windows.append(window)
        if not self._is_over(self.probe):
            return None
        return self._next(window, self.probe)

    def _is_over(self, probe: Probe) -> bool:
        """A full stage that seems to hold is never cut short."""
        count = len(self._windows)
        if count >= probe.seconds:
            return True
        if count < LEAST_S:
            return False
        found = read(self._windows, self.terms.claim)
        holds = found.over < self.terms.claim.share * found.asked
        if found.overloaded or (found.shown and not holds):
            return True
        return found.shown and probe.kind != "confirm"

    def _next(self, window: Window, probe: Probe) -> Order:
        stage = judged(probe.kind, self._windows, self.terms.claim, self._evidence)
        if stage.holds and self.terms.claim.of:
            taken = _open_s(self._windows, probe.rate)
            self._open_s = min(self._open_s or taken, taken)
        self._windows = []
        self.seen.append(stage)
        self._told(stage, self.spent_s)
        step = following(self.terms, self.seen, self.spent_s)
        if isinstance(step, Found):
            self.found, self.probe = step, None
            return Order(None, "the search is over")
        self.probe = step
        if self._is_empty(window, step):
            return self._begin(window, step)
        self._drains = 1
        return Order(Steering(step.rate, paused=True), "waiting until what is left has drained")

    def _drained(self, window: Window, probe: Probe) -> Order | None:
        self._drains += 1
        if self._drains <= _DRAIN_S and not self._is_empty(window, probe):
            return None
        self._drains = 0
        return self._begin(window, probe)

    def _begin(self, window: Window, probe: Probe) -> Order:
        """The change falls into the next second, which therefore is of neither rate."""
        self._from = window.second + 1 + self.terms.settle_s
        return Order(Steering(probe.rate), f"{probe.kind}: {probe.rate:.6g}/s")

    def _is_empty(self, window: Window, probe: Probe) -> bool:
        within_s = (self.terms.claim.limit_ns or LIMIT_NS) / SECOND + self._open_s
        return window.in_flight + window.waiting <= max(2.0, probe.rate * within_s)


def _open_s(windows: Sequence[Window], rate: float) -> float:
    """For how long a request is open, by Little's law."""
    return sum(window.in_flight + window.waiting for window in windows) / len(windows) / rate


def longest_s(terms: Terms) -> int:
    """How long the run may be that is led: the budget, and a last drain."""
    return terms.budget_s + _DRAIN_S
