"""`loadbench ab A B`: two targets in one session, in turns, until it is decided."""

import json
import sys
from pathlib import Path

import click

from loadbench import runlog, spec
from loadbench.cli.run import _signals as signals
from loadbench.cli.say import say, show
from loadbench.errors import SpecError
from loadbench.judge.checks import NO_VERDICT, NOT_MADE, PASSED
from loadbench.judge.session import Session, Terms
from loadbench.overrides import heeded, parse_settings
from loadbench.report.ab import read_session, session_facts, session_text
from loadbench.units import SECOND, parse_duration, parse_share

WORSE = 1
_SHADOW_S = 10


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--rate", metavar="RATE", help="Of both, instead of the scenarios'.")
@click.option("--set", "both", metavar="KEY=VALUE", multiple=True, help="Any key of both.")
@click.option("--a-set", metavar="KEY=VALUE", multiple=True, help="Any scenario key of A.")
@click.option("--b-set", metavar="KEY=VALUE", multiple=True, help="Any scenario key of B.")
@click.option("--a-python", default="", metavar="PATH", help="Starts A's engine: another build.")
@click.option("--b-python", default="", metavar="PATH", help="Starts B's engine: another build.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Gets a verdict: p50 (default), p90, p95, p99, p99_9, mean, or of answers that come "
    "token by token first_token_p99, token_gap_p99, token_pace_p50 … May be given again.",
)
@click.option("--margin", default="2 %", metavar="SHARE", help="What does not matter; 2 %.")
@click.option("--budget", default="60s", metavar="TIME", help="Ends undecided then; 60s.")
@click.option("--block", metavar="TIME", help="Of one turn; default: by rate and budget.")
@click.option(
    "--shadow",
    is_flag=False,
    flag_value=f"{_SHADOW_S}s",
    metavar="[TIME]",
    help="Before, for 10 s, the same requests to both at once: compares their answers.",
)
@click.option(
    "--gate", is_flag=True, help="Exits with 1 if B is worse or fails more, 4 without a verdict."
)
@click.option("--name", help="Name of the folder; default: the scenarios.")
@click.option("--out", metavar="DIR", help="Where it lands; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The session as one JSON object.")
@click.option("--trust", is_flag=True, help="Allow scenarios and model files that run code.")
def command(
    a: str,
    b: str,
    rate: str | None,
    both: tuple[str, ...],
    a_set: tuple[str, ...],
    b_set: tuple[str, ...],
    a_python: str,
    b_python: str,
    metrics: tuple[str, ...],
    margin: str,
    budget: str,
    block: str | None,
    shadow: str | None,
    gate: bool,
    name: str | None,
    out: str | None,
    as_json: bool,
    trust: bool,
) -> int:
    """Is B better or worse than A? A and B are scenarios with the same load.

    Both targets stay up; the load goes to one at a time in blocks, A B B A …, with the same
    arrivals, and ends when it is decided. Exit codes: 0, with --gate 1 if B is worse or fails more
    often and 4 without a verdict; 2 bad input, 3 it could not be made, 130/143 stopped by a signal.
    """
    from loadbench.experiments.ab import Interleaved, Plans
    from loadbench.experiments.sides import one_rate, side
    from loadbench.judge.blocks import fraction, layout
    from loadbench.runner import Options

    scenarios = [
        spec.load(which, {**parse_settings(both), **parse_settings(own)}, rate=rate)
        for which, own in ((a, a_set), (b, b_set))
    ]
    for own, found in zip((a_set, b_set), scenarios, strict=True):
        heeded(parse_settings(own), found.spec.target.url)
    terms = _terms(metrics, margin)
    asked = one_rate(*scenarios)
    plan = layout(
        asked,
        parse_duration(budget),
        scenarios[0].spec.load.warmup,
        parse_duration(block) if block else None,
        max(fraction(name) for name in terms.metrics),
        len(terms.metrics),
    )
    sides = (side(scenarios[0], a_python), side(scenarios[1], b_python))
    options = Options(
        results=runlog.results_folder(out),
        name=name or "",
        command=("loadbench", *sys.argv[1:]),
        trust=trust,
    )
    plans = Plans(plan, terms, _seconds(shadow) if shadow else 0)
    running = Interleaved(sides, plans, options, lambda text: say(f"  {text}"))
    say(f"ab {running.folder}")
    with signals(running) as caught:
        running.execute()
    return _told(running.folder, as_json, gate, caught)


def _told(folder: Path, as_json: bool, gate: bool, caught: list[int]) -> int:
    found = read_session(folder)
    if as_json:
        show(json.dumps(session_facts(folder), ensure_ascii=False))
    else:
        show(session_text(folder))
    if caught:
        return 128 + caught[0]
    if found.state == "failed":
        return NOT_MADE
    return _gated(found) if gate else PASSED


def _gated(found: Session) -> int:
    """What a session is worth to a gate; why is told on stderr."""
    words = {row.word for row in found.gated}
    if found.answers and found.answers.broken:
        say("loadbench: B does not answer as A does")
        return WORSE
    if not found.verdict:
        say("loadbench: no verdict: the numbers cannot be trusted")
        return NO_VERDICT
    if "worse" in words:
        say("loadbench: B is worse than A")
        return WORSE
    if found.fails_more:
        say("loadbench: B fails more often than A")
        return WORSE
    if "inconclusive" in words:
        say("loadbench: no verdict: inconclusive")
        return NO_VERDICT
    return PASSED


def _terms(metrics: tuple[str, ...], margin: str) -> Terms:
    from loadbench.judge.blocks import METRICS

    names = tuple(dict.fromkeys(name.replace(".", "_") for name in metrics)) or ("p50",)
    for name in names:
        if name not in METRICS:
            raise SpecError(f"{name!r} is no metric of an A/B", f"known: {', '.join(METRICS)}")
    share = parse_share(margin)
    if not 0 < share < 1:
        raise SpecError(f"a margin of {margin}", "--margin '2 %': what does not matter to you")
    return Terms(names, share)


def _seconds(text: str) -> int:
    length = parse_duration(text)
    if length % SECOND or not length:
        raise SpecError(f"--shadow {text}", "whole seconds, like --shadow 10s")
    return length // SECOND
