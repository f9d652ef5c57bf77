"""How sure the figures of a run are: bands of percentiles, and whether a check is shown.

A check passes or fails on what was measured; whether it would again is a question of its own, to
which `certainty` has the arithmetic. What was asked and not answered well counts as over any limit.
It holds for a stretch of one rate: over a changing one a figure is a count of what happened.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from loadbench import certainty, streams, units
from loadbench.histogram import Histogram
from loadbench.model import Check, Shown, Window
from loadbench.value import Value

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
CHANGED = "the rate changed within the run"
UNPACED = "its arrivals have no constant rate"
EMPTY = "no requests were recorded"
AMONG = "it falls among the requests not answered well"
LINKED = "slow requests come in bunches that are long for this run: run longer"
OTHER = "only percentiles and shares of requests can be shown"
_BLOCKS = 2 * certainty.LEAST  # to begin with: they are doubled at least once
SHORT = f"{_BLOCKS} seconds at one rate are needed"
BRIEF = {  # the same whys where there is little room
    CHANGED: "the rate changed",
    UNPACED: "no constant rate",
    EMPTY: "no requests",
    AMONG: "among the failed",
    LINKED: "bunched, run longer",
    SHORT: f"needs {_BLOCKS} s of one rate",
}
_LOOKS = 256  # at what a run had shown until then
_MOST = 2048  # blocks that are looked at: of a longer run neighbours are put together


class Band(Value, frozen=True):
    """Where a percentile lies at 95 %, in ns; `high` None: nothing bounds it above."""

    low: float
    high: float | None

    def around(self, value: float | None) -> float | None:
        """The larger of its distances from a value; None where it has no end."""
        if value is None or self.high is None or math.isinf(value):
            return None
        return max(self.high - value, value - self.low)


class Certainty(Value, frozen=True, omit_defaults=False):
    """`state` "" where nothing can be said, ever, and `why`. `more`: requests until it is shown, if
    they are like those so far; at least as many where `why` says so; None: far too many.
    `effective` independent requests say as much as those that were asked, by `effect`."""

    state: str = ""  # "shown" | "not shown" | ""
    more: int | None = None
    effect: float | None = None
    effective: int | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """`shown`, `not shown (≈ 12,000 more)`, or why there is neither."""
        if self.state != "not shown":
            return self.state or self.why
        if self.more is None:
            return "not shown (too near to the limit)"
        sign = "≥" if self.why else "≈"
        return f"not shown ({sign} {units.count(_rounded(self.more))} more)"


def _rounded(number: int) -> int:
    """To two digits: it is a guess."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


