"""A metric over all snapshots of a scenario, and where it changed.

The runs that did one kind of work stand in the order of their commits.
"""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge import differences
from loadbench.judge.differences import Difference
from loadbench.judge.history import changes, level
from loadbench.judge.metrics import BY_NAME, Metric, at, band, value, why_no_band
from loadbench.judge.overall import MEDIAN
from loadbench.report import commits
from loadbench.report.sides import snapshots
from loadbench.snapshots import figures
from loadbench.snapshots.foreign import believable
from loadbench.units import BEYOND

NAMED = 3  # differences
_LONGEST = 40  # characters of a setting


class Point(NamedTuple):
    """A run in the history; `figure` is infinite where it is among the failed."""

    run: str
    when: str
    commit: str
    figure: float
    trust: str
    place: str  # target and machine: what must be the same all along
    # where a percentile of a single run lies at 95 %, in ms; None also of a series' median
    band: tuple[float, float | None] | None = None
    no_band: str = ""  # why a percentile has none
    changed: tuple[str, ...] = ()  # settings that are not those of the point before: `key a → b`


class Step(NamedTuple):
    """A change: from the runs before `at` to those from it on, until the next."""

    at: int
    before: float
    after: float
    worse: bool
    p: float
    # the smallest and the largest of the runs that each is the median of
    before_in: tuple[float, float]
    after_in: tuple[float, float]


class History(NamedTuple):
    """`left_out` are runs without the figure, or that nobody may believe, `damaged` those that
    cannot be read, of whatever scenario they were; `other` did other work than `newest`, in what is
    said by `differs`. `notes` say what else is to be known of the points."""

    scenario: str
    metric: Metric
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    differs: str = ""
    newest: str = ""
    notes: tuple[str, ...] = ()


class _Made(NamedTuple):
    """A point with the snapshot that it was made of."""

    point: Point
    snapshot: dict[str, Any]


def history(results: Path, scenario: str | None, name: str, like: str | None = None) -> History:
    """The history of a scenario (None: that of `like`, else of the last run): of the runs that did
    the same work as the run `like`, else as the last. SpecError if there is none, or no such
    metric."""
    metric = BY_NAME.get(name) or BY_NAME.get(name.replace("_", "."))
    if metric is None:
        raise SpecError(f"there is no metric {name!r}", f"one of: {', '.join(BY_NAME)}")
    known, damaged = _snapshots(results)
    folder = runlog.find(like, results).name if like else None
    ours = [one for one in known if folder in (None, one["run"])]
    if folder and not ours:
        raise SpecError(f"{folder} is no finished run in {results}", "loadbench list")
    wanted = scenario or (str(ours[-1].get("scenario")) if ours else "")
    mine = [one for one in known if one.get("scenario") == wanted]
    if not known:
        raise SpecError(f"no finished runs in {results}", "loadbench list tells what is there")
    if not mine:
        names = ", ".join(sorted({str(one.get("scenario")) for one in known})) or "none"
        raise SpecError(f"no finished runs of {wanted!r} in {results}", f"there are: {names}")
    made, left_out = _made(mine, metric, damaged, results)
    if left_out and not made:
        raise _nothing(wanted, metric, mine)
    if folder and all(one.point.run != folder for one in made):
        raise SpecError(f"{folder} is no run of {wanted!r} with a {metric.name}", "loadbench list")
    made, other, differs = _of_one_kind(made, folder)
    newest = folder or (made[-1].point.run if made else "")  # before they are put in order
    made, notes = _in_order(made)
    points = _with_changes(made)
    return History(
        wanted, metric, points, _steps(points, metric), left_out, tuple(sorted(damaged)), other,
        differs, newest, (*notes, *_capacities(made)),
    )  # fmt: skip


def _nothing(wanted: str, metric: Metric, mine: Sequence[dict[str, Any]]) -> SpecError:
    """Of runs that are all left out."""
    if all(one["summary"].get("trust") == "invalid" for one in mine):
        text = f"none of the finished runs of {wanted!r} can be trusted"
        return SpecError(text, "loadbench show RUN says why")
    text = f"none of the finished runs of {wanted!r} has {metric.name}"
    return SpecError(text, "loadbench show RUN --json has what was measured")


def _made(
    mine: Sequence[dict[str, Any]], metric: Metric, damaged: list[str], results: Path
) -> tuple[list[_Made], tuple[str, ...]]:
    """The points, and the runs that are left out; a damaged one is added to those that are."""
    made, left_out = [], []
    for one in mine:
        try:
            with believable(one["run"]):
                figure = _figure(metric, one, results)
                found, why = _band(metric, one), _why(metric, one)
                one["spec"]["load"].get("phases")  # what no work can be told of is no run
        except SpecError:
            damaged.append(one["run"])
            continue
        if figure is not None and math.isfinite(figure) and abs(figure) > BEYOND:
            damaged.append(one["run"])
        elif figure is None or one["summary"].get("trust") == "invalid":
            left_out.append(one["run"])
        else:
            made.append(_Made(_point(one, figure)._replace(band=found, no_band=why), one))
    return made, tuple(left_out)


