"""A history as text: a chart, the changes in words, a table."""

import math
from collections.abc import Sequence

from loadbench.judge.metrics import Metric
from loadbench.report import commits
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.report.history import NAMED, History, Point, Step
from loadbench.units import growth, percent, significant

_BLOCKS = " ▁▂▃▄▅▆▇█"
_HEIGHT = 8
_LISTED = 40  # the last ones, in the table
_MARGIN = 12  # columns of the axis
_SHOWN = 5  # runs that are left out
# why the medians of a change have no ±
MEDIANS = "medians of the runs before and after have no ±: in brackets the least and the largest"


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
    for number, point in list(enumerate(found.points))[-_LISTED:]:
        said = begins.get(number, "")
        doubt = "" if point.trust == "trusted" else point.trust
        other = "other settings" if point.changed else ""
        last = "   ".join(filter(None, (said, doubt, other)))
        figure = show(point.figure, found.metric) + within(point.figure, point.band)
        rows.append((point.run, point.when, point.commit, figure, last))
    lines += ["", *(f"  {line}" for line in aligned(rows, frozenset({0, 1, 2, 4})))]
    if len(found.points) > _LISTED:
        lines.append(f"  … and {len(found.points) - _LISTED} before them")
    if found.metric.of_order:
        lines += ["", "  ± holds at 95 %; where there is none, loadbench show RUN says why"]
    return "\n".join(line.rstrip() for line in lines)


def _told(found: History) -> list[str]:
    """The changes in words, and what weakens them."""
    told = [line for step in found.steps for line in _step_told(found, step)]
    told += [MEDIANS] if found.steps else []
    if not found.steps:
        few = " (fewer than ten runs hardly show one)" if len(found.points) < 10 else ""
        told.append(f"no change that is more than chance{few}")
    places = len({point.place for point in found.points})
    if places > 1:
        told.append(f"▲ {places} targets or machines: a change may be theirs")
    told += [f"▲ {text}" for text in found.notes]
    if found.left_out:
        told.append(f"▲ left out, invalid or without this figure: {_last(found.left_out)}")
    if found.damaged:
        told.append(f"▲ left out, damaged: {_last(found.damaged)}; loadbench list tells more")
    if found.other:
        many = f"{len(found.other)} runs" if len(found.other) > 1 else "1 run"
        told += [
            f"▲ left out, of other work than {found.newest}: {many} ({found.differs})",
            f"  their own history: loadbench history --like {found.other[-1].partition('-')[0]}",
        ]
    return told


def _step_told(found: History, step: Step) -> list[str]:
    first, last = found.points[step.at], found.points[step.at - 1]
    sign, word = ("✗", "worse") if step.worse else ("✓", "better")
    told = [
        f"{sign} {word} from {_called(first)} on: {_level(step.before, step.before_in, found)} → "
        f"{_level(step.after, step.after_in, found)}{_change(step)}; last before: {_called(last)}"
        f" (chance {percent(step.p)} %)"
    ]
    if first.changed:
        more = len(first.changed) - NAMED
        rest = f" and {more} more: loadbench compare says which" if more > 0 else ""
        told.append(f"  settings changed too: {', '.join(first.changed[:NAMED])}{rest}")
    if first.commit and first.commit == last.commit:
        dirty = first.commit.endswith(commits.DIRTY)
        why = "with files changed in it: what they were is not known" if dirty else "not the code"
        told.append(f"  the same commit on both sides, {first.commit}: {why}")
    return told


def _level(figure: float, within: tuple[float, float], found: History) -> str:
    """`50.1 (49.2 to 51.0)`: a median of runs, and how far they lie apart."""
    low, high = (show(one, found.metric) for one in within)
    return f"{show(figure, found.metric)} ({low} to {high})"


def _last(runs: Sequence[str]) -> str:
    more = f"{len(runs) - _SHOWN} more, " if len(runs) > _SHOWN else ""
    return more + ", ".join(runs[-_SHOWN:])


def _called(point: Point) -> str:
    return f"{point.commit} ({point.run})" if point.commit else point.run


def _change(step: Step) -> str:
    if not step.before or math.isinf(step.before) or math.isinf(step.after):
        return ""
    return f", {growth(step.after / step.before - 1)} %"


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
