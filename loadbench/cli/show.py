"""`loadbench show RUN`: the summary of one run, from its log: also of a run that was killed."""

import json

import click

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import Start, plain
from loadbench.report.text import summary_text
from loadbench.summary import summarise


@click.command()
@click.argument("run", default="last")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
def command(run: str, out: str | None, as_json: bool) -> None:
    """The summary of RUN: a number (12), a folder, or `last`.

    It is made from the log each time, so a run that was killed has one up to its last second.
    """
    folder = runlog.find(run, runlog.results_folder(out))
    records = list(runlog.read(folder))
    start = records[0] if records else None
    if not isinstance(start, Start):
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    summary = summarise(records, runlog.goes_on(folder))
    if summary is None:
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    if as_json:
        click.echo(json.dumps(plain(summary), ensure_ascii=False))
    else:
        click.echo(summary_text(summary, start.rules, str(folder)))