def _figure(metric: Metric, one: dict[str, Any], results: Path) -> float | None:
    """The metric of a run, or of a series: what its own medians do not hold is in its repeats."""
    found = value(metric, one["summary"])
    if found is not None or one.get("kind") != runlog.SERIES:
        return found
    repeats = (made["summary"] for made in snapshots(results / one["run"]) if made["summary"])
    known = [each for made in repeats if (each := value(metric, made)) is not None]
    return median(known) if known else None


def _of_one_kind(made: list[_Made], like: str | None) -> tuple[list[_Made], tuple[str, ...], str]:
    """Those that did the same work as the run `like`, else as the last; the names of the others,
    and in what the last of them differs."""
    first = next((one for one in made if one.point.run == like), made[-1] if made else None)
    if first is None:
        return [], (), ""
    same, other, differs = [], [], ""
    for one in made:
        if found := _other_work(one.snapshot, first.snapshot):
            other.append(one.point.run)
            differs = _words(found)
        else:
            same.append(one)
    return same, tuple(other), differs


def _other_work(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    """Rates that are the same shares of a capacity, which each run measures anew, are one kind of
    work here, though their figures are not held against each other."""
    found = differences.work(a, b)
    shares = [at(one, ("spec", "load", "phases")) for one in (a, b)]
    if _calibrated(a) and _calibrated(b) and shares[0] == shares[1]:
        return [one for one in found if not one.key.startswith("phases")]
    return found


def _calibrated(snapshot: dict[str, Any]) -> bool:
    return at(snapshot, ("spec", "load", "calibrate")) is not None


def _capacities(made: Sequence[_Made]) -> Iterable[str]:
    known = {str(one.snapshot.get("phases")) for one in made}
    if len(known) > 1:
        yield "rates are shares of a capacity that each run measured anew: no two loads are alike"


def _in_order(made: list[_Made]) -> tuple[list[_Made], list[str]]:
    """By the places of their commits, those of one commit as they were measured: after a bisect a
    good commit was measured last, and is none of the last. Where git does not know them, all stay
    as they were measured, and a note says so."""
    known = [one.point.commit for one in made]
    if len(set(known)) < 2:
        return made, []
    if order := commits.places(known):
        return sorted(made, key=lambda one: order[one.point.commit]), []
    told = "git does not know all of their commits here: the runs stand as they were measured"
    return made, [told]


def _with_changes(made: Sequence[_Made]) -> tuple[Point, ...]:
    """The points, each with the settings that the one before did not have; commits stand by
    themselves."""
    points = [one.point for one in made[:1]]
    for before, one in itertools.pairwise(made):
        found = differences.settings(before.snapshot, one.snapshot)
        told = [_of_setting(each) for each in found if each.key != "commit"]
        points.append(one.point._replace(changed=tuple(told)))
    return tuple(points)


def _of_setting(found: Difference) -> str:
    return f"{found.key[:_LONGEST]} {_short(found.a)} → {_short(found.b)}"


def _words(found: Sequence[Difference]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(map(_of_setting, found[:NAMED])) + more


def _short(value: object) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _band(metric: Metric, one: dict[str, Any]) -> tuple[float, float | None] | None:
    """Of a single run's percentile, if it has one."""
    found = None if one.get("kind") == runlog.SERIES else band(metric, one["summary"])
    if found is None:
        return None
    return float(found[0]), None if found[1] is None else float(found[1])


def _why(metric: Metric, one: dict[str, Any]) -> str:
    """Why a percentile has no band; "" where it has one, and of what is no percentile."""
    if one.get("kind") == runlog.SERIES and metric.of_order:
        return MEDIAN
    return why_no_band(metric, one["summary"])


def _snapshots(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Those of runs and series that came to their end, with what they came to as their `summary`;
    and the names of those that are damaged."""
    known, damaged = [], []
    for folder in runlog.runs(results):
        try:
            snapshot = runlog.read_snapshot(folder)
            figures.check(snapshot, folder.name)
        except SpecError:
            if (folder / runlog.SNAPSHOT).exists():  # without one it has not begun
                damaged.append(folder.name)
            continue
        series = snapshot.get("kind") == runlog.SERIES
        found = snapshot.get("overall" if series else "summary")
        if isinstance(found, dict) and found.get("reason") == "done":
            known.append({**snapshot, "run": folder.name, "summary": found})
    return known, damaged


def _point(one: dict[str, Any], figure: float) -> Point:
    target, machine = one.get("target"), one.get("machine")
    name = str(target.get("name", "")) if isinstance(target, dict) else ""
    processor = str(machine.get("processor", "")) if isinstance(machine, dict) else ""
    return Point(
        run=str(one["run"]),
        when=str(one.get("began") or "")[:16].replace("T", " "),
        commit=str(one.get("commit") or ""),
        figure=figure,
        trust=str(one["summary"].get("trust")),
        place=f"{name} on {processor}",
    )


def _steps(points: Sequence[Point], metric: Metric) -> tuple[Step, ...]:
    figures = [point.figure for point in points]
    found = changes(figures)
    edges = [0, *(change.at for change in found), len(figures)]
    steps = []
    for change, begin, end in zip(found, edges, edges[2:], strict=False):
        left, right = figures[begin : change.at], figures[change.at : end]
        before, after = level(left), level(right)
        worse = (after > before) == metric.larger_is_worse
        within = [(min(part), max(part)) for part in (left, right)]
        steps.append(Step(change.at, before, after, worse, change.p, *within))
    return tuple(steps)
