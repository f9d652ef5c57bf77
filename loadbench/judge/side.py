"""One side of a comparison, a run or several repeats of it: which of them count, what their figures
are, and what weakens them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.errors import SpecError
from loadbench.judge import differences, metrics
from loadbench.judge.metrics import Metric
from loadbench.judge.overall import MEDIAN, middle
from loadbench.machine import fullest
from loadbench.model import Note, Value

Snapshot = Mapping[str, Any]
Band = tuple[float, float | None] | None
READS_LOG = "loadbench show RUN reads the log"
LOST = "repeats-failed"
_ENDED = ("done", None)
_UNTOLD = "its summary, of an earlier release, does not tell"  # why a percentile has no band


class Side(Value, frozen=True):
    """What stands on one side: its name, and the snapshots (run.json with a summary) of its
    repeats in the order they were made."""

    name: str
    snapshots: tuple[dict[str, Any], ...]

    @property
    def capacity(self) -> float | None:
        """What rates in % were of there: held against it, a run is made at the same. None: not
        known."""
        found = self.snapshots[0].get("capacity")
        fine = isinstance(found, float) and 0 < found < math.inf
        return found if fine else None


def whole(side: Side) -> Side:
    """Only the repeats that came to their end, if there are such. Raises SpecError."""
    if not side.snapshots:
        raise SpecError(f"{side.name} has no repeats", "loadbench list")
    for one in side.snapshots:
        name = one.get("run") or side.name
        if not isinstance(metrics.at(one, ("spec", "load")), Mapping):
            text = f"{name}: run.json is damaged: it does not say what was asked (spec.load)"
            raise SpecError(text, READS_LOG)
        if not one.get("summary"):
            raise SpecError(
                f"{name} has no summary: it was not finished",
                f"loadbench show {name} reads what there is",
            )
        if found := differences.work(side.snapshots[0], one):
            raise SpecError(
                f"the repeats of {side.name} did different work: {found[0].key}",
                "a side is one scenario against one model, run several times",
            )
    ended = tuple(one for one in side.snapshots if one["summary"].get("reason") in _ENDED)
    return Side(side.name, ended or side.snapshots)


def left_out(side: Side) -> Iterable[Note]:
    """Repeats that did not come to their end, beside others that did. One that failed may have
    done so by what is compared: then the others are no fair picture of the side."""
    reasons = Counter(one["summary"].get("reason") for one in side.snapshots)
    if sum(reasons[how] for how in _ENDED) in (0, len(side.snapshots)):
        return
    for how in sorted(set(reasons) - {*_ENDED}):
        text = f"{reasons[how]} of {len(side.snapshots)} repeats of {side.name} {how}"
        yield Note(LOST if how == "failed" else "incomplete", text, "left out of the comparison")


def values(metric: Metric, side: Side) -> list[float | None]:
    """Of all repeats that have one; None: larger than any number."""
    found = [metrics.value(metric, one["summary"]) for one in side.snapshots]
    return [None if math.isinf(one) else one for one in found if one is not None]


def beyond(metric: Metric, side: Side) -> float | None:
    """The limit (ms) that the median of a latency lies above; None: it has a number."""
    found = values(metric, side) if metric.path[0] == "latency_ms" else []
    among = bool(found) and middle(found) is None
    return side.snapshots[0]["summary"].get("limit_ms") if among else None


def band(metric: Metric, side: Side) -> Band:
    """Of a single run; None of one that has none, and of what is no percentile."""
    return None if len(side.snapshots) > 1 else metrics.band(metric, side.snapshots[0]["summary"])


def no_band(metric: Metric, side: Side) -> str:
    """Why a percentile of a side has no band; "" of one that has, and where there is none."""
    if not metric.of_order or not values(metric, side) or band(metric, side) is not None:
        return ""
    if len(side.snapshots) > 1:
        return MEDIAN
    return metrics.why_no_band(metric, side.snapshots[0]["summary"]) or _UNTOLD


def unbounded(side: Side) -> Iterable[Note]:
    """Why percentiles of a single run have no band."""
    if len(side.snapshots) > 1:
        return
    summary = side.snapshots[0]["summary"]
    known = (one for one in metrics.METRICS if metrics.value(one, summary) is not None)
    whys = dict.fromkeys(metrics.why_no_band(metric, summary) for metric in known)
    if told := "; ".join(filter(None, whys)):
        some = "some of " if summary.get("bands_ms") else ""
        yield Note("no-bands", f"no ± of {some}{side.name}: {told}")


def cards(side: Side) -> Iterable[Note]:
    """Which of several cards its figures are of."""
    found = [metrics.serving(one["summary"]) for one in side.snapshots]
    if all(len(serving) < 2 for serving in found):
        return
    titles = {card.title for card in map(fullest, found) if card}
    full = f": GPU {', '.join(sorted(titles))}" if titles else ""
    text = f"several cards may serve {side.name}: its memory is of the fullest{full}"
    yield Note("several-cards", f"{text}; its energy is of all of them")


def doubts(side: Side) -> Iterable[Note]:
    """What weakens all of its figures."""
    grades: dict[str, list[str]] = {}
    for one in side.snapshots:
        grades.setdefault(str(one["summary"].get("trust")), []).append(str(one.get("run", "?")))
    for grade in sorted(set(grades) - {"trusted"}):
        runs = grades[grade]
        which = runs[0] if len(side.snapshots) == 1 else f"{len(runs)} of {side.name}'s repeats"
        verb = "is" if len(runs) == 1 else "are"
        yield Note("trust", f"{which} {verb} {grade}", f"loadbench show {runs[0]} says why")
    if any(one["summary"].get("reason") not in _ENDED for one in side.snapshots):
        yield Note("incomplete", f"{side.name} did not run to its end", "")
    mixed = {
        found.key
        for one in side.snapshots[1:]
        for found in differences.settings(side.snapshots[0], one)
    }
    if mixed:
        text = f"the repeats of {side.name} were not made alike: {', '.join(sorted(mixed))}"
        yield Note("mixed", text, "repeat one setting")
