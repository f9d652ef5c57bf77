"""A session of two targets beside each other (`loadbench ab`): what its blocks came to.

Snapshot and windows in, `Session` out; the same for one that goes on, was stopped or was killed.
Reading the folder is `report.ab`'s, making it `experiments.ab`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from loadbench.judge.blocks import (
    METRICS,
    SIDES,
    Block,
    Layout,
    blocks,
    called,
    fraction,
    idle_cpu,
    pairs,
)
from loadbench.judge.paired import SURE, Paired, judge, limits
from loadbench.model import Note, Window
from loadbench.streams import CHECKS
from loadbench.units import percent
from loadbench.value import Value, decode, encode

SHOWN = ("mean", "p50", "p95", "p99")
SHOWN_TOO = ("first_token_p50", "first_token_p99", "token_pace_p50", "token_gap_p99")  # of tokens
# why no percentile here has a ±
BLOCKS = "a and b are medians of the blocks, which tell how much they move: each pair's values"
_BUSY = 0.05  # of a core: so much an engine may use while the other is measured
_FEW = 10  # requests that a block must have beyond the percentile


class Answers(Value, frozen=True, omit_defaults=False):
    """The answers of both to the same requests, sent at the same time. `changed` of `rows` have
    another largest value, or are another text; of plain HTTP, a row is a body. Differences are
    None where shapes differ, or a value is no number at one of them only; `relative` is of the
    largest value of the output. `first` tells of the first that differ in shape, row or success."""

    asked: int
    compared: int
    failed: tuple[int, int]  # of A and of B: no good answer
    dropped: int  # never sent: both were too far behind
    rows: int
    changed: int
    shapes: int  # answers that differ in shape
    absolute: float | None
    relative: float | None
    first: str = ""

    @property
    def broken(self) -> bool:
        """B does not answer where A does, or not in A's form."""
        return self.shapes > 0 or self.failed[1] > self.failed[0]


class Session(Value, frozen=True, omit_defaults=False):
    """What `loadbench ab` shows. `verdict`: false if the numbers cannot be trusted, or were altered
    since. `idle_cpu` is what each engine used of a core while the other had its turn; `failed` the
    share of each side's requests that were not answered well, `fails_more` that B's surely is the
    larger, `no_bands` why percentiles have no interval."""

    run: str
    names: tuple[str, str]
    state: str
    text: str
    layout: Layout
    pairs: int
    rows: tuple[Paired, ...]
    trust: dict[str, str]
    failed: dict[str, float | None]
    idle_cpu: dict[str, float | None]
    answers: Answers | None
    verdict: bool
    notes: tuple[Note, ...]
    no_bands: str = BLOCKS
    fails_more: bool = False

    @property
    def gated(self) -> tuple[Paired, ...]:
        return tuple(row for row in self.rows if row.word)


class Terms(Value, frozen=True):
    """What is asked of a session: the metrics that get a verdict, and the ratio − 1 that does not
    matter."""

    metrics: Annotated[tuple[str, ...], Meta(max_length=len(METRICS))] = ("p50",)
    margin: Annotated[float, Meta(gt=0, lt=1)] = 0.02


class Seen(NamedTuple):
    """One side as far as it went: its windows, its summary (as JSON has it) and what its target
    takes, if they are known."""

    windows: Sequence[Window]
    summary: Mapping[str, Any] | None = None
    inputs: Any = None


def rows_of(plan: Layout, terms: Terms, a: Iterable[Window], b: Iterable[Window]) -> list[Paired]:
    """The metrics over the pairs that are whole, those with a verdict first."""
    left, right = list(blocks(a, plan, "a")), list(blocks(b, plan, "b"))
    streams = any(block.stream for block in (*left, *right))
    names = dict.fromkeys((*terms.metrics, *SHOWN, *(SHOWN_TOO if streams else ())))
    return [_row(name, left, right, plan, terms) for name in names]


def failing(plan: Layout, a: Iterable[Window], b: Iterable[Window]) -> list[tuple[float, float]]:
    """Of each pair that is whole the shares of A and of B that were not answered well."""
    both = zip(blocks(a, plan, "a"), blocks(b, plan, "b"), strict=False)
    return [(_missed(one), _missed(other)) for one, other in both]


def _missed(block: Block) -> float:
    return block.missed / max(1, block.missed + block.latency.count)


