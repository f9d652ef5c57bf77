"""What lies below the list of runs: one run in words, or two side by side."""

import textwrap
from collections.abc import Sequence

from rich.text import Text

from dashboard.theme import Palette, ink
from dashboard.widgets.runlist import state
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.catalogue import Entry
from loadbench.judge.comparison import Comparison
from loadbench.judge.overall import MEDIAN
from loadbench.report.certain import check_words, within
from loadbench.report.comparison import HEADS, cells, differences, doubts, sentences
from loadbench.trust import WEAKENING

_DIFFERENT = "different load: deltas are not comparable"
_COLUMNS = tuple(
    Column(title, {"n": 3, "verdict": 2}.get(title, 0), left=title in ("metric", "verdict"))
    for title in HEADS
)
_VERDICT = HEADS.index("verdict")


def about(entry: Entry, colours: Palette) -> Text:
    """One run: what it was, how it ended, its checks, what weakens its figures."""
    quiet, plain = ink(colours.quiet), ink(colours.text)
    text = Text()
    length = units.duration(round(entry.seconds * units.SECOND)) if entry.seconds else ""
    facts = [entry.title, length, f"commit {entry.commit}" if entry.commit else ""]
    text.append("   ".join([state(entry), *filter(None, facts)]) + "\n", plain)
    if entry.problem or entry.text:
        text.append(f"✗ {entry.problem or entry.text}\n", ink(colours.error))
    if entry.state == "killed":
        text.append("✗ it has no end: its runner was killed. v = what it recorded until then\n",
                    ink(colours.error))  # fmt: skip
    for check in entry.checks:
        band = entry.bands_ms.get(check.name)
        sign, _, words = check_words(check, entry.failed, band).partition(" ")
        colour = {"passed": colours.ok, "failed": colours.error}.get(check.state, colours.quiet)
        if entry.unjudged:
            sign, colour = "▲", colours.quiet
        text.append(f"{sign} ", ink(colour))
        text.append(words, plain)
        text.append(f" · {check.sure}   " if check.sure else "   ", quiet)
    if entry.checks:
        text.append("\n")
    if sure := _sureness(entry):
        text.append(f"{sure}\n", quiet)
    for note in entry.notes:
        weakens = note.code in WEAKENING
        text.append("▲ " if weakens else "· ", ink(colours.p99 if weakens else colours.quiet))
        text.append(note.text + (f": {note.hint}" if note.hint else "") + "\n", plain)
    text.append(_HINT, quiet)
    return text


def _sureness(entry: Entry) -> str:
    """The percentiles of its row with their ±, or why they have none; "" without figures."""
    values = {"p50": entry.p50_ms, "p99": entry.p99_ms}
    known = [
        f"{name} {units.significant(value)}{within(value, entry.bands_ms.get(name))} ms"
        for name, value in values.items()
        if value is not None
    ]
    why = f"no ±: {MEDIAN if entry.repeats > 1 else entry.no_bands}".removesuffix("no ±: ")
    sure = "± holds at 95 %" if entry.bands_ms else ""
    return "   ".join(filter(None, (*known, sure, why))) if known else ""


_HINT = "enter = open   v = summary   r = report   x = mark A, then B   c = compare"


def beside(found: Comparison, width: int, colours: Palette) -> Text:
    """Two runs: what differs between them first, then the figures, then the doubts."""
    quiet, plain, attention = ink(colours.quiet), ink(colours.text), ink(colours.p99)
    text = Text()
    if not found.comparable:
        text.append(f"▲ {_DIFFERENT}\n", ink(colours.p99, bold=True))
    changed = differences(found)
    if changed:
        lines = textwrap.wrap("   ".join(changed), max(20, width - 9))
        text.append("Differs  ", quiet)
        text.append("\n         ".join(lines) + "\n", plain)
    else:
        text.append("Same scenario, settings, versions and machine.\n", plain)
    rows = [cells(row) for row in found.rows]
    for line in table(_COLUMNS, _shortened(rows, width), width, (quiet, plain, plain)):
        text.append_text(Text.assemble(*((part.text, part.style or "") for part in line)))
        text.append("\n")
    for said in sentences(found):
        text.append("\n".join(textwrap.wrap(said, max(20, width - 1))) + "\n", quiet)
    for doubt in doubts(found):
        first, *rest = textwrap.wrap(doubt, max(20, width - 3))
        text.append("▲ ", attention)
        text.append("\n  ".join([first, *rest]) + "\n", plain)
    return text


def _shortened(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The verdict without its reason where that leaves no room for the rest."""
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
    if sum(widths[:-1]) + 2 * len(widths) <= width:
        return [list(row) for row in rows]
    short = [row[_VERDICT].partition(" (")[0] for row in rows]
    return [
        [*row[:_VERDICT], verdict, *row[_VERDICT + 1 :]]
        for row, verdict in zip(rows, short, strict=True)
    ]
