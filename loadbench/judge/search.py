"""The search for the highest rate that a target holds: what the stages until now showed, and what
the budget leaves, to the next stage or the end. It keeps nothing: the same stages give the same
next one, so a search that was broken off goes on from its stages.

    up        from the start in steps, large ones while the limit is far, until one does not hold
    re-check  the highest that held once more: after an overload a target may not be what it was
    down      where nothing holds
    narrow    near the crossing (see `crossing`), short stages first, until its place is known
    confirm   in full length, a little below it; the rate that holds there is the result
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from loadbench.judge.crossing import Crossing, Point
from loadbench.judge.stage import Claim, Count, Kind, Rate, Seen
from loadbench.model import Value
from loadbench.units import duration, significant

SHORT, MIDDLE = 1 / 6, 1 / 2  # of a full stage
LEAST_S = 3  # the shortest stage
_STRIDE, _STEP = 2.0, 1.3  # up, while the limit is far, and then
_WIDE = 1.15  # high ÷ low of what is believable: until then short stages do
_ASIDE = (0.35, 0.65)  # where stages are put, by turns: at two places the slope shows, too
_CAUTION = 0.22  # how likely the rate to be confirmed may be too high
_NEAR = 8  # times the share that may be over
_MOST_NARROW = 2.0  # full stages that narrowing may take
_LEAST_RATE = 0.01
_SAME = 1.005
_CHANGED = 3.0  # standard errors between a rate before and after an overload

Limit = Literal[
    "latency", "failures", "generator", "cap", "budget", "stopped", "nothing holds", "going on"
]


class Terms(Value, frozen=True):
    """What is searched for, and what that may cost."""

    claim: Claim
    start: Rate | None = None  # the first rate, per second; None: by what is known of the target
    most: Rate | None = None  # no higher rate is tried
    capped: str = ""  # why none is, where nobody asked for that
    stage_s: int = 60  # a full stage
    settle_s: int = 2  # after each change of the rate, in no count
    budget_s: Count = 900
    precision: float = 0.02  # half of the width of what is believable of the crossing

    @property
    def short_s(self) -> int:
        return max(LEAST_S, round(self.stage_s * SHORT))

    @property
    def middle_s(self) -> int:
        return max(LEAST_S, round(self.stage_s * MIDDLE))


class Probe(NamedTuple):
    """The next stage."""

    kind: Kind
    rate: float
    seconds: int


class Found(Value, frozen=True, omit_defaults=False):
    """The end of a search. `rate` held in a full stage if it is `confirmed`; else it is what would
    have been confirmed next, or the highest that held where nothing failed. The true crossing lies
    in `low` to `high` (95 %); null: not known. `limit` is what keeps it from being higher."""

    rate: Rate | None
    low: Rate | None
    high: Rate | None
    confirmed: bool
    limit: Limit
    text: str
    knee: Rate | None
    changed: str = ""  # what an overload left behind
    seconds: float = 0.0

    @property
    def unbounded(self) -> str:
        """Why the interval is open above, or there is none; "" where it is whole."""
        if self.low is not None and self.high is not None:
            return ""
        if self.rate is None:
            return "no interval: no stage held"
        return "no rate was seen that it does not hold"

    @property
    def verdict(self) -> bool:
        """Whether it says something of the target."""
        return self.confirmed or self.limit == "nothing holds"


def following(terms: Terms, seen: Sequence[Seen], spent_s: float) -> Probe | Found:
    """What comes after these stages, which took so many seconds in all."""
    left_s = terms.budget_s - spent_s
    wanted = _wanted(terms, seen, left_s)
    if not isinstance(wanted, Probe):
        return ended(terms, seen, spent_s, wanted)
    if cost(terms, wanted) <= left_s:
        return wanted
    rest_s = int(left_s) - terms.settle_s
    if wanted.kind == "confirm" and rest_s >= terms.short_s:
        # That is too little to confirm it, and tells more of the place than an earlier end would
        return Probe("narrow", wanted.rate, rest_s)
    return ended(terms, seen, spent_s, "budget")


def cost(terms: Terms, probe: Probe) -> int:
    """Seconds, the one included in which the rate changes."""
    return probe.seconds + terms.settle_s


def _wanted(terms: Terms, seen: Sequence[Seen], left_s: float) -> Probe | Limit:
    if not seen:
        return _upward(terms, seen)
    last = seen[-1]
    if not last.counts:
        again = len(seen) > 1 and not seen[-2].counts
        return "generator" if again else Probe(last.kind, last.rate, _length(terms, last.kind))
    if last.kind == "confirm" and last.holds:
        return "cap" if terms.most and last.rate * _SAME > terms.most else _culprit(terms, seen)
    fails = [stage for stage in seen if not stage.holds and stage.counts]
    if not fails:
        return _upward(terms, seen)
    after = _after(seen)
    if not any(stage.holds for stage in after):
        return _downward(terms, seen, after)
    return _near(terms, seen, left_s)


def _length(terms: Terms, kind: Kind) -> int:
    return terms.stage_s if kind == "confirm" else terms.short_s


def _upward(terms: Terms, seen: Sequence[Seen]) -> Probe:
    """Nothing has failed yet."""
    if not seen:
        return _capped(terms, terms.start or 1.0)
    top = max(seen, key=lambda stage: stage.rate)
    return _capped(terms, top.rate * (_STRIDE if top.eased else _STEP))


def _capped(terms: Terms, rate: float) -> Probe:
    """The highest rate that may be tried is the result if it holds: in full at once."""
    if terms.most is not None and rate * _SAME >= terms.most:
        return Probe("confirm", terms.most, terms.stage_s)
    return Probe("up", rate, terms.short_s)


def _within(terms: Terms, rate: float) -> float:
    """No higher than may be tried, wherever the crossing is believed to lie."""
    return rate if terms.most is None else min(rate, terms.most)


def _after(seen: Sequence[Seen]) -> Sequence[Seen]:
    """From the first stage on that did not hold."""
    first = next(at for at, stage in enumerate(seen) if not stage.holds and stage.counts)
    return seen[first:]


def _downward(terms: Terms, seen: Sequence[Seen], after: Sequence[Seen]) -> Probe | Limit:
    """Nothing has held since the first that did not."""
    before = [stage.rate for stage in seen[: -len(after)] if stage.holds]
    if before and not any(stage.kind == "re-check" for stage in after):
        return Probe("re-check", max(before), terms.short_s)
    rate = min(stage.rate for stage in after) / (_STEP if before else _STRIDE)
    return "nothing holds" if rate < _LEAST_RATE else Probe("down", rate, terms.short_s)


def _near(terms: Terms, seen: Sequence[Seen], left_s: float) -> Probe:
    crossing = crossing_of(terms.claim, seen)
    low, high = (crossing.quantile(part) for part in (0.025, 0.975))
    confirm = Probe("confirm", _within(terms, crossing.quantile(_CAUTION)), terms.stage_s)
    narrowed = [stage for stage in seen if stage.kind == "narrow"]
    width = high / low
    seconds = terms.short_s if width > _WIDE else terms.middle_s
    aside = crossing.quantile(_ASIDE[len(narrowed) % 2])
    narrow = Probe("narrow", _within(terms, aside), seconds)
    known = width <= 1 + 2 * terms.precision
    spent = sum(stage.seconds for stage in narrowed)
    enough = spent + seconds > _MOST_NARROW * terms.stage_s
    if not (known or enough) and left_s >= cost(terms, narrow) + cost(terms, confirm):
        return narrow
    return confirm


def crossing_of(claim: Claim, seen: Sequence[Seen]) -> Crossing:
    """Where the limit begins not to hold, by all stages that tell it."""
    stages = _telling(seen)
    effect = _effect(claim, stages)
    points = [
        Point(stage.rate, stage.over / effect, max(1.0, stage.asked / effect), stage.overloaded)
        for stage in stages
    ]
    return Crossing(points, claim.share)


def _telling(seen: Sequence[Seen]) -> list[Seen]:
    """The stages that say something of the target; if an overload changed it, since then."""
    return [stage for stage in (_after(seen) if changed(seen) else seen) if stage.counts]


def _effect(claim: Claim, stages: Sequence[Seen]) -> float:
    """The design effect near the crossing, by all stages there together: a stage in which chance
    had few over the limit seems by its own to know that well, and would count too much."""
    near = [
        stage
        for stage in stages
        if claim.share / _NEAR < stage.share < claim.share * _NEAR and not stage.overloaded
    ]
    long = sum(stage.seconds for stage in near)
    if not long:
        return max(1.0, *(stage.effect for stage in stages))
    return sum(stage.effect * stage.seconds for stage in near) / long


def changed(seen: Sequence[Seen]) -> str:
    """Hysteresis: what the re-check after an overload showed that the same rate had not before."""
    for at, late in enumerate(seen):
        if late.kind != "re-check" or not late.counts:
            continue
        same = [stage for stage in seen[:at] if stage.rate == late.rate and stage.holds]
        if same and not late.holds and _apart(same[-1], late):
            return (
                f"{significant(late.rate)}/s held before the overload and not after it:"
                " what is told is what held afterwards"
            )
    return ""


def _apart(early: Seen, late: Seen) -> bool:
    shares = [(stage.over + 0.5) / (stage.asked + 1) for stage in (early, late)]
    spread = sum(
        share * (1 - share) * stage.effect / max(1, stage.asked)
        for share, stage in zip(shares, (early, late), strict=True)
    )
    return late.overloaded or shares[1] - shares[0] > _CHANGED * math.sqrt(spread)


def ended(terms: Terms, seen: Sequence[Seen], spent_s: float, why: Limit) -> Found:
    """The search as it stands, for whatever reason it ends."""
    told = [stage for stage in seen if stage.counts]
    since = _telling(seen)
    holding = [stage for stage in since if stage.holds]
    sure = [stage for stage in holding if stage.kind == "confirm"]
    rate = max((stage.rate for stage in holding), default=None)
    low = high = None
    if holding and len(holding) < len(since):
        crossing = crossing_of(terms.claim, seen)
        # The highest that held would be told too low: near the crossing a stage fails by chance
        low, rate, high = (crossing.quantile(part) for part in (0.025, _CAUTION, 0.975))
        rate = _within(terms, rate)
    if sure:
        rate = sure[-1].rate
        low = rate if low is None else min(low, rate)
    return Found(
        rate=rate,
        low=low,
        high=high,
        confirmed=bool(sure),
        limit=why,
        text=_sentence(terms, seen, why),
        knee=knee(told),
        changed=changed(seen),
        seconds=spent_s,
    )


def _culprit(terms: Terms, seen: Sequence[Seen]) -> Limit:
    """Of the lowest rates that did not hold: most of what was over the limit."""
    fails = [stage for stage in seen if not stage.holds and stage.counts]
    over = sum(stage.over for stage in fails)
    failed = sum(stage.missed for stage in fails)
    return "failures" if terms.claim.limit_ns is None or 2 * failed > over else "latency"


def _sentence(terms: Terms, seen: Sequence[Seen], why: Limit) -> str:
    doubt = seen[-1].doubt if seen else None
    told: dict[Limit, str] = {
        "latency": f"above it {terms.claim.text} does not hold: the answers come too late",
        "failures": "above it too many requests fail or are refused",
        "generator": "the load generator was the limit, not the target: "
        + (doubt.text if doubt else ""),
        "cap": f"no higher rate was to be tried: {terms.capped}"
        if terms.capped
        else f"no higher rate was to be tried than {significant(terms.most)}/s",
        "budget": f"the budget of {duration(terms.budget_s * 10**9)} was used up",
        "stopped": "it was stopped",
        "going on": "the search goes on",
        "nothing holds": f"{terms.claim.text} does not hold at any rate",
    }
    return told[why]


def knee(seen: Sequence[Seen]) -> float | None:
    """The rate with the most throughput per mean latency (Kleinrock's power, 1979): above it a
    higher rate costs more than it brings. None where no higher one was tried: it may not."""
    powers = {
        stage.rate: stage.done_per_s / mean
        for stage in seen
        if (mean := stage.latency_ms["mean"]) and not stage.overloaded
    }
    best = max(powers, key=lambda rate: powers[rate]) if len(powers) > 2 else None
    return best if best and best < max(stage.rate for stage in seen) else None
