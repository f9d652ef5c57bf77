"""Runs beside each other: a run and its baseline, the repeats of a series, several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadbench import baseline, runlog
from loadbench.errors import SpecError
from loadbench.judge.checks import unjudged
from loadbench.judge.comparison import Comparison, Row, compare
from loadbench.judge.gate import change
from loadbench.judge.matrix import Matrix, matrix
from loadbench.judge.side import Side
from loadbench.model import Note, plain
from loadbench.report.certain import bands_of
from loadbench.report.comparison import HEADS, cells, differences, doubts, sentences
from loadbench.report.markup import Child, Markup, joined, tag
from loadbench.report.matrix import (
    FRONT,
    NAMED,
    matrix_differences,
    matrix_rows,
    matrix_sentences,
)
from loadbench.report.page.course import joined_grid, latency
from loadbench.report.page.figures import Curve, percentiles
from loadbench.report.page.material import Material
from loadbench.report.page.sections import (
    around,
    entries,
    figure,
    line_key,
    quiet,
    section,
    signed,
    table,
    unbounded,
)
from loadbench.report.page.timeline import timeline
from loadbench.report.page.verdict import headline, outcome, sentence
from loadbench.report.series import unjudged_repeats
from loadbench.report.sides import side
from loadbench.report.svg import Level
from loadbench.sentences import finished
from loadbench.units import percent, significant

_CHANGED = 30  # settings that are listed
_STYLES = 6  # lines that can be told apart
_FEW = 110  # columns of a small chart


def against(material: Material) -> Markup | None:
    """The run against the baseline of its scenario, if there is one; a repeat as part of its
    series."""
    whole = material.folder.absolute()
    if runlog.called(whole) != whole.name:
        whole = whole.parent
    scenario = material.summary.scenario
    try:
        folder = baseline.find(scenario, whole.parent)
        if folder is None:
            return None
        if folder.absolute() == whole:
            inside = quiet(f"This run is the baseline of {scenario}.")
        else:
            inside = compared(compare(side([folder]), _side(whole, [material])))
    except SpecError as error:
        inside = quiet(f"Not compared: {finished(error.message)}")
    return section("Against the baseline", inside, name="baseline")


def judged(folders: Sequence[Path], materials: Sequence[Material]) -> Markup:
    """Runs or series in the words of `loadbench compare`: all against the first."""
    try:
        sides = [_side(folder, materials) for folder in folders]
        found = [compare(sides[0], other) for other in sides[1:]]
    except SpecError as error:
        return quiet(f"Not compared: {finished(error.message)}")
    if len(found) == 1:
        return compared(found[0])
    whole = matrix(sides, found)
    return joined(
        _differing(matrix_differences(whole)),
        _matrix(whole) if all(one.comparable for one in found) else None,
        entries(signed("▲", "warn", note.text, _hint(note)) for note in whole.notes),
    )


def _matrix(whole: Matrix) -> Markup:
    """The table, and what its verdicts rest on: of different work none is the best."""
    heads, *rows = matrix_rows(whole)
    left = [at for at, head in enumerate(heads) if head in NAMED] + [len(heads) - 1]
    return joined(
        table(heads, rows, left=left),
        quiet(FRONT),
        entries(signed("·", "quiet", text) for text in matrix_sentences(whole)),
    )


def _hint(note: Note) -> Markup | None:
    return tag("span", f" → {note.hint}", class_="quiet") if note.hint else None


def _side(folder: Path, known: Sequence[Material]) -> Side:
    """What has been read already is not read again."""
    for one in known:
        if one.folder.absolute() == folder.absolute():
            told = {"run": one.name, **one.snapshot, "summary": plain(one.summary)}
            return Side(runlog.called(one.folder), (told,))
    return side([folder])


def _said(row: Row) -> str:
    """`p99 +7.2 % (+3.1 … +11.4): worse`: on a telephone the table's own words are far away."""
    return f"{change(row)}: {row.word}"


def compared(found: Comparison) -> Markup:
    """What differs first, then the figures, then what they rest on and what weakens them."""
    rows = [cells(row, bounds=True) for row in found.rows]
    return joined(
        tag("p", tag("b", "A "), found.a, tag("b", "  B "), found.b),
        tag("p", "; ".join(map(_said, found.gated)), class_="verdict") if found.gated else None,
        _differing(differences(found)),
        table(HEADS, rows, left=(0, HEADS.index("verdict"))) if found.comparable else None,
        entries(signed("·", "quiet", text) for text in sentences(found)),
        entries(signed("▲", "warn", text) for text in doubts(found)),
    )


def _differing(found: Sequence[str]) -> Markup:
    if not found:
        return quiet("Same scenario, settings, versions and machine.")
    more = f" and {len(found) - _CHANGED} more" if len(found) > _CHANGED else ""
    return tag("p", tag("b", "Differs: "), " · ".join(found[:_CHANGED]), more, class_="small")


def overall(facts: Mapping[str, Any]) -> Markup:
    """How a series was made, and the middle of its repeats."""
    whole, wanted = facts.get("overall"), facts.get("wanted")
    made = len(facts.get("summaries") or ())
    pause = facts.get("cool_down_s")
    many = f"{made} of {wanted}" if wanted is not None else made  # none: it is from elsewhere
    how = f"{many} repeats; engine: {facts.get('engine') or 'not told'}"
    how += f"; {pause:g} s between two" if pause else ""
    if not whole:
        return quiet(f"{how}.")
    p99 = whole["latency_ms"].get("p99")
    limit = whole.get("limit_ms")
    among = p99 is None and whole["asked"]
    shown = f"> {significant(limit)} ms" if among else significant(p99) + (" ms" if p99 else "")
    passed = sum(check["state"] == "passed" for check in whole["checks"])
    checks = f"{passed} of {len(whole['checks'])} checks passed in every repeat"
    if why := unjudged_repeats(whole):
        checks = f"no verdict: {why}"
    return joined(
        tag("p", f"Median p99 {shown}; {checks}.", class_="verdict"),
        quiet(f"{how}; the worst trust: {whole['trust']}. {_MEDIANS}"),
    )


