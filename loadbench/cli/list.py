"""`loadbench list`: the runs in the results folder, newest first."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from loadbench import runlog
from loadbench.catalogue import Entry, entries
from loadbench.cli.say import give
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.units import percent, significant

_WHYS = 2  # reasons that still fit below the table
_COLUMNS = ("run", "when", "target", "done/s", "p50", "p99", "failed %", "checks", "state")


@click.command()
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(out: str | None, as_json: bool) -> None:
    """The runs in results/, newest first."""
    results = runlog.results_folder(out)
    found = list(entries(results))
    if not found and not as_json:
        give(f"no runs in {results} yet: start one with: loadbench run steady")
    elif as_json:
        for entry in found:
            give(json.dumps(_facts(entry)))
    else:
        for line in table(found):
            give(line)
        if note := unbounded(found):
            give(note)


def table(found: Iterable[Entry]) -> list[str]:
    """A heading, and a line for each run."""
    return aligned([_COLUMNS, *map(_row, found)], frozenset({0, 1, 2, 7, 8}))


def _when(entry: Entry) -> str:
    return entry.began[:16].replace("T", " ")


def _facts(entry: Entry) -> dict[str, Any]:
    """What a line of the list shows, by name."""
    return {
        "run": entry.name,
        "when": _when(entry),
        "scenario": entry.scenario,
        "target": entry.target,
        "done_per_s": entry.done_per_s,
        "p50_ms": entry.p50_ms,
        "p99_ms": entry.p99_ms,
        "bands_ms": entry.bands_ms,
        "no_bands": entry.no_bands,
        "limit_ms": entry.limit_ms,
        "failed": entry.failed,
        "checks_passed": entry.passed,
        "checks": len(entry.checks),
        "trust": entry.trust,
        "repeats": entry.repeats,
        "state": entry.problem or entry.state,
        "altered": entry.altered,
    }


def _row(entry: Entry) -> tuple[str, ...]:
    times = "" if entry.repeats == 1 else f" ×{entry.repeats}"
    return (
        entry.name,
        _when(entry),
        entry.target,
        significant(entry.done_per_s),
        _latency(entry.p50_ms, entry, "p50"),
        _latency(entry.p99_ms, entry, "p99"),
        percent(entry.failed),
        entry.checked,
        " ▲ ".join(filter(None, (entry.problem or f"{entry.state}{times}", _doubt(entry)))),
    )


def _doubt(entry: Entry) -> str:
    """What its figures are worth, where they are not to be trusted."""
    return entry.altered or (entry.trust if entry.trust not in (None, "trusted") else "") or ""


def _latency(value: float | None, entry: Entry, name: str) -> str:
    """A percentile without a number falls among the requests not answered well."""
    if value is None and entry.limit_ms is not None:
        return f"> {significant(entry.limit_ms)}"
    return significant(value) + within(value, entry.bands_ms.get(name))


def unbounded(found: Sequence[Entry]) -> str:
    """What is to be said of ± below a table; "" where no percentile is in it."""
    without = [entry for entry in found if entry.p50_ms is not None and len(entry.bands_ms) < 2]
    if not without:
        return "± holds at 95 %" if any(entry.bands_ms for entry in found) else ""
    whys = dict.fromkeys(entry.no_bands for entry in without if entry.no_bands)
    why = f" ({'; '.join(whys)})" if 0 < len(whys) <= _WHYS else ""
    return f"± holds at 95 %; where there is none, loadbench show RUN says why{why}"
