"""`loadbench list`: the runs in the results folder, newest first."""

import json
from pathlib import Path
from typing import Any

import click

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.units import percent, significant

_COLUMNS = ("run", "when", "target", "done/s", "p50", "p99", "failed %", "checks", "state")


@click.command()
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(out: str | None, as_json: bool) -> None:
    """The runs in results/, newest first."""
    results = runlog.results_folder(out)
    found = runlog.runs(results)
    if not found:
        click.echo(f"no runs in {results} yet: start one with: loadbench run steady")
        return
    if as_json:
        for folder in reversed(found):
            click.echo(json.dumps(_facts(folder.name, _read(folder))))
        return
    rows = [_COLUMNS, *(_row(_facts(folder.name, _read(folder))) for folder in reversed(found))]
    for row in table(rows):
        click.echo(row)


def _read(folder: Path) -> dict[str, Any]:
    """The snapshot; without one (killed before it began, damaged) a row that says so."""
    try:
        return runlog.read_snapshot(folder)
    except SpecError:
        return {"state": "no readable run.json"}


def _facts(name: str, snapshot: dict[str, Any]) -> dict[str, Any]:
    """What a line of the list shows, by name."""
    found = snapshot.get("summary")
    summary = found if isinstance(found, dict) else {}
    checks = summary.get("checks", [])
    target = snapshot.get("target")
    asked = summary.get("asked") or 0
    return {
        "run": name,
        "when": str(snapshot.get("began", ""))[:16].replace("T", " "),
        "target": target.get("name", "") if isinstance(target, dict) else "",
        "done_per_s": summary.get("rate", {}).get("done"),
        "p50_ms": summary.get("latency_ms", {}).get("p50"),
        "p99_ms": summary.get("latency_ms", {}).get("p99"),
        "limit_ms": summary.get("limit_ms") if asked else None,
        "failed": 1 - summary["done"] / asked if asked else None,
        "checks_passed": sum(check["state"] == "passed" for check in checks),
        "checks": len(checks),
        "state": runlog.state(snapshot),
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    def number(name: str) -> float | None:
        value = facts[name]
        return float(value) if isinstance(value, int | float) else None

    def latency(name: str) -> str:
        """A percentile without a number falls among the requests not answered well."""
        limit = number("limit_ms")
        beyond = number(name) is None and limit is not None
        return f"> {significant(limit)}" if beyond else significant(number(name))

    sign = "✓" if facts["checks_passed"] == facts["checks"] else "✗"
    checks = f"{sign} {facts['checks_passed']}/{facts['checks']}" if facts["checks"] else ""
    return (
        str(facts["run"]),
        str(facts["when"]),
        str(facts["target"]),
        significant(number("done_per_s")),
        latency("p50_ms"),
        latency("p99_ms"),
        percent(number("failed")),
        checks,
        str(facts["state"]),
    )


def table(
    rows: list[tuple[str, ...]], left: frozenset[int] = frozenset({0, 1, 2, 7, 8})
) -> list[str]:
    """Rows as aligned lines; columns not in `left` are set to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
