"""In which order the repeats of two sides were made, and whether the machine stayed as it was.

A machine that gets warmer, or busier, moves the figures of whichever side is measured later. Made
by turns both sides have that alike; made one after the other it is part of the difference. Where
others had it to themselves during one side alone, the difference is theirs (`company`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from statistics import median
from typing import Any

from loadbench.judge import metrics
from loadbench.judge.ranks import trend
from loadbench.model import Note
from loadbench.units import significant

_WAITED, _CORES = 0.1, 0.25  # more than in the other side: then it was another machine
_DRIFT = 0.02  # by chance; of 5 repeats only those all in order have less
_WATCHED = "p50"  # what moves least by chance


def letters(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> str:
    """`AABB`, by the time each began; empty if that is not known of all."""
    marked = [(_began(one), sign) for sign, side in (("A", a), ("B", b)) for one in side]
    if any(when is None for when, _ in marked):
        return ""
    return "".join(sign for _, sign in sorted(marked, key=lambda one: (one[0] or 0.0, one[1])))


def _began(snapshot: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(str(snapshot.get("began"))).timestamp()
    except ValueError:
        return None


def notes(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Iterable[Note]:
    """What the order says against the figures, where there are several repeats."""
    found = letters(a, b)
    turns = [sign for sign, _ in groupby(found)]
    if len(found) > 2 and len(turns) == 2:
        text = f"all repeats of {turns[0]} were made before those of {turns[1]}: what the machine"
        text += " did in between is in the difference"
        yield Note("one-after-the-other", text, "make them by turns: loadbench ab A B")
    for sign, side in (("A", a), ("B", b)):
        values = [_figure(one) for one in sorted(side, key=lambda one: _began(one) or 0.0)]
        if trend(values) < _DRIFT:
            first, last = significant(values[0]), significant(values[-1])
            text = f"the {_WATCHED} of {sign} moved with time, from {first} to {last} ms"
            yield Note("drift", text, "the machine did not stay as it was: make sides by turns")


def company(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> str:
    """Why the machine was not the same for both sides: during one of them other programs had so
    much more of it that what was measured had to wait for a core. Empty where it was, or where
    that is not known. What a side itself uses more of is its own doing."""
    (waited_a, others_a), (waited_b, others_b) = _shared(a), _shared(b)
    if None in (waited_a, waited_b, others_a, others_b):
        return ""
    waits, cores = waited_b - waited_a, others_b - others_a  # type: ignore[operator]
    if waits > _WAITED and cores > _CORES:
        more, less, sign, other = others_b, others_a, "B", "A"
    elif waits < -_WAITED and cores < -_CORES:
        more, less, sign, other = others_a, others_b, "A", "B"
    else:
        return ""
    told = f"{significant(more, 2)} cores, {significant(max(0.0, less or 0.0), 2)} during {other}"
    return f"other programs had the machine during {sign} ({told})"


def _shared(side: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """(seconds a second that a run waited for a core, cores that others used): medians."""
    found = [_sharing(one) for one in side]
    waited, others = ([pair[at] for pair in found] for at in (0, 1))
    return (
        None if None in waited else median(waited),  # type: ignore[type-var]
        None if None in others else median(others),  # type: ignore[type-var]
    )


def _sharing(snapshot: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The same of a run; None where it was not measured."""
    processes = (metrics.at(snapshot, ("summary", "machine", "processes")) or {}).values()
    waits = [one.get("waited") for one in processes]
    used = [one.get("cpu") for one in processes]
    cpu = metrics.at(snapshot, ("summary", "machine", "cpu"))
    cores = metrics.at(snapshot, ("machine", "cores"))
    known = waits and None not in (*waits, *used, cpu, cores)
    return (sum(waits), cpu * cores - sum(used)) if known else (None, None)


def _figure(snapshot: Mapping[str, Any]) -> float:
    found = metrics.value(metrics.BY_NAME[_WATCHED], snapshot["summary"])
    return math.inf if found is None else found
