"""`loadbench compare A B`: what differs between two runs, then their figures."""

import json
from pathlib import Path
from typing import Any

import click

from loadbench import baseline, runlog
from loadbench.compare import compare
from loadbench.errors import SpecError
from loadbench.model import plain
from loadbench.report.comparison import comparison_text
from loadbench.snapshots.reading import summarised


@click.command()
@click.argument("a")
@click.argument("b", default="last")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The comparison as one JSON object.")
def command(a: str, b: str, out: str | None, as_json: bool) -> None:
    """Run B (default: the last one) against run A. Each is a number, a folder or `last`; A also
    the name of a baseline, or `baseline` for that of B's scenario."""
    results = runlog.results_folder(out)
    right = _side(runlog.find(b, results))
    found = compare(_side(_first(a, right, results)), right)
    click.echo(json.dumps(plain(found), ensure_ascii=False) if as_json else comparison_text(found))


def _first(name: str, other: dict[str, Any], results: Path) -> Path:
    """The run to compare with."""
    scenario = str(other.get("scenario"))
    folder = baseline.find(scenario if name == "baseline" else name, results)
    if folder is None and name == "baseline":
        raise SpecError(
            f"there is no baseline {scenario!r}", "make a run one: loadbench baseline set RUN"
        )
    return folder or runlog.find(name, results)


def _side(folder: Path) -> dict[str, Any]:
    """The run's snapshot; the summary of one without an end is made from its log."""
    snapshot = runlog.read_snapshot(folder)
    if not snapshot.get("summary"):
        snapshot["summary"] = plain(summarised(folder)[1])
    return snapshot
