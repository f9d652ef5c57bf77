"""A report: one HTML file about one run, a series of repeats, or several runs beside each other.

It fetches nothing and runs nothing (its own policy forbids both), so it can be mailed, kept beside
a build, and opened in ten years. What the parts show is in `page`; this puts them in their order.
"""

from collections.abc import Sequence
from pathlib import Path

from loadbench import __version__, runlog
from loadbench.errors import RunError, SpecError
from loadbench.report.ab import read_session, session_text
from loadbench.report.find import find_text, results
from loadbench.report.markup import Child, Markup, tag
from loadbench.report.page import (
    again,
    beside,
    course,
    engine,
    spread,
    tables,
    tokens,
    verdict,
)
from loadbench.report.page.material import Material, read
from loadbench.report.page.sections import quiet, section
from loadbench.report.page.style import sheet
from loadbench.report.page.timeline import timeline
from loadbench.report.series import series_facts
from loadbench.report.sides import apart
from loadbench.snapshots import files

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MOST = 12  # runs beside each other


def report(folders: Sequence[Path]) -> str:
    """The whole file. Raises SpecError where nothing was recorded, a log is damaged, or the runs
    are too many to be read beside each other."""
    if len(folders) > _MOST:
        raise SpecError(f"{len(folders)} runs are too many for one page", f"choose {_MOST} at most")
    try:
        return _several(folders) if len(folders) > 1 else _one(folders[0])
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # from elsewhere, maybe
        raise SpecError(
            f"{', '.join(map(str, folders))}: its figures cannot be: {error!r}",
            "was it damaged? if not, please report it: it is an error of loadbench",
        ) from error


def _one(folder: Path) -> str:
    if runlog.is_ab(folder):
        return _turns(folder)
    if runlog.is_find(folder):
        return _search(folder)
    return _series(folder) if runlog.is_series(folder) else _single(read(folder))


def write(path: Path, text: str) -> None:
    """As a whole, so that nobody ever opens half of it. Raises RunError."""
    try:
        files.put(path, text.encode())
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}", "choose another file with -o"
        ) from error


def _single(material: Material) -> str:
    return document(material.name, verdict.head(material), *_parts(material))


def _parts(material: Material) -> list[Child]:
    stretches = timeline(material.view)
    return [
        verdict.verdict(material),
        verdict.numbers(material),
        verdict.notes(material),
        course.course(material, stretches),
        course.machine(material, stretches) if stretches else None,
        spread.shape(material),
        tokens.tokens(material),
        spread.where(material),
        engine.engine(material),
        engine.steps(material),
        tables.requests(material),
        tables.alerts(material),
        beside.against(material),
        again.again(material),
    ]


def document(title: str, *inside: Child) -> str:
    """The file around what is shown."""
    made = f"Made by loadbench {__version__}. This page loads nothing and runs no scripts."
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title} · loadbench"),
        tag("style", Markup(sheet())),
    )
    body = tag("body", tag("main", *inside, tag("footer", made)))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _several(folders: Sequence[Path]) -> str:
    apart(*([folder] for folder in folders))
    materials = [_chosen(folder) for folder in folders]
    names = _names(materials)
    scenarios = dict.fromkeys(one.summary.scenario for one in materials)
    title = f"{len(materials)} runs beside each other"
    head = verdict.titled(", ".join(scenarios), title, [one.name for one in materials])
    return document(
        " · ".join(names),
        head,
        section("Verdicts", beside.said(materials, names), name="verdict"),
        section("Compared", beside.judged(folders, materials), name="comparison"),
        section("Figures", beside.figures(materials, names), name="figures"),
        section(
            "Latency",
            beside.curves(materials, names),
            beside.courses(materials, names),
            quiet("Over time all have the same scale."),
            name="latency",
        ),
        *(verdict.notes(one, f"{name}:") for one, name in zip(materials, names, strict=True)),
        *(again.again(one, f"{name}:") for one, name in zip(materials, names, strict=True)),
    )


def _chosen(folder: Path) -> Material:
    """The run itself; of a series the repeat whose p99 is the middle one."""
    if not runlog.is_series(folder):
        return read(runlog.single(folder))
    return _middle(_repeats(folder))


