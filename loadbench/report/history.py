"""A metric over all snapshots of a scenario, as text: a chart, the changes, a table."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.history import changes, level
from loadbench.judge.metrics import BY_NAME, Metric, value
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.snapshots.foreign import believable
from loadbench.units import percent, significant

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HEIGHT = 8
_LISTED = 40  # the last ones, in the table
_MARGIN = 12  # columns of the axis


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


class Step(NamedTuple):
    """A change: from the runs before `at` to those from it on, until the next."""

    at: int
    before: float
    after: float
    worse: bool
    p: float


class History(NamedTuple):
    """`left_out` are runs without the figure, or that nobody may believe."""

    scenario: str
    metric: Metric
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]


def history(results: Path, scenario: str | None, name: str) -> History:
    """The history of a scenario (None: that of the last run). SpecError if there is none, or no
    such metric."""
    metric = BY_NAME.get(name) or BY_NAME.get(name.replace("_", "."))
    if metric is None:
        raise SpecError(f"there is no metric {name!r}", f"one of: {', '.join(BY_NAME)}")
    known = _snapshots(results)
    wanted = scenario or (str(known[-1].get("scenario")) if known else "")
    mine = [one for one in known if one.get("scenario") == wanted]
    if not mine:
        names = ", ".join(sorted({str(one.get("scenario")) for one in known})) or "none"
        raise SpecError(f"no finished runs of {wanted!r} in {results}", f"there are: {names}")
    points, left_out = [], []
    for one in mine:
        with believable(str(one.get("run"))):
            figure, band = value(metric, one["found"]), _band(metric, one)
        if figure is None or one["found"].get("trust") == "invalid":
            left_out.append(str(one.get("run")))
        else:
            points.append(_point(one, figure)._replace(band=band))
    return History(wanted, metric, tuple(points), _steps(points, metric), tuple(left_out))


def _band(metric: Metric, one: dict[str, Any]) -> tuple[float, float | None] | None:
    """Of a single run's percentile, if it has one."""
    if one.get("kind") == runlog.SERIES or metric.path[0] != "latency_ms":
        return None
    found = one["found"].get("bands_ms", {}).get(metric.path[1])
    if found is None:
        return None
    return float(found[0]), None if found[1] is None else float(found[1])


def _snapshots(results: Path) -> list[dict[str, Any]]:
    """Those of runs and series that came to their end; `found` is what they came to."""
    known = []
    for folder in runlog.runs(results):
        try:
            snapshot = runlog.read_snapshot(folder)
        except SpecError:
            continue  # the list says which and why
        series = snapshot.get("kind") == runlog.SERIES
        found = snapshot.get("overall" if series else "summary")
        if isinstance(found, dict) and found.get("reason") == "done":
            known.append({**snapshot, "run": folder.name, "found": found})
    return known


def _point(one: dict[str, Any], figure: float) -> Point:
    target, machine = one.get("target"), one.get("machine")
    name = str(target.get("name", "")) if isinstance(target, dict) else ""
    processor = str(machine.get("processor", "")) if isinstance(machine, dict) else ""
    return Point(
        run=str(one["run"]),
        when=str(one.get("began") or "")[:16].replace("T", " "),
        commit=str(one.get("commit") or ""),
        figure=figure,
        trust=str(one["found"].get("trust")),
        place=f"{name} on {processor}",
    )


def _steps(points: Sequence[Point], metric: Metric) -> tuple[Step, ...]:
    figures = [point.figure for point in points]
    found = changes(figures)
    edges = [0, *(change.at for change in found), len(figures)]
    steps = []
    for change, begin, end in zip(found, edges, edges[2:], strict=False):
        before, after = level(figures[begin : change.at]), level(figures[change.at : end])
        worse = (after > before) == metric.larger_is_worse
        steps.append(Step(change.at, before, after, worse, change.p))
    return tuple(steps)


