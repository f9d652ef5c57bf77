"""`loadbench report RUN [RUN…]`: a run, a series, or several runs as one HTML file."""

from pathlib import Path

import click

from loadbench import runlog
from loadbench.cli.say import give


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1)
@click.option("-o", "--output", metavar="FILE", help="Where to write it; `-` for stdout.")
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
def command(runs: tuple[str, ...], output: str | None, out: str | None) -> None:
    """An HTML page about RUN (default: the last one): verdict, charts, tables, how to repeat it.

    RUN is a number (12), a repeat's (12/3), a folder, or `last`; with several they stand beside
    each other. The file loads nothing and can be mailed, printed, kept. Default: report.html in
    the run's folder; for several runs report-12-14.html in that of the last.
    """
    from loadbench.report.html import report, write

    results = runlog.results_folder(out)
    folders = [runlog.find(name, results) for name in runs or ("last",)]
    text = report(folders)
    if output == "-":
        give(text.encode())
        return
    path = Path(output) if output else _usual(folders)
    write(path, text)
    give(str(path))


def _usual(folders: list[Path]) -> Path:
    if len(folders) == 1:
        return folders[0] / "report.html"
    numbers = [folder.resolve().name.partition("-")[0] for folder in folders]
    return folders[-1] / f"report-{'-'.join(dict.fromkeys(numbers))[:100]}.html"
