"""`loadbench show RUN`: the summary of one run, from its log: also of a run that was killed."""

import json
from pathlib import Path

import click
from msgspec.structs import replace

from loadbench import runlog
from loadbench.cli.gate import Gate, gate_options
from loadbench.cli.outputs import Outputs, output_options
from loadbench.cli.say import give
from loadbench.errors import SpecError
from loadbench.judge.checks import altered, verdict
from loadbench.model import plain
from loadbench.printable import harmless
from loadbench.report.ab import session_facts, session_text
from loadbench.report.against import against
from loadbench.report.conclusion import Conclusion, concluded
from loadbench.report.find import find_facts, find_text
from loadbench.report.series import series_facts
from loadbench.report.text import run_text
from loadbench.snapshots import sums
from loadbench.snapshots.reading import summarised


@click.command()
@click.argument("run", default="last")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--certain", is_flag=True, help="In those files a pass that is not shown is none.")
@output_options
@gate_options
def command(
    run: str, out: str | None, as_json: bool, certain: bool, outputs: Outputs, gate: Gate | None
) -> None:
    """The summary of RUN: a number (12), a repeat's (12/3), a folder, or `last`.

    It is made from the log each time, so a run that was killed has one up to its last second.
    """
    folder = runlog.find(run, runlog.results_folder(out))
    if runlog.is_find(folder):
        if any(outputs):
            raise SpecError(
                f"{folder.name} is a search for a rate: it has no checks",
                "loadbench show RUN --json",
            )
        facts = json.dumps(find_facts(folder), ensure_ascii=False) if as_json else None
        give(facts or harmless(find_text(folder)))
        return
    if runlog.is_ab(folder):
        if any(outputs):
            raise SpecError(
                f"{folder.name} is a session of two targets in turns: it has no checks",
                "loadbench show RUN --json",
            )
        facts = json.dumps(session_facts(folder), ensure_ascii=False) if as_json else None
        give(facts or harmless(session_text(folder)))
        return
    if any(outputs):
        if runlog.is_led(folder):
            raise SpecError(
                f"{folder.name} was led by a search: what that found is told of it as a whole",
                "loadbench show RUN --json",
            )
        outputs.conclude(_conclusion(folder, certain, gate, runlog.results_folder(out)))
    elif gate:
        raise SpecError(
            "--baseline is for what --junit, --markdown and --json-file write here",
            "loadbench compare baseline RUN",
        )
    if not as_json:
        give(harmless(run_text(folder)))
        return
    if runlog.is_series(folder):
        give(json.dumps(series_facts(folder), ensure_ascii=False))
        return
    _, summary = summarised(folder)
    give(json.dumps(plain(summary), ensure_ascii=False))


def _conclusion(folder: Path, certain: bool, gate: Gate | None, results: Path) -> Conclusion:
    """What the run came to, as it would have been told at its end."""
    summaries = [summarised(one)[1] for one in runlog.repeats(folder)]
    if not summaries:
        raise SpecError(f"{folder}: nothing was recorded in any of its repeats")
    if runlog.is_series(folder) and (doubt := sums.altered(folder, runlog.SNAPSHOT)):
        summaries = [replace(one, notes=(*one.notes, doubt)) for one in summaries]
    found = concluded(summaries, verdict(summaries, certain), False, certain)
    if gate is None:
        return found
    base = gate.found(summaries[0].scenario, results)
    if any(altered(one.notes) for one in summaries):
        return found  # what is compared are snapshots: of a log it would not be known
    return against(found, *gate.held(base, folder), False)
