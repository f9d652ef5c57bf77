"""`loadbench compare A B`: what differs between two runs, then their figures."""

import json
from pathlib import Path
from typing import Any

import click

from loadbench import runlog
from loadbench.cli.list import table
from loadbench.compare import Comparison, Row, compare
from loadbench.model import plain
from loadbench.summary import summarise
from loadbench.units import percent, significant


@click.command()
@click.argument("a")
@click.argument("b", default="last")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The comparison as one JSON object.")
def command(a: str, b: str, out: str | None, as_json: bool) -> None:
    """Run B (default: the last one) against run A. Each is a number, a folder or `last`."""
    results = runlog.results_folder(out)
    found = compare(_side(runlog.find(a, results)), _side(runlog.find(b, results)))
    click.echo(json.dumps(plain(found), ensure_ascii=False) if as_json else _text(found))


def _side(folder: Path) -> dict[str, Any]:
    """The run's snapshot; the summary of one without an end is made from its log."""
    snapshot = runlog.read_snapshot(folder)
    if not snapshot.get("summary"):
        snapshot["summary"] = plain(summarise(runlog.read(folder), runlog.goes_on(folder)))
    return snapshot


def _text(found: Comparison) -> str:
    lines = [f"A {found.a}   vs   B {found.b}", ""]
    if found.differences:
        lines.append("  Differs:")
        lines += [
            f"    {difference.key}: {_value(difference.a)} → {_value(difference.b)}"
            for difference in found.differences
        ]
    else:
        lines.append("  Same scenario, settings, versions and machine.")
    rows = [("metric", "A", "B", "B vs A", "verdict", "n"), *(_row(row) for row in found.rows)]
    lines += ["", *(f"  {line}" for line in table(rows, frozenset({0, 4})))]
    lines.append("")
    for note in found.notes:
        lines.append(f"  ▲ {note.text}" + (f": {note.hint}" if note.hint else ""))
    return "\n".join(lines)


def _value(value: object) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _row(row: Row) -> tuple[str, ...]:
    show = percent if row.unit == "%" else significant
    name = f"{row.metric} {row.unit}".rstrip()
    delta = "" if row.delta is None else f"{row.delta * 100:+.1f} %"
    a, b = (
        show(value) if beyond is None else f"> {show(beyond)}"
        for value, beyond in zip((row.a, row.b), row.beyond, strict=True)
    )
    return (name, a, b, delta, row.verdict, f"{row.n[0]}+{row.n[1]}")
