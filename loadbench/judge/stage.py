"""A stretch of one rate, read for a search: what was over the limit, how sure that is, whether the
target was overloaded, whether the generator is to blame; and whether more of it would be a waste.

Windows in, a Seen out. Which rate comes next is for `search`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from loadbench import certainty
from loadbench.assurance import QUANTILES, Blocks, Quantity, missing
from loadbench.certainty import Ints
from loadbench.errors import SpecError
from loadbench.evidence import Evidence, gather
from loadbench.judge.bands import Bands, of_blocks, of_stream
from loadbench.model import Check, Note, Value, Window
from loadbench.overload import overloaded
from loadbench.streams import CHECKS
from loadbench.trust import grade
from loadbench.units import MS

Kind = Literal["up", "down", "re-check", "narrow", "confirm"]
BETWEEN = "; "  # two reasons
_EASED = 2  # it would hold half the limit, too
_FULL_CPU = 0.97  # of a core: the load process has no more to give
_OWN = ("generator-late", "generator-stall", "generator-stalls", "generator-full", "own-failures")


# what a snapshot may hold: with others nothing can be computed
Count = Annotated[int, Meta(ge=0, le=10**15)]
Rate = Annotated[float, Meta(gt=0, le=1e12)]


Of = Literal["", "first_token", "token_pace"]
_ONCE: dict[str, Of] = {"first_token": "first_token", "token_pace": "token_pace"}


class Claim(Value, frozen=True):
    """Fewer than `share` of the requests asked fail or take longer than `limit_ns`; without a limit
    only those that are not answered well count. `of` is what is to take no longer: "" the answer,
    or a time of tokens that each answer has one of."""

    text: str
    share: Annotated[float, Meta(gt=0, lt=1)]
    limit_ns: Count | None
    of: Of = ""

    @property
    def limit(self) -> float:
        return math.inf if self.limit_ns is None else self.limit_ns


def claim(check: Check) -> Claim:
    """What a check says of the share of requests. SpecError where it says something else."""
    text = f"{check.name} {check.text}"
    if check.limit <= 0:
        raise SpecError(f"{text!r} never holds", 'give a limit above 0, like "p99 < 100 ms"')
    if not check.above and check.name in QUANTILES:
        return Claim(text, 1 - QUANTILES[check.name], round(check.limit))
    if not check.above and check.name == "errors" and 0 < check.limit < 1:
        return Claim(text, check.limit, None)
    of, _, percentile = check.name.rpartition("_")
    if not check.above and check.name in CHECKS and of in _ONCE:
        return Claim(text, 1 - QUANTILES[percentile], round(check.limit), _ONCE[of])
    known = ", ".join(QUANTILES)
    hint = f'write it like "p99 < 100 ms" ({known}, errors, first_token_p99, token_pace_p99)'
    raise SpecError(f"{text!r} cannot be searched for", hint)


class Seen(Value, frozen=True, omit_defaults=False):
    """What a stage showed. `over` of `asked` requests were over the limit, which say as much as
    `asked` ÷ `effect` independent ones. Percentiles are of what is searched for, over all that was
    asked; null: among those not answered well. `bands_ms` is where they lie at 95 %, `no_bands` why
    some have none."""

    kind: Kind
    rate: Rate
    second: Count  # of the run, in which counting began
    seconds: Annotated[int, Meta(ge=1, le=10**9)]
    asked: Count
    over: Count
    missed: Count  # of them: not answered well
    effect: Annotated[float, Meta(ge=1, le=1e12)]
    holds: bool
    shown: bool  # that it does, or does not
    eased: bool  # it would hold with half the limit
    overloaded: bool
    done_per_s: float
    latency_ms: dict[str, float | None]
    bands_ms: Bands = {}
    no_bands: str = ""
    server: dict[str, float | None] = {}
    doubt: Note | None = None  # it says nothing of the target: the generator was the limit

    @property
    def share(self) -> float:
        return self.over / self.asked if self.asked else 1.0

    @property
    def counts(self) -> bool:
        """Whether it says anything of the target. What holds holds with the generator's delays."""
        return self.holds or self.doubt is None


class Reading(NamedTuple):
    """What is known while a stage goes on."""

    asked: int
    over: int
    effect: float  # as it looks
    shown: bool
    overloaded: bool