class Blocks:
    """A run's recorded seconds, in order and of one length: what was asked in each, how long it
    took, and what was not answered well. `why` says why nothing can be concluded from them."""

    def __init__(
        self,
        windows: Sequence[Window],
        rest: Sequence[Window] = (),
        missed: int = 0,
        whole: Histogram | None = None,
        of: "Quantity | None" = None,
    ) -> None:
        """`rest` is what came after the last of them, and `missed` the number of all that were
        asked and not answered well: what is not known of whole seconds goes to the last. `whole` is
        the latency of all, where it is known already; `of` is what is looked at; None: that."""
        of = of or LATENCY
        step = -(-len(windows) // _MOST)
        groups = [windows[at : at + step] for at in range(0, len(windows), max(1, step))]
        if groups:
            groups[-1] = [*groups[-1], *rest]
        self.why = _unfit(windows)
        self.latency = [Histogram.merged(map(of.values, group)) for group in groups]
        lost = np.array([sum(map(of.lost, group)) for group in groups], np.int64)
        if len(lost):
            lost[-1] += max(0, missed - int(lost.sum()))
        self.missed = lost
        self.asked = lost + np.array([found.count for found in self.latency], np.int64)
        self.total = int(self.asked.sum())
        self.whole = Histogram.merged(self.latency) if whole is None else whole

    def over(self, limit: float) -> certainty.Ints:
        """Of each block, the requests that took longer than `limit` ns or were not answered."""
        if math.isinf(limit):
            return self.missed
        counts = [found.over(round(limit)) for found in self.latency]
        return self.missed + np.array(counts, np.int64)

    def quantile(self, share: float) -> float | None:
        """Of all that was asked; inf among those not answered well."""
        return self.whole.quantile_of_asked(share, int(self.missed.sum()))

    def effect(self, over: certainty.Ints) -> float | None:
        """The newest design effect that is known. At one look blocks may seem to depend on each
        other by chance; a little earlier they did not."""
        count = len(self.asked)
        for until in range(count, max(_BLOCKS, count * 3 // 4) - 1, -max(1, count // 64)):
            found = self.effect_at(over, until)
            if found is not None:
                return found
        return None

    def effect_at(self, over: certainty.Ints, until: int) -> float | None:
        """Of the first so many blocks: by an indicator and by being among the slowest tenth, which
        shows how long a queue remembers where the indicator is too rare to."""
        if until < _BLOCKS:
            return None
        return certainty.effect_of(self.asked[:until], over[:until], self._slow[:until])

    @cached_property
    def _slow(self) -> certainty.Ints:
        slow = self.quantile(0.9)
        return self.missed if slow is None else self.over(slow)


def missing(window: Window) -> int:
    """Asked and not answered well."""
    return sum(window.failed.values()) + window.unsent + window.lost


class Quantity(NamedTuple):
    """What of a window percentiles are taken of, and how many were larger than any number."""

    values: Callable[[Window], Histogram]
    lost: Callable[[Window], int]


LATENCY = Quantity(lambda window: window.latency, missing)


def _unfit(windows: Sequence[Window]) -> str:
    """Why these seconds are no stretch of constant load; "": they are."""
    if not windows:
        return EMPTY
    if len({(window.rate, window.users) for window in windows}) > 1:
        return CHANGED
    # in a closed loop nothing is due; a trace has arrivals of its own, without a rate
    return UNPACED if any(w.rate is None and w.lateness.count for w in windows) else ""


def known(blocks: Blocks) -> Certainty:
    """Of the run as a whole, by its p99: by how much its requests depend on each other."""
    value = blocks.quantile(0.99)
    if blocks.why or value is None:
        return Certainty(why=blocks.why or EMPTY)
    effect = blocks.effect(blocks.over(value))
    if effect is None:
        return Certainty(why=SHORT if len(blocks.asked) < _BLOCKS else LINKED)
    return Certainty("", None, effect, round(blocks.total / effect))


def band(blocks: Blocks, share: float) -> Band | None:
    """Of a percentile; None where none can be told yet, or ever."""
    found = band_or_why(blocks, share)
    return found if isinstance(found, Band) else None


def band_or_why(blocks: Blocks, share: float) -> Band | str:
    """The band of a percentile, or why it has none."""
    value = blocks.quantile(share)
    if blocks.why or value is None:
        return blocks.why or EMPTY
    if math.isinf(value):
        return AMONG
    effect = blocks.effect(blocks.over(value))
    if effect is None or blocks.total < certainty.LEAST * effect:
        return SHORT if len(blocks.asked) < _BLOCKS else LINKED
    fewest, most = certainty.bounds(blocks.total, 1 - share, effect)
    low = blocks.quantile(1 - min(blocks.total, math.ceil(most)) / blocks.total)
    high = blocks.quantile(1 - math.floor(fewest) / blocks.total) if fewest >= 1 else None
    ended = None if high is None or math.isinf(high) else max(high, value)
    return Band(min(low if low is not None else value, value), ended)


def assess(check: Check, blocks: Blocks, limit_ns: int | None) -> Certainty:
    """Whether what a check found is shown. `limit_ns` is the run's latency limit."""
    claim = _claim(check, blocks, limit_ns)
    if claim is None:
        return Certainty(why=OTHER)
    if blocks.why:
        return Certainty(why=blocks.why)
    share, over = claim
    if found := _shown(share, over, blocks):
        return found
    number = int(over.sum())
    effect = blocks.effect(over)
    if effect is None:
        return _unknown(number, share, blocks)
    more = certainty.further(number, blocks.total, share, effect)
    effective = round(blocks.total / effect)
    return Certainty("not shown", None if more is None else round(more), effect, effective)


def decided(check: Check, blocks: Blocks, limit_ns: int | None) -> Shown | None:
    """What a check is shown to be; None: nothing yet."""
    found, claim = assess(check, blocks, limit_ns), _claim(check, blocks, limit_ns)
    if claim is None or found.state != "shown" or found.effect is None:
        return None
    share, over = claim
    under = int(over.sum()) < share * blocks.total
    # few requests beyond a limit are what `p99 < 100 ms` asks for, and `on_time > 99 %`
    wanted = check.above != (percentile_of(check.name) is not None or check.name == "errors")
    return Shown(check.name, "passed" if under == wanted else "failed", found.effect)


def _shown(share: float, over: certainty.Ints, blocks: Blocks) -> Certainty | None:
    """What has been shown once stays so: the bound holds at all looks together. It must have been
    the side on which the whole run lies."""
    numbers, totals = np.cumsum(over), np.cumsum(blocks.asked)
    under = numbers[-1] < share * totals[-1]
    count = len(totals)
    for until in range(count, _BLOCKS - 1, -max(1, count // _LOOKS)):
        number, total = int(numbers[until - 1]), int(totals[until - 1])
        if (number < share * total) != under or not certainty.shown(number, total, share, 1.0):
            continue  # no design effect is below 1
        effect = blocks.effect_at(over, until)
        if effect is not None and certainty.shown(number, total, share, effect):
            return Certainty("shown", None, effect, round(total / effect))
    return None


def _unknown(number: int, share: float, blocks: Blocks) -> Certainty:
    """What it takes at least: so many blocks, and so many requests were they independent."""
    least = certainty.further(number, blocks.total, share, 1.0)
    if least is None:
        return Certainty("not shown")
    count = len(blocks.asked)
    missing_blocks = _BLOCKS - count if count < _BLOCKS else count  # else: twice as many
    needed = blocks.total * missing_blocks / count
    why = SHORT if count < _BLOCKS else LINKED
    return Certainty("not shown", round(max(least, needed)), why=why)


def percentile_of(check: str) -> float | None:
    """Of a check on one, of latency or of the times of tokens."""
    return QUANTILES.get(check.rpartition("_")[2] if check in streams.CHECKS else check)


def share_of(check: Check, limit_ns: int | None) -> float | None:
    """The share of requests that a check is about; None: it is about something else, which cannot
    be shown."""
    percentile = percentile_of(check.name)
    if percentile is not None:
        share = 1 - percentile
    elif check.name == "errors":
        share = check.limit
    elif check.name == "asked_done" or (check.name == "on_time" and limit_ns is not None):
        share = 1 - check.limit
    else:
        return None
    return share if 0 < share < 1 else None


def _claim(
    check: Check, blocks: Blocks, limit_ns: int | None
) -> tuple[float, certainty.Ints] | None:
    """A check as a share of requests that may have something, and who has it."""
    share = share_of(check, limit_ns)
    if share is None:
        return None
    if percentile_of(check.name) is not None:
        return share, blocks.over(check.limit)
    if check.name == "on_time" and limit_ns is not None:
        return share, blocks.over(limit_ns)
    return share, blocks.missed
