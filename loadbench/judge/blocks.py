"""Blocks: the load goes to one of two targets at a time, in turns A B B A A B B A …

Both targets have the same arrivals: a target's rate is 0 while the other has its turn, and what
falls due is drawn at a rate of one and mapped to the rate (`shape`), so the k-th block of A has the
same gaps and the same requests as the k-th of B. The turns of a pair change places from one pair to
the next, so that what drifts evenly favours neither. The beginning of each block is left out.

Here is which second belongs to which block, and what the blocks came to; all of it from the
windows of the two runs, so that a session that was killed can be read like one that was not.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta

from loadbench.assurance import QUANTILES
from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.judge.bands import barren
from loadbench.judge.paired import MOST_PAIRS, fewest
from loadbench.model import Window
from loadbench.shape import Phase
from loadbench.streams import CHECKS, TIMES, Stream, merged
from loadbench.units import MS, SECOND, duration
from loadbench.value import Value

SIDES = ("a", "b")
METRICS = ("mean", *QUANTILES, *CHECKS)
_SHORTEST_S, _USUAL = 2, 30  # seconds of a block; blocks in a budget, if nothing asks for fewer
_BEYOND = 25  # requests that a block should hold beyond the percentile
SETTLE_S = 1
_LONGEST_S = 10**6  # that a snapshot may tell of a block


class Layout(Value, frozen=True):
    """When which target has its turn, in whole seconds. First both are warmed up, A before B."""

    rate: Annotated[float, Meta(gt=0, le=1e12)]
    warm_s: Annotated[int, Meta(ge=0, le=_LONGEST_S)]
    block_s: Annotated[int, Meta(ge=1, le=_LONGEST_S)]
    pairs: Annotated[int, Meta(ge=1, le=MOST_PAIRS)]
    settle_s: Annotated[int, Meta(ge=0, le=_LONGEST_S)] = SETTLE_S

    @property
    def seconds(self) -> int:
        return 2 * self.warm_s + 2 * self.pairs * self.block_s

    def begin(self, block: int) -> int:
        """The second in which a block begins."""
        return 2 * self.warm_s + block * self.block_s

    def end(self, pair: int) -> int:
        """The second in which a pair has ended."""
        return self.begin(2 * pair + 2)

    def block(self, pair: int, side: str) -> int:
        """The number of a pair's block of one side."""
        return 2 * pair + (side_of(2 * pair) != side)

    def phases(self, side: str) -> tuple[Phase, ...]:
        """The load of one side."""
        turns = [(own == side, self.warm_s) for own in SIDES]
        turns += [(side_of(block) == side, self.block_s) for block in range(2 * self.pairs)]
        rates = [(self.rate if own else 0.0, length) for own, length in turns if length]
        return tuple(Phase(rate, rate, length * SECOND) for rate, length in rates)

    def idle(self, side: str, second: int) -> bool:
        """Whether a side has had nothing to do for a second and more."""
        if second < 2 * self.warm_s:
            return False
        block, within = divmod(second - 2 * self.warm_s, self.block_s)
        return block < 2 * self.pairs and side_of(block) != side and within >= self.settle_s


