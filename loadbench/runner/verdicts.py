"""The last minutes of a run, kept to say in words why an alert fires at the moment it does."""

from collections import deque

from loadbench.merge import merge
from loadbench.model import AlertChange, Rule, Window
from loadbench.situation import Situation, Stretch, stretches
from loadbench.words import explain

_KEPT_S = 120


class Verdicts:
    """`device` is what serves the model, as the log names it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._windows: deque[Window] = deque(maxlen=_KEPT_S)

    def see(self, window: Window) -> None:
        """Takes a window of the stage `load`."""
        self._windows.append(window)

    def words(self, rule: Rule, change: AlertChange) -> tuple[str, ...]:
        """The verdict on an episode at a change of its state; nothing before the first window."""
        at, before = stretches(change, rule)
        now = self._within(at) or list(self._windows)[-1:]
        if not now:
            return ()
        calm = self._within(before)
        found = Situation(
            merge(now), len(now), rule.quantity, self._device, merge(calm) if calm else None
        )
        return explain(found, rule, change).lines

    def _within(self, part: Stretch) -> list[Window]:
        return [window for window in self._windows if part.begin <= window.second < part.end]
