"""`loadbench bisect GOOD BAD -- SCENARIO`: the first commit that made a scenario worse."""

import signal
import sys

import click

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.comparison import terms_of
from loadbench.printable import harmless

FOUND, NO_VERDICT = 0, 4


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, metavar="[GOOD BAD] -- SCENARIO [OPTIONS OF RUN]")
@click.option(
    "--against",
    metavar="RUN",
    help="Judge only what is checked out, against this series: for `git bisect run`.",
)
@click.option("--repeats", type=click.IntRange(5, 1000), default=6, help="Of each commit; 6.")
@click.option(
    "--gate", "gates", metavar="METRIC[=MARGIN]", multiple=True,
    help="What makes a commit bad, like p99=5% (the default).",
)  # fmt: skip
@click.option("--out", metavar="DIR", help="Where runs land; default: results.")
def command(
    words: tuple[str, ...], against: str | None, repeats: int, gates: tuple[str, ...],
    out: str | None,
) -> int:  # fmt: skip
    """Measures GOOD and BAD, then lets git bisect choose the commits between. Each is judged by a
    series of repeats against GOOD's: beyond half of the way from GOOD to BAD it is bad, within it
    good, and skipped where neither is shown. What follows -- is as for `loadbench run`.

    Exit codes: 0 the first bad commit was found, 2 bad input, 3 an end could not be measured, 4 it
    is one of several, since some had to be skipped, or BAD is not shown to be worse. With --against
    those of git bisect: 0 good, 1 bad, 125 skip.
    """
    from loadbench.experiments.bisect import Measure, search, step

    results = runlog.results_folder(out)
    ends, arguments = _parted(words, against is not None)
    measure = Measure(arguments, repeats, results, terms_of(gates))
    if against is not None:
        code, why = step(runlog.find(against, results), measure)
        _say(f"{('good', 'bad')[code] if code < 2 else 'skipped'}: {why}")
        return code
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # puts the tree back
    found = search(*ends, measure, _say)
    if len(found.commits) == 1:
        click.echo(f"{found.commits[0]} is the first bad commit")
        return FOUND
    if not found.commits:
        _say(f"{ends[1]} is not shown to be worse than {ends[0]}: {found.why}")
        return NO_VERDICT
    click.echo("the first bad commit is one of these, some of which could not be judged:")
    click.echo("\n".join(f"  {commit}" for commit in found.commits))
    return NO_VERDICT


def _parted(words: tuple[str, ...], step: bool) -> tuple[tuple[str, str], tuple[str, ...]]:
    """The ends, and the arguments of `loadbench run`."""
    if step and words:
        return ("", ""), words
    if len(words) < 3:
        raise SpecError(
            "bisect needs two commits and a scenario", "loadbench bisect GOOD BAD -- SCENARIO"
        )
    return (words[0], words[1]), words[2:]


def _say(text: str) -> None:
    click.echo(f"loadbench: {harmless(text)}", err=True)
