"""More than two sides: one table of what each costs and gives, and which are beaten by none."""

from collections.abc import Sequence

import numpy as np

from loadbench.judge.comparison import Comparison, Row
from loadbench.judge.metrics import BY_NAME, value
from loadbench.judge.overall import middle
from loadbench.judge.side import Band, Side
from loadbench.model import Note, Value

# what one gives up for the other: served late or not, how many, and at what cost
MEASURES = ("p99", "first_token_p99", "throughput", "tokens", "memory", "energy")


class Entry(Value, frozen=True, omit_defaults=False):
    """A side: its medians in the order of MEASURES (None: no number, or not measured), whether no
    other side is as good in all and better in one, and its verdicts against the first side. In the
    same order, of a percentile of a single run: where it lies at 95 %, in ms, or why that is not
    told."""

    name: str
    repeats: int
    values: tuple[float | None, ...]
    front: bool
    words: dict[str, str]
    bands: tuple[Band, ...] = ()
    no_bands: tuple[str, ...] = ()


class Matrix(Value, frozen=True, omit_defaults=False):
    """What `loadbench compare` shows of more than two."""

    measures: tuple[str, ...]
    units: tuple[str, ...]
    entries: tuple[Entry, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[Note, ...]


def matrix(sides: Sequence[Side], comparisons: Sequence[Comparison]) -> Matrix:
    """Of sides, and the comparisons of all but the first with the first."""
    measured = [name for name in MEASURES if any(_middle(side, name)[1] for side in sides)]
    rows = [[_middle(side, name)[0] for name in measured] for side in sides]
    costs = [[_cost(name, one) for name, one in zip(measured, row, strict=True)] for row in rows]
    best = front(costs)
    words: list[dict[str, str]] = [{}]
    words += [{row.metric: row.word for row in found.gated} for found in comparisons]
    entries = [
        Entry(
            side.name, len(side.snapshots), tuple(row), on, said, *_sure(measured, at, comparisons)
        )
        for at, (side, row, on, said) in enumerate(zip(sides, rows, best, words, strict=True))
    ]
    notes = dict.fromkeys(note for found in comparisons for note in found.notes)
    return Matrix(
        measures=tuple(measured),
        units=tuple(BY_NAME[name].unit for name in measured),
        entries=tuple(entries),
        comparisons=tuple(comparisons),
        notes=tuple(notes),
    )


def row_of(comparisons: Sequence[Comparison], at: int, name: str) -> tuple[Row | None, int]:
    """Where the comparisons with the first side have a metric of the side `at`, counted from 0:
    the row (None: neither has it), and which of its two sides that is."""
    rows = comparisons[max(0, at - 1)].rows if comparisons else ()
    return next((row for row in rows if row.metric == name), None), min(at, 1)


def _sure(
    names: Sequence[str], at: int, comparisons: Sequence[Comparison]
) -> tuple[tuple[Band, ...], tuple[str, ...]]:
    """The bands of a side's measures, and why there are none."""
    found = [row_of(comparisons, at, name) for name in names]
    bands = tuple(row.bands[side] if row else None for row, side in found)
    return bands, tuple(row.no_bands[side] if row else "" for row, side in found)


def front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Whether no other is at most as costly in everything and cheaper in something (Pareto)."""
    if not costs:
        return []
    each = np.array(costs, np.float64)
    return [not bool(((each <= one).all(axis=1) & (each < one).any(axis=1)).any()) for one in each]


def _middle(side: Side, name: str) -> tuple[float | None, bool]:
    """The median, and whether there is anything measured."""
    found = [value(BY_NAME[name], one["summary"]) for one in side.snapshots]
    known = [one for one in found if one is not None]
    return middle([None if one == float("inf") else one for one in known]), bool(known)


def _cost(name: str, found: float | None) -> float:
    """More is worse; what has no number is worst."""
    if found is None:
        return float("inf")
    return found if BY_NAME[name].larger_is_worse else -found