def side_of(block: int) -> str:
    return SIDES[(block + 1) // 2 % 2]


def layout(
    rate: float,
    budget_ns: int,
    warm_ns: int,
    block_ns: int | None,
    finest: float,
    metrics: int = 1,
) -> Layout:
    """As many pairs as the budget holds, of blocks of the length asked for, or of one that leaves
    enough requests beyond the finest percentile (a fraction) that gets a verdict, as far as the
    fewest pairs fit that show anything of so many metrics. Raises SpecError if they do not."""
    least = fewest(metrics)
    warm, budget = math.ceil(warm_ns / SECOND), budget_ns // SECOND
    left = budget - 2 * warm
    if block_ns is None:
        wanted = math.ceil(_BEYOND / (1 - finest) / rate) + SETTLE_S
        longest = max(_SHORTEST_S, left // (2 * least))
        length = min(max(_SHORTEST_S, left // _USUAL, wanted), longest)
    else:
        length = block_ns // SECOND
        if block_ns % SECOND or length <= SETTLE_S:
            hint = f"whole seconds, {SETTLE_S + 1} at least: the first is left out of the figures"
            raise SpecError(f"blocks of {duration(block_ns)} cannot be told apart", hint)
    pairs = min(left // (2 * length), MOST_PAIRS)
    if pairs < least:
        need = 2 * warm + 2 * least * length
        raise SpecError(
            f"a budget of {budget} s holds {max(pairs, 0)} pairs of blocks of {length} s after a "
            f"warm-up of {warm} s a side: fewer than {least} pairs never give a verdict"
            + (f" on {metrics} metrics" if metrics > 1 else ""),
            f"--budget {need}s",
        )
    return Layout(rate, warm, length, pairs)


class Block(NamedTuple):
    """What one block came to: the requests of its measured seconds by when they were answered, and
    those that came to nothing until the side's next turn."""

    latency: Histogram
    missed: int
    stuck: bool  # nothing came back at all, and something was under way
    stream: Stream | None = None  # of answers that come token by token
    barren: int = 0  # of those that came to nothing: without a token

    def value(self, metric: str) -> float | None:
        """In ms; infinity if it falls among those not answered well, None if there were none."""
        if metric in CHECKS:
            return self._token(metric)
        if not self.latency.count and not self.missed:
            return math.inf if self.stuck else None
        if metric == "mean":
            mean = self.latency.mean
            return math.inf if self.missed or mean is None else mean / MS
        found = self.latency.quantile_of_asked(QUANTILES[metric], self.missed)
        return None if found is None else found / MS

    def _token(self, metric: str) -> float | None:
        if self.stream is None:
            return None
        what = metric.rpartition("_")[0]
        lost = self.barren if what == "first_token" else 0
        found = TIMES[what](self.stream).quantile_of_asked(fraction(metric), lost)
        return None if found is None else found / MS


def fraction(metric: str) -> float:
    """Of its percentile; a mean counts as a middle."""
    return QUANTILES.get(metric.rpartition("_")[2] if metric in CHECKS else metric, 0.5)


def called(metric: str) -> str:
    """As people write it: p99.9."""
    return metric if metric in CHECKS else metric.replace("_", ".")


def blocks(windows: Iterable[Window], plan: Layout, side: str) -> Iterator[Block]:
    """The blocks of a side that are over, in their order."""
    by_second = {window.second: window for window in windows if window.stage != "warmup"}
    last = max(by_second, default=-1)
    own = [plan.begin(plan.block(pair, side)) + plan.settle_s for pair in range(plan.pairs)]
    for begin, following in zip(own, [*own[1:], plan.seconds + 3600], strict=True):
        end = begin - plan.settle_s + plan.block_s
        if last < end - 1:
            return
        inside = [by_second[second] for second in range(begin, end) if second in by_second]
        later = [window for second, window in by_second.items() if end <= second < following]
        yield Block(
            Histogram.merged(window.latency for window in inside),
            sum(
                sum(window.failed.values()) + window.lost + window.unsent
                for window in (*inside, *later)
            ),
            bool(inside) and inside[-1].in_flight + inside[-1].waiting > 0,
            merged(window.stream for window in inside),
            sum(barren(window) for window in (*inside, *later)),
        )


def pairs(
    a: Sequence[Block], b: Sequence[Block], metric: str
) -> list[tuple[float | None, float | None]]:
    """The values (ms) of the pairs that are whole; None lies above every number. A pair in which a
    side had no request at all is left out."""
    found = []
    for one, other in zip(a, b, strict=False):
        values = one.value(metric), other.value(metric)
        if None not in values:
            found.append(tuple(v if v is not None and math.isfinite(v) else None for v in values))
    return [(left, right) for left, right in found]


def idle_cpu(windows: Iterable[Window], plan: Layout, side: str) -> float | None:
    """What the engine of a side used of a core on average while it had nothing to do. None: it is
    not ours to look at."""
    used = [
        window.machine.processes["engine"].cpu
        for window in windows
        if window.machine and "engine" in window.machine.processes
        and plan.idle(side, window.second)
    ]  # fmt: skip
    known = [share for share in used if share is not None]
    return sum(known) / len(known) if known else None
