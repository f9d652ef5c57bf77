"""`loadbench baseline …`: which run the others of its scenario are compared with."""

from pathlib import Path

import click

from loadbench import baseline, runlog
from loadbench.catalogue import entry
from loadbench.cli.list import table
from loadbench.cli.say import give
from loadbench.errors import SpecError
from loadbench.report.text import run_text

_out = click.option("--out", metavar="DIR", help="The results folder; default: results.")


@click.group()
def command() -> None:
    """Named runs to compare with: loadbench compare baseline.

    They stand in results/baselines.json, which can be put under version control.
    """


@command.command("set")
@click.argument("run", default="last")
@click.option("--name", help="Its name; default: that of its scenario.")
@_out
def set_(run: str, name: str | None, out: str | None) -> None:
    """Makes RUN (default: the last one) the baseline of its scenario."""
    results = runlog.results_folder(out)
    folder = runlog.find(run, results)
    name = name or baseline.usual_name(folder)
    before = baseline.read(results).get(name)
    baseline.put(results, name, folder)
    run = runlog.called(folder)
    instead = f" (before: {before})" if before and before != run else ""
    give(f"baseline {name} is {run}{instead}")


@command.command()
@click.argument("name", required=False)
@_out
def show(name: str | None, out: str | None) -> None:
    """The summary of baseline NAME; needed only where there are several."""
    results = runlog.results_folder(out)
    if name is None:
        known = list(baseline.read(results))
        if len(known) != 1:
            raise SpecError(
                f"there are {len(known)} baselines in {results}",
                f"name one: {', '.join(known)}" if known else "loadbench baseline set RUN",
            )
        name = known[0]
    folder = baseline.find(name, results)
    if folder is None:
        raise SpecError(f"there is no baseline {name!r}", "loadbench baseline list")
    give(run_text(folder))


@command.command("list")
@_out
def list_(out: str | None) -> None:
    """All baselines with their runs."""
    results = runlog.results_folder(out)
    known = baseline.read(results)
    if not known:
        give(f"no baselines in {results} yet: loadbench baseline set RUN")
        return
    for name, run in known.items():
        found = entry(results / Path(run))
        give(f"{name}: {run}" + ("" if found else "  ✗ this run is gone"))
    rows = [found for run in known.values() if (found := entry(results / Path(run)))]
    for line in table(rows) if rows else []:
        give(f"  {line}")


@command.command()
@click.argument("name")
@_out
def forget(name: str, out: str | None) -> None:
    """Takes the name away; the run stays."""
    results = runlog.results_folder(out)
    baseline.forget(results, name)
    give(f"baseline {name} is forgotten")
