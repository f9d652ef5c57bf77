"""`loadbench run`: runs without a screen; a line every few seconds, the summary at the end."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from loadbench import runlog, spec
from loadbench.cli.gate import REPEATS, Gate, gate_options
from loadbench.cli.outputs import Outputs, output_options
from loadbench.cli.say import say, show
from loadbench.errors import SpecError
from loadbench.judge.checks import CHECK_FAILED, PASSED, verdict
from loadbench.judge.shift import FEWEST
from loadbench.model import Start, plain
from loadbench.overrides import heeded, parse_settings
from loadbench.printable import harmless
from loadbench.report.against import against as held_against
from loadbench.report.comparison import comparison_text
from loadbench.report.conclusion import Conclusion, concluded, not_made
from loadbench.report.series import series_facts
from loadbench.report.text import run_text, summary_text
from loadbench.summary import Summary
from loadbench.units import SECOND, parse_duration


@click.command()
@click.argument("scenario", required=False, metavar="SCENARIO")
@click.option("--target", metavar="URL", help="http(s):// or grpc(s)://host:port, or local:MODEL")
@click.option("--rate", metavar="RATE", help='Same rate throughout, like 300 or "80 %".')
@click.option("--duration", metavar="TIME", help='Length of the recorded load, like "30s".')
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any scenario key.")
@click.option("--name", help="Name of the run folder; default: scenario and target.")
@click.option("--out", metavar="DIR", help="Where runs land; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option(
    "--on-no-verdict",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    help="What an untrustworthy run exits with: 4, or 0 with a warning.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    help="So many runs, as one series; default: 1, with --baseline 6.",
)
@click.option(
    "--cool-down",
    metavar="TIME",
    help="Between two repeats; default: 5s, none where each starts an engine of its own.",
)
@click.option("--certain", is_flag=True, help="A pass that is not shown is none: exit code 4.")
@click.option(
    "--until-decided",
    metavar="MAX",
    help="Go on until each check is shown to pass or fail, so long at most; implies --certain.",
)
@click.option("--workers", default=0, type=click.IntRange(0), help="Load processes of this host.")
@click.option("--master-bind", metavar="HOST[:PORT]", help="Let workers of other hosts join here.")
@click.option(
    "--expect-workers", default=0, type=click.IntRange(0), help="Begin when so many have joined."
)
@click.option("--workers-wait", default="60s", metavar="TIME", help="How long; default: 60s.")
@click.option("--trust", is_flag=True, help="Allow scenarios and model files that run code.")
@click.option("--dry-run", is_flag=True, help="Send one request of each kind, show the answers.")
@click.option("--print-folder", is_flag=True, hidden=True)
@click.option("--capacity", type=click.FloatRange(0, min_open=True), hidden=True)
@output_options
@gate_options
def command(
    scenario: str | None,
    target: str | None,
    rate: str | None,
    duration: str | None,
    settings: tuple[str, ...],
    name: str | None,
    out: str | None,
    as_json: bool,
    on_no_verdict: str,
    repeats: int | None,
    cool_down: str | None,
    certain: bool,
    until_decided: str | None,
    workers: int,
    master_bind: str | None,
    expect_workers: int,
    workers_wait: str,
    trust: bool,
    dry_run: bool,
    print_folder: bool,
    capacity: float | None,
    gate: Gate | None,
    outputs: Outputs,
) -> int:
    """Runs SCENARIO, once or as a series of --repeats: a name (steady, ramp, spike …), a path to a
    .toml or a Locust file.

    Exit codes: 0 fine, 1 a check failed or it is worse than the baseline, 2 bad input, 3 the run
    could not be made, 4 no verdict, 129/130/143 stopped by a signal after a complete snapshot.
    """
    from loadbench.experiments.repeats import Series
    from loadbench.runner import Options, Run
    from loadbench.runner.workers import chosen as chosen_workers

    if scenario is None:  # what click says of it names none
        whole = shlex.join(("loadbench", "run", "steady", *sys.argv[2:]))
        raise SpecError("run needs a scenario: what load there is to be", whole)
    overrides: dict[str, Any] = parse_settings(settings)
    if target:
        overrides["target.url"] = target
    if until_decided and duration:
        raise SpecError("--until-decided says how long the run may be", "leave --duration out")
    chosen = spec.load(scenario, overrides, rate=rate, duration=until_decided or duration)
    heeded(overrides, chosen.spec.target.url)
    if dry_run:
        return _dry(chosen, trust, as_json)
    repeats = repeats or (REPEATS if gate else 1)
    results = runlog.results_folder(out)
    against = gate.opened(chosen, results) if gate else None
    if against and len(against.snapshots) < FEWEST:
        few = f"{against.name} has {len(against.snapshots)} of the {FEWEST} repeats that a verdict"
        say(f"  {few} takes: no run can be shown to be worse than it")
    options = Options(
        results=results,
        name=name or "",
        command=("loadbench", *sys.argv[1:]),
        trust=trust,
        workers=chosen_workers(
            workers,
            expect_workers,
            master_bind,
            parse_duration(workers_wait),
            chosen.spec,
        ),
        decide=until_decided is not None,
        capacity=against.capacity if against else capacity,
    )
    pause_s = parse_duration(cool_down) / SECOND if cool_down else None
    run: Run | Series
    if repeats > 1:
        run = Series(chosen, options, lambda text: say(f"  {text}"), repeats, pause_s)
    else:
        run = Run(chosen, options, lambda text: say(f"  {text}"))
    if print_folder:
        show(f"run {run.folder}")
    else:
        say(f"run {run.folder}")
    with _signals(run) as caught:
        made = run.execute()
    summaries = [one.summary for one in made] if isinstance(made, list) else [made.summary]
    warn = on_no_verdict == "warn"
    held = gate.held(against, run.folder) if gate and against and not caught else None
    if as_json:
        found = plain(summaries[0]) if repeats == 1 else series_facts(run.folder)
        found |= {"comparison": plain(held.comparison)} if held else {}
        show(json.dumps(found, ensure_ascii=False))
    else:
        show(run_text(run.folder) if repeats > 1 else text_of(run.folder, summaries[0]))
        if held:
            show(f"\n{comparison_text(held.comparison)}")
    certain = certain or until_decided is not None
    conclusion = _concluded(chosen.name, summaries, caught, warn, certain)
    if held:
        say(f"loadbench: {held.decision.words}")
        conclusion = held_against(conclusion, *held, warn)
    return outputs.conclude(conclusion)


def _dry(chosen: spec.Scenario, trust: bool, as_json: bool) -> int:
    from loadbench.runner import dry

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends its engine
    target, tried = dry.try_out(chosen, trust, lambda text: say(f"  {text}"))
    found = json.dumps(plain(tried), ensure_ascii=False) if as_json else dry.text_of(target, tried)
    show(harmless(found))
    return CHECK_FAILED if any(one.fault for one in tried) else PASSED


def text_of(folder: Path, summary: Summary) -> str:
    """The end text with the alert rules of the run's log."""
    start = next(iter(runlog.read(folder)))
    rules = start.rules if isinstance(start, Start) else ()
    return summary_text(summary, rules, str(folder))


@contextmanager
def _signals(run: Any) -> Iterator[list[int]]:
    """The first SIGINT, SIGTERM or SIGHUP (the terminal was closed) stops gently, the second at
    once. Before anything is recorded there is nothing to keep: the run is given up."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if not run.recording:
            sys.exit(128 + number)
        text = f"stopped by {signal.Signals(number).name}"
        if len(caught) == 1:
            say("  stopping: again to end at once")
            run.stop(text)
        else:
            run.kill(text)

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup wants it ignored
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _concluded(
    name: str, summaries: Sequence[Summary], caught: list[int], warn: bool, certain: bool
) -> Conclusion:
    """What is left for CI; why there is no verdict is told on stderr."""
    code = 128 + caught[0] if caught else verdict(summaries, certain)
    if not summaries:
        return not_made(name, "it was ended before anything was measured", "", code)
    found = concluded(summaries, code, warn, certain)
    if found.state == "no verdict":
        say(f"loadbench: {found.title}")
    return found