def history_text(found: History, width: int) -> str:
    """The page, at most so many columns wide, without a newline at its end."""
    unit = f" {found.metric.unit}".rstrip()
    many = f"{len(found.points)} run" + ("s" if len(found.points) != 1 else "")
    lines = [f"{found.scenario}   {found.metric.name}{unit}   {many}", ""]
    if found.points:
        lines += [*_chart(found, width), ""]
    lines += [f"  {text}" for text in _told(found)]
    rows = [("run", "when", "commit", f"{found.metric.name}{unit}", "")]
    begins = {step.at: "▲ worse" if step.worse else "▼ better" for step in found.steps}
    for at, point in list(enumerate(found.points))[-_LISTED:]:
        said = begins.get(at, "")
        doubt = "" if point.trust == "trusted" else point.trust
        last = "   ".join(filter(None, (said, doubt)))
        figure = show(point.figure, found.metric) + within(point.figure, point.band)
        rows.append((point.run, point.when, point.commit, figure, last))
    lines += ["", *(f"  {line}" for line in aligned(rows, frozenset({0, 1, 2, 4})))]
    if len(found.points) > _LISTED:
        lines.append(f"  … and {len(found.points) - _LISTED} before them")
    if found.metric.path[0] == "latency_ms":
        lines += ["", "  ± holds at 95 %; where there is none, loadbench show RUN says why"]
    return "\n".join(line.rstrip() for line in lines)


def _told(found: History) -> list[str]:
    """The changes in words, and what weakens them."""
    told = []
    for step in found.steps:
        first, last = found.points[step.at], found.points[step.at - 1]
        sign, word = ("✗", "worse") if step.worse else ("✓", "better")
        told.append(
            f"{sign} {word} from {_called(first)} on: {show(step.before, found.metric)} → "
            f"{show(step.after, found.metric)}{_change(step)}; last before: {_called(last)}"
            f" (chance {percent(step.p)} %)"
        )
    if not found.steps:
        few = " (fewer than ten runs hardly show one)" if len(found.points) < 10 else ""
        told.append(f"no change that is more than chance{few}")
    places = len({point.place for point in found.points})
    if places > 1:
        told.append(f"▲ {places} targets or machines: a change may be theirs")
    if found.left_out:
        told.append(f"▲ left out, invalid or without this figure: {', '.join(found.left_out[-5:])}")
    return told


def _called(point: Point) -> str:
    return f"{point.commit} ({point.run})" if point.commit else point.run


def _change(step: Step) -> str:
    if not step.before or math.isinf(step.before) or math.isinf(step.after):
        return ""
    return f", {(step.after / step.before - 1) * 100:+.1f} %"


def show(figure: float, metric: Metric) -> str:
    """A figure of the metric; `failed` where it is among the requests not answered well."""
    if math.isinf(figure):
        return "failed"
    return percent(figure) if metric.unit == "%" else significant(figure)


def _chart(found: History, width: int) -> list[str]:
    """A column a run, the last ones if there are more than columns, from 0 up; what has no number
    reaches beyond the top. Below: where a change begins."""
    columns = max(10, width - _MARGIN)
    shown = list(enumerate(found.points))[-columns:]
    finite = [point.figure for _, point in shown if math.isfinite(point.figure)]
    top = max(finite, default=0.0) or 1.0
    eighths = [
        8 * _HEIGHT if math.isinf(point.figure) else round(point.figure / top * 8 * _HEIGHT)
        for _, point in shown
    ]
    lines = []
    for row in range(_HEIGHT, 0, -1):
        label = show(top, found.metric) if row == _HEIGHT else ""
        cells = "".join(_BLOCKS[min(8, max(0, eighth - 8 * (row - 1)))] for eighth in eighths)
        lines.append(f"{label:>{_MARGIN - 3}} {'┤' if label else '│'}{cells}")
    lines.append(f"{'0':>{_MARGIN - 3}} └{'─' * len(shown)}")
    begins = {step.at: "✗" if step.worse else "✓" for step in found.steps}
    marks = "".join(begins.get(at, " ") for at, _ in shown)
    return [*lines, f"{'':>{_MARGIN - 1}}{marks}"] if marks.strip() else lines
