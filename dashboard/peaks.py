"""How far open episodes have come: of what goes on the log tells only how far it was when the alert
began to fire."""

import math
from typing import NamedTuple

from dashboard.measures import own_number
from dashboard.scene import Scene
from loadbench.alerts import further
from loadbench.episodes import Spell
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import Window
from loadbench.quantities import QUANTITIES, SPAN_S, Span

Key = tuple[str, int]


class Peak(NamedTuple):
    """Infinite for a percentile among the failed. `worst` is the second in which it was read."""

    value: float
    worst: int | None


class Peaks:
    """Read of every second of an episode, whether or not anybody looked on, as far back as single
    seconds are in view; of what is older the log's word counts, and what was read before."""

    def __init__(self) -> None:
        # of each episode, by the second: its value and the share beyond the limit
        self._read: dict[Key, dict[int, tuple[float, float]]] = {}

    def look(self, scene: Scene) -> None:
        """Takes the seconds until the moment that is looked at, those that are new."""
        spells = [s for s in scene.view.spells if s.ended is None and s.rule.quantity != "silence"]
        if not spells or not scene.view.rings[0]:
            return
        known = {bin.second: bin.window for bin in scene.view.rings[0]}
        first = scene.view.rings[0][0].second
        if first != scene.view.first:
            first += SPAN_S - 1  # its ten seconds are known, too
        gpu = own_number(scene)
        for second in range(max(first, min(spell.began for spell in spells)), scene.moment):
            lacking = [
                spell for spell in spells
                if spell.began <= second not in self._read.setdefault(key_of(spell), {})
            ]  # fmt: skip
            if lacking and second in known:
                span = _span(known, second, gpu)
                for spell in lacking:
                    now = QUANTITIES[spell.rule.quantity].read(span)
                    value = now if isinstance(now, float | int) else math.nan
                    self._read[key_of(spell)][second] = (value, span.beyond)

    def of(self, spell: Spell, moment: int) -> Peak:
        """Until a moment of the run."""
        most = (math.inf if spell.peak is None else spell.peak, 0.0)
        worst = spell.worst
        if spell.ended is None:
            for second, read in self._read.get(key_of(spell), {}).items():
                if second < moment and further(spell.rule, read, most):
                    most, worst = read, second
        return Peak(most[0], worst)


def _span(known: dict[int, Window], second: int, gpu: int | None) -> Span:
    near = range(second - SPAN_S + 1, second + 1)
    windows = tuple(known[at] for at in near if at in known)
    return Span(windows, merge(windows, Histogram.later), gpu)


def key_of(spell: Spell) -> Key:
    return spell.rule.name, spell.began
