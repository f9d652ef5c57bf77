"""`loadbench bisect GOOD BAD -- SCENARIO`: the first commit that made a scenario worse."""

import signal
import sys
from pathlib import Path

import click

from loadbench import runlog
from loadbench.cli.say import say, show
from loadbench.errors import LoadbenchError, SpecError
from loadbench.judge.comparison import terms_of

FOUND, NO_VERDICT = 0, 4
ENDS = 128  # from here on git gives up


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
    those of git bisect: 0 good, 1 bad, 125 skip, 128 what it was told is wrong, so that git ends.
    """
    from loadbench.experiments.bisect import Measure, search

    results = runlog.results_folder(out)
    if against is not None:
        return _judged(against, words, repeats, results, gates)
    ends, arguments = _parted(words)
    measure = Measure(arguments, repeats, results, terms_of(gates))
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # puts the tree back
    found = search(*ends, measure, _say)
    if len(found.commits) == 1:
        show(f"{found.commits[0]} is the first bad commit")
        return FOUND
    if not found.commits:
        _say(f"{ends[1]} is not shown to be worse than {ends[0]}: {found.why}")
        return NO_VERDICT
    show("the first bad commit is one of these, some of which could not be judged:")
    show("\n".join(f"  {commit}" for commit in found.commits))
    return NO_VERDICT


def _judged(
    against: str, words: tuple[str, ...], repeats: int, results: Path, gates: tuple[str, ...]
) -> int:
    """What is checked out, as git takes it: to it our own exit codes for errors would be bad
    commits."""
    from loadbench.experiments.bisect import SKIP, Measure, step

    try:
        if not words:
            hint = "loadbench bisect --against RUN -- SCENARIO"
            raise SpecError("--against needs a scenario", hint)
        measure = Measure(words, repeats, results, terms_of(gates))
        reference = runlog.find(against, results)
        measure.command(reference)  # can it be read?
    except LoadbenchError as error:
        _say(f"{error.message}: {error.hint}".removesuffix(": "))
        return ENDS
    try:
        code, why = step(reference, measure)
    except LoadbenchError as error:
        code, why = SKIP, error.message
    _say(f"{('good', 'bad')[code] if code < 2 else 'skipped'}: {why}")
    return code


def _parted(words: tuple[str, ...]) -> tuple[tuple[str, str], tuple[str, ...]]:
    """The ends, and the arguments of `loadbench run`."""
    if len(words) < 3:
        raise SpecError(
            "bisect needs two commits and a scenario", "loadbench bisect GOOD BAD -- SCENARIO"
        )
    return (words[0], words[1]), words[2:]


def _say(text: str) -> None:
    say(f"loadbench: {text}")