_MEDIANS = "The median has no interval: the repeats tell how much it moves."

# ── several ──────────────────────────────────────────────────────────────────

_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("asked", "/s", ("rate", "asked")),
    ("done", "/s", ("rate", "done")),
    ("p50", "ms", ("latency_ms", "p50")),
    ("p90", "ms", ("latency_ms", "p90")),
    ("p95", "ms", ("latency_ms", "p95")),
    ("p99", "ms", ("latency_ms", "p99")),
    ("p99.9", "ms", ("latency_ms", "p99_9")),
    ("tokens", "/s", ("tokens", "per_s")),
    ("first token p50", "ms", ("tokens", "first_token_ms", "p50")),
    ("first token p99", "ms", ("tokens", "first_token_ms", "p99")),
    ("token gap p50", "ms", ("tokens", "token_gap_ms", "p50")),
    ("token gap p99", "ms", ("tokens", "token_gap_ms", "p99")),
    ("on time", "%", ("on_time",)),
    ("queue, mean", "ms", ("server", "queue_ms", "mean")),
    ("batch wait, mean", "ms", ("server", "batch_wait_ms", "mean")),
    ("compute, mean", "ms", ("server", "compute_ms", "mean")),
    ("rows per batch", "", ("server", "batch", "mean")),
    ("CPU", "%", ("machine", "cpu")),
)


def figures(materials: Sequence[Material], names: Sequence[str]) -> Markup:
    """A row for each figure, a column for each run."""
    sides = [plain(material.summary) for material in materials]
    rows: list[list[Child]] = []
    paths: list[tuple[str, ...]] = []
    for name, unit, path in _ROWS:
        values = [_at(side, path) for side in sides]
        if any(value is not None for value in values) or path[0] == "latency_ms":
            title = f"{name} {unit}".strip()
            both = zip(values, materials, strict=True)
            rows.append([title, *(_value(value, unit, path, one) for value, one in both)])
            paths.append(path)
    rows.append(["not answered well %", *(_missed(one) for one in materials)])
    if not all(one.led for one in materials):
        rows.append(["checks", *(_checks(one) for one in materials)])
    rows.append(["trust", *(one.summary.trust for one in materials)])
    whys = (_at(side, ("no_bands", *path[-2:])) for side in sides for path in paths)
    return joined(table(["", *names], rows), unbounded(whys))


def _at(tree: Any, path: Sequence[str]) -> Any:
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _value(value: Any, unit: str, path: Sequence[str], material: Material) -> Markup:
    summary = material.summary
    if value is None and path[0] == "latency_ms" and summary.asked and summary.limit_ms:
        return joined(f"> {significant(summary.limit_ms)}")
    shown = percent(value) if unit == "%" else significant(value)
    band = bands_of(summary, path[-2]).get(path[-1]) if len(path) > 1 else None
    return joined(around(shown, band))


def _missed(material: Material) -> str:
    return percent(material.summary.missed_share)


def _checks(material: Material) -> str:
    checks = material.summary.checks
    if checks and unjudged(material.summary):
        return "no verdict"
    passed = sum(check.state == "passed" for check in checks)
    sign = headline(material.summary)[0]
    return f"{sign} {passed} of {len(checks)}" if checks else "none"


def curves(materials: Sequence[Material], names: Sequence[str]) -> Markup | None:
    """The percentile curves of all runs over each other."""
    shown = [
        (one, name)
        for one, name in zip(materials, names, strict=True)
        if one.total.whole.latency.count
    ][:_STYLES]
    if not shown:
        return None
    drawn = [
        Curve(f"run{at}", one.total.whole.latency, one.summary.missed, name=name)
        for at, (one, name) in enumerate(shown)
    ]
    limits = {one.summary.limit_ms for one, _ in shown}
    limit = limits.pop() if len(limits) == 1 else None
    words = "Latency by percentile: " + "; ".join(
        f"{name} p99 {significant(one.summary.latency_ms.get('p99'))} ms" for one, name in shown
    )
    keys = [line_key(f"run{at}", name) for at, (_, name) in enumerate(shown)]
    level = Level(limit, "limit") if limit else None
    return figure("Percentiles of all that was asked", percentiles(drawn, level, words), *keys)


def courses(materials: Sequence[Material], names: Sequence[str]) -> Markup:
    """The latency of each run over time, all on one scale."""
    lines = [timeline(material.view, _FEW) for material in materials]
    known = [
        value
        for stretches in lines
        for stretch in stretches
        for value in stretch.latency
        if value is not None and value != float("inf")
    ]
    top = max(known, default=0.0) * 1.06
    drawn = [
        latency(material, stretches, name, top)
        for material, stretches, name in zip(materials, lines, names, strict=True)
        if stretches
    ]
    return joined_grid(drawn, "two")


def said(materials: Sequence[Material], names: Sequence[str]) -> Markup | None:
    """A sentence for each run."""
    return entries(
        signed(
            *headline(one.summary),
            tag("b", f"{name}: "),
            sentence(one) if one.led else f"{outcome(one.summary)}. {sentence(one)}",
        )
        for one, name in zip(materials, names, strict=True)
    )