def read(windows: Sequence[Window], claim: Claim) -> Reading:
    """Of the whole seconds of one rate, in order."""
    blocks, over = _counted(windows, claim)
    number = int(over.sum())
    seen, most = _effects(blocks, over)
    sure = most is not None and certainty.shown(number, blocks.total, claim.share, most)
    return Reading(blocks.total, number, seen, sure, overloaded(windows) is not None)


def judged(
    kind: Kind, windows: Sequence[Window], claim: Claim, limit: Evidence | None = None
) -> Seen:
    """The stage as a whole. `limit` is the run's evidence before its first window."""
    found = read(windows, claim)
    blocks, _ = _counted(windows, claim)
    bands, whys = of_blocks(blocks)
    holds = bool(found.asked) and found.over < claim.share * found.asked and not found.overloaded
    return Seen(
        kind=kind,
        rate=windows[0].rate or 0.0,
        second=windows[0].second,
        seconds=len(windows),
        asked=found.asked,
        over=found.over,
        missed=int(blocks.missed.sum()),
        effect=float(found.effect),
        holds=holds,
        shown=bool(found.shown),
        eased=holds and _eased(blocks, claim),
        overloaded=found.overloaded,
        done_per_s=sum(window.done for window in windows) / len(windows),
        latency_ms=_latencies(blocks),
        bands_ms=bands,
        no_bands=BETWEEN.join(dict.fromkeys(whys.values())),
        server=_server(windows),
        doubt=_doubt(windows, limit or Evidence()),
    )


def _counted(windows: Sequence[Window], claim: Claim) -> tuple[Blocks, Ints]:
    """What is open at the end and older than the limit already is over it, too: of a target that
    hangs nothing else is known."""
    if claim.of:  # of what is open some has had its tokens in time
        blocks = Blocks(windows, of=Quantity(of_stream(claim.of).values, missing))
    else:
        overdue = windows[-1].overdue if claim.limit_ns is not None else 0
        blocks = Blocks(windows, missed=sum(map(missing, windows)) + overdue)
    return blocks, blocks.over(claim.limit)


def _effects(blocks: Blocks, over: Ints) -> tuple[float, float | None]:
    """How far requests depend on each other: (as it looks, for a verdict; None: not known)."""
    if known := blocks.effect(over):
        return known, known
    slow = blocks.quantile(0.9) or math.inf
    both = [over] if math.isinf(slow) else [over, blocks.over(slow)]
    guesses = [certainty.rough_effect(blocks.asked, each) for each in both]
    if None in guesses:
        return math.sqrt(max(1, blocks.total)), None  # a guess at that: it is a short stage
    seen, most = (certainty.larger([guess[at] for guess in guesses if guess]) for at in (0, 1))
    return seen or 1.0, most


def _eased(blocks: Blocks, claim: Claim) -> bool:
    if claim.limit_ns is None:
        return not blocks.missed.any()
    return bool(blocks.over(claim.limit / _EASED).sum() < claim.share * blocks.total / 4)


def _latencies(blocks: Blocks) -> dict[str, float | None]:
    found = {name: blocks.quantile(share) for name, share in QUANTILES.items()}
    found["mean"] = blocks.whole.mean
    return {
        name: None if value is None or math.isinf(value) else float(value / MS)
        for name, value in found.items()
    }


def _server(windows: Sequence[Window]) -> dict[str, float | None]:
    """Its mean batch, where it tells; and the most that its devices used, where they are ours."""
    servers = [window.server for window in windows if window.server]
    batches = sum(size.batches for found in servers for size in found.sizes.values())
    rows = sum(rows * size.batches for found in servers for rows, size in found.sizes.items())
    return {"batch": rows / batches if batches else None}


def _doubt(windows: Sequence[Window], before: Evidence) -> Note | None:
    """Why this stage is no verdict about the target; None: it is one."""
    found = gather(before, windows)
    trust, notes = grade(replace(found, percentile=0.99), running=True)
    late = trust == "invalid"
    unsent = found.unsent > 0 and not found.held
    full = found.cpu is not None and found.cpu > _FULL_CPU
    if not (late or unsent or full):
        return None
    own = [note for note in notes if note.code in (*_OWN, "unsent")]
    return own[0] if own else Note("generator-limit", "the load generator was the limit")
