"""The last minutes of a run, kept to say in words why an alert fires at the moment it does; of an
alert that goes on for longer also what came before it and its worst seconds.
"""

from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from loadbench import units
from loadbench.merge import merge
from loadbench.model import AlertChange, Mark, Rule, Window
from loadbench.outages import Second, outages, second_of
from loadbench.quantities import SPAN_S
from loadbench.situation import BEFORE_S, Situation, Stretch, changed, ever, stretches
from loadbench.words import explain

_KEPT_S = 120
_MOST_MARKS = 500
_ENDED_S = 3600  # of what came of requests: it is little, and tells all outages of a long alert


class Verdicts:
    """`device` is what serves the model, as the log names it; `ours`: an engine of the run;
    `sent`: the names of the headers with a key that it is sent."""

    def __init__(self, device: str, ours: bool = True, sent: tuple[str, ...] = ()) -> None:
        self._device = device
        self._sent = sent
        self._ours = ours
        self._windows: list[Window] = []
        self._marks: list[Mark] = []
        self._ended: deque[Second] = deque(maxlen=_ENDED_S)

    def see(self, window: Window, firing: Iterable[tuple[Rule, AlertChange]] = ()) -> None:
        """Takes a window of the stage `load`. `firing` is what fired until now: what its end will
        be told by is kept."""
        self._ended.append(second_of(window))
        wanted = [
            Stretch(part.begin - BEFORE_S, part.end)
            for rule, on in firing
            for part in stretches(_over(rule, on), rule)
        ]
        wanted.append(Stretch(window.second - _KEPT_S + 1, window.second + 1))
        self._windows = [
            kept
            for kept in (*self._windows, window)
            if any(part.begin <= kept.second < part.end for part in wanted)
        ]

    def mark(self, mark: Mark) -> None:
        """Takes note of what was done to the run, for what begins soon after it."""
        self._marks = [*self._marks[1 - _MOST_MARKS :], mark]

    def words(self, rule: Rule, change: AlertChange) -> tuple[str, ...]:
        """The verdict on an episode at a change of its state; nothing before the first window, nor
        of the end of one whose seconds are forgotten."""
        at, before = stretches(change, rule)
        now = self._within(at)
        if not now and (change.state == "firing" or rule.quantity == "silence"):
            now = self._windows[-1:]
        if not now:
            return ()
        calm = self._within(before)
        earlier = merge(calm) if calm else None
        found = Situation(
            merge(now), len(now), rule.quantity, self._device, earlier, self._ours,
            changed(change, rule, self._marks, earlier.rate if earlier else None, self._within),
            outages(self._ended, *ever(change)), self._sent,
        )  # fmt: skip
        return explain(found, rule, change).lines

    def _within(self, part: Stretch) -> list[Window]:
        return [window for window in self._windows if part.begin <= window.second < part.end]


def _over(rule: Rule, on: AlertChange) -> AlertChange:
    """As its end would be told, were it over now: that is known some time later."""
    return replace(on, state="ok", second=on.second + SPAN_S + rule.for_ns // units.SECOND)