def _repeats(folder: Path) -> list[Material]:
    found = [read(path) for path in runlog.repeats(folder) if (path / runlog.LOG).is_file()]
    if not found:
        raise SpecError(f"{folder}: nothing was recorded in any of its repeats")
    return found


def _names(materials: Sequence[Material]) -> list[str]:
    """What tells them apart: their numbers, or where they lie."""
    numbers = [one.number for one in materials]
    names = [runlog.called(one.folder) for one in materials]
    if len(set(numbers)) == len(numbers):
        return numbers
    return names if len(set(names)) == len(names) else [str(one.folder) for one in materials]


def _series(folder: Path) -> str:
    """Each repeat, then the middle one whole."""
    facts = series_facts(folder)
    materials = _repeats(folder)
    names = [f"repeat {one.folder.name}" for one in materials]
    middle = _middle(materials)
    whole = beside.overall(facts)
    snapshot, summary = middle.snapshot, middle.summary
    title = str(snapshot.get("title") or summary.scenario)
    state = str(facts.get("state"))
    told = [summary.target, summary.device, f"{len(materials)} repeats", state]
    told += [str(facts["text"])] if facts["text"] else []
    return document(
        str(facts.get("run")),
        verdict.titled(f"series {runlog.called(folder)}", title, told),
        section("Verdicts", whole, beside.said(materials, names), name="verdict"),
        section("Each repeat", beside.figures(materials, names), name="repeats"),
        section(
            "Latency of each repeat",
            beside.curves(materials, names),
            beside.courses(materials, names),
            quiet("Over time all have the same scale."),
        ),
        tag("h1", f"Repeat {middle.folder.name}, whose p99 is the middle one", class_="break"),
        quiet(f"Any other: loadbench report {folder.name.partition('-')[0]}/N"),
        *_parts(middle),
    )


def _turns(folder: Path) -> str:
    """Two targets measured in turns: what `loadbench ab` says of them, then each side."""
    sides = [path for path in (folder / "a", folder / "b") if (path / runlog.LOG).is_file()]
    materials = [read(path) for path in sides]
    names = [one.folder.name.upper() for one in materials]
    told = [one.summary.target for one in materials]
    return document(
        folder.name,
        verdict.titled(f"run {runlog.called(folder)}", "Two targets in turns", told),
        section(
            "Compared",
            tag("p", read_session(folder).text or "no verdict yet", class_="verdict"),
            tag("pre", session_text(folder), tabindex=0, class_="page"),
            name="comparison",
        ),
        section("Figures", beside.figures(materials, names), name="figures") if names else None,
        section("Latency", beside.curves(materials, names), beside.courses(materials, names)),
        *(verdict.notes(one, f"{name}:") for one, name in zip(materials, names, strict=True)),
        *(again.again(one, f"{name}:") for one, name in zip(materials, names, strict=True)),
    )


def _search(folder: Path) -> str:
    """What `loadbench find` says of it; then the run that was led, or those of all settings beside
    each other, if they are not too many."""
    materials = _repeats(folder)
    parts: Sequence[Child] = ()
    if len(materials) == 1:
        parts = _parts(materials[0])
    elif len(materials) <= _MOST:
        names = [one.folder.name for one in materials]
        parts = [
            section("Figures", beside.figures(materials, names), name="figures"),
            *(again.again(one, f"{name}:") for one, name in zip(materials, names, strict=True)),
        ]
    told = list(dict.fromkeys(one.summary.target for one in materials))
    return document(
        folder.name,
        verdict.titled(f"run {runlog.called(folder)}", "The highest rate that holds", told),
        section(
            "Found",
            *(tag("p", text, class_="verdict") for text in results(folder)),
            tag("pre", find_text(folder), tabindex=0, class_="page"),
            name="found",
        ),
        *parts,
    )


def _middle(materials: Sequence[Material]) -> Material:
    """That of the middle p99; one among the failed is the largest."""

    def p99(material: Material) -> float:
        value = material.summary.latency_ms.get("p99")
        return float("inf") if value is None else value

    return sorted(materials, key=p99)[(len(materials) - 1) // 2]
