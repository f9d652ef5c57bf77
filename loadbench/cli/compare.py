"""`loadbench compare A B …`: what differs between runs, then their figures and the verdict."""

import json
from pathlib import Path
from typing import Any

import click

from loadbench import baseline, runlog
from loadbench.cli.say import show
from loadbench.errors import SpecError
from loadbench.judge import differences
from loadbench.judge.comparison import compare, terms_of
from loadbench.judge.gate import UNDECIDED, WORSE, decision
from loadbench.judge.matrix import matrix
from loadbench.judge.side import Side
from loadbench.model import plain
from loadbench.report.comparison import comparison_text
from loadbench.report.matrix import matrix_text
from loadbench.report.sides import apart, side


@click.command()
@click.argument("runs", nargs=-1, metavar="[A B …]")
@click.option("--a", "left", metavar="RUN,…", help="Several runs as one side, like 12,13,14.")
@click.option("--b", "right", metavar="RUN,…", help="The same of the other side.")
@click.option(
    "--gate", "gates", metavar="METRIC[=MARGIN]", multiple=True,
    help="Judge this metric, like p99=5%, and exit with 1 if it is worse, 4 without a verdict.",
)  # fmt: skip
@click.option("--anyway", is_flag=True, help="Compare runs that did different work.")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The comparison as one JSON object.")
def command(
    runs: tuple[str, ...],
    left: str | None,
    right: str | None,
    gates: tuple[str, ...],
    anyway: bool,
    out: str | None,
    as_json: bool,
) -> int:
    """Run B (default: the last one) against run A; of more than two, all against the first.

    Each is a number, a folder or `last`, and may be a series of repeats; A also the name of a
    baseline, or `baseline` for that of B's scenario. Below 5 + 5 repeats there is no verdict.
    """
    results = runlog.results_folder(out)
    sides = _sides(runs, left, right, results)
    terms = terms_of(gates, anyway)
    found = [compare(sides[0], other, terms) for other in sides[1:]]
    different = [at for at, one in enumerate(found, 1) if not one.comparable]
    if different and not anyway:
        _refuse(sides[0], sides[different[0]])
    if len(found) > 1:
        table = matrix(sides, found)
        show(_json(table) if as_json else matrix_text(table))
    else:
        show(_json(found[0]) if as_json else comparison_text(found[0]))
    if not gates:
        return 0
    decisions = [decision(one) for one in found]
    for one in decisions:
        click.echo(f"loadbench: {one.words}", err=True)
    codes = [one.code for one in decisions]
    return WORSE if WORSE in codes else UNDECIDED if UNDECIDED in codes else 0


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False)


def _sides(runs: tuple[str, ...], left: str | None, right: str | None, results: Path) -> list[Side]:
    if left or right:
        if runs or not (left and right):
            raise SpecError("--a and --b go together, and alone", "--a 12,13,14 --b 15,16,17")
        listed = runlog.listing(results)
        given = [
            [runlog.find(name.strip(), results, listed) for name in text.split(",")]
            for text in (left, right)
        ]
        apart(*given)
        return [side(folders, sign) for sign, folders in zip("AB", given, strict=True)]
    if not runs:
        raise SpecError("no runs to compare", "loadbench compare A B; loadbench list shows them")
    others = [runlog.find(name, results) for name in runs[1:] or ("last",)]
    folders = [_first(runs[0], others[0], results), *others]
    apart(folders)
    return [side([folder]) for folder in folders]


def _first(name: str, other: Path, results: Path) -> Path:
    """The run to compare with."""
    scenario = baseline.usual_name(other)
    folder = baseline.find(scenario if name == "baseline" else name, results)
    if folder is None and name == "baseline":
        raise SpecError(
            f"there is no baseline {scenario!r}", "make a run one: loadbench baseline set RUN"
        )
    return folder or runlog.find(name, results)


def _refuse(a: Side, b: Side) -> None:
    """Different work: with what differs, and how to have it all the same. Raises SpecError."""
    keys = [one.key for one in differences.work(a.snapshots[0], b.snapshots[0])]
    more = " …" if len(keys) > 3 else ""
    raise SpecError(
        f"{a.name} and {b.name} did different work ({', '.join(keys[:3])}{more})",
        "run the same scenario against both, or compare them --anyway",
    )