def fails_more(shares: Sequence[tuple[float, float]]) -> bool:
    """Whether B surely fails more often, by the signs of the pairs in which one does: a few in a
    hundred move no median, and B would pass with them. For one look, at the end."""
    more, less = sum(b > a for a, b in shares), sum(a > b for a, b in shares)
    chance = sum(comb(more + less, k) for k in range(more, more + less + 1))
    return more > less and chance <= SURE / 2 * 2 ** (more + less)


def _row(
    name: str, left: Sequence[Block], right: Sequence[Block], plan: Layout, terms: Terms
) -> Paired:
    allowed = limits(plan.pairs, len(terms.metrics))
    found = pairs(left, right, name)
    return judge(name, found, terms.margin, allowed, gated=name in terms.metrics)


def session(snapshot: Mapping[str, Any], a: Seen, b: Seen) -> Session:
    """Everything about a session. Raises KeyError, TypeError or msgspec's ValidationError for a
    snapshot that is none."""
    plan = decode(Layout, encode(snapshot["layout"]))
    terms = decode(Terms, encode(snapshot["terms"]))
    if not terms.metrics or not set(terms.metrics) <= set(METRICS):
        raise ValueError(f"metrics: {terms.metrics}")
    answers = snapshot.get("answers")
    rows = rows_of(plan, terms, a.windows, b.windows)
    seen = {"a": a, "b": b}
    trust = {side: str((seen[side].summary or {}).get("trust", "unknown")) for side in SIDES}
    sure = "invalid" not in trust.values()
    if not sure:
        rows = [replace(row, word="inconclusive" if row.word else "") for row in rows]
    idle = {side: idle_cpu(seen[side].windows, plan, side) for side in SIDES}
    shares = failing(plan, a.windows, b.windows)
    return Session(
        run=str(snapshot["run"]),
        names=(str(snapshot["sides"]["a"]["name"]), str(snapshot["sides"]["b"]["name"])),
        state=str(snapshot["state"]),
        text=str(snapshot.get("text", "")),
        layout=plan,
        pairs=max(row.n for row in rows),
        rows=tuple(rows),
        trust=trust,
        failed={side: _failed(seen[side]) for side in SIDES},
        idle_cpu=idle,
        answers=decode(Answers, encode(answers)) if answers else None,
        verdict=sure,
        notes=(
            *_other_work(a, b),
            *_failing(shares),
            *_notes(snapshot.get("run", "RUN"), plan, rows, trust, idle),
        ),
        fails_more=fails_more(shares),
    )


def _failing(shares: Sequence[tuple[float, float]]) -> Iterable[Note]:
    if fails_more(shares):
        pairs = sum(b > a for a, b in shares)
        text = f"B surely fails more often than A: it does in {pairs} of {len(shares)} pairs"
        yield Note("fails-more", text, "its latencies are not all: --gate takes it for worse")


def _other_work(a: Seen, b: Seen) -> Iterable[Note]:
    if a.inputs is not None and b.inputs is not None and a.inputs != b.inputs:
        text = "A and B take different inputs, so they were sent different requests"
        yield Note("different-work", text, "compare targets that take the same")


def _failed(side: Seen) -> float | None:
    asked = (side.summary or {}).get("asked")
    return 1 - side.summary["done"] / asked if side.summary and asked else None


def _notes(
    run: str,
    plan: Layout,
    rows: Sequence[Paired],
    trust: Mapping[str, str],
    idle: Mapping[str, float | None],
) -> Iterable[Note]:
    for side in SIDES:
        name = side.upper()
        if trust[side] in ("doubtful", "invalid"):
            text = f"the measuring of {name} is {trust[side]}"
            yield Note("trust", text, f"loadbench show {run}/{side} says why")
        share = idle[side]
        if share is not None and share > _BUSY:
            text = (
                f"the engine of {name} used {percent(share)} % of a core while the other was "
                "measured"
            )
            yield Note("idle-busy", text, "its own work slows the other: find out what it does")
    held = plan.rate * (plan.block_s - plan.settle_s)
    for row in rows:
        beyond = held * (1 - fraction(row.metric))
        if row.word and not row.n and row.metric in CHECKS:
            text = f"{row.metric}: answers here do not come token by token"
            yield Note("no-tokens", text, "judge another metric: --metric p50")
        elif row.word and beyond < _FEW:
            text = f"a block holds {held:.0f} requests: {called(row.metric)} is one of its largest"
            text += " values"
            yield Note("few-requests", text, "give --block more time, and --budget with it")
