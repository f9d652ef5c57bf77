"""`loadbench show RUN`: the summary of one run, from its log: also of a run that was killed."""

import json

import click

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import plain
from loadbench.report.find import find_facts, find_text
from loadbench.report.series import series_facts
from loadbench.report.text import run_text
from loadbench.summary import summarise


@click.command()
@click.argument("run", default="last")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
def command(run: str, out: str | None, as_json: bool) -> None:
    """The summary of RUN: a number (12), a repeat's (12/3), a folder, or `last`.

    It is made from the log each time, so a run that was killed has one up to its last second.
    """
    folder = runlog.find(run, runlog.results_folder(out))
    if runlog.is_find(folder):
        click.echo(
            json.dumps(find_facts(folder), ensure_ascii=False) if as_json else find_text(folder)
        )
        return
    if not as_json:
        click.echo(run_text(folder))
        return
    if runlog.is_series(folder):
        click.echo(json.dumps(series_facts(folder), ensure_ascii=False))
        return
    summary = summarise(runlog.read(folder), runlog.goes_on(folder))
    if summary is None:
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    click.echo(json.dumps(plain(summary), ensure_ascii=False))
