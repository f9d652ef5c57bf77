"""`loadbench doctor`: is this machine fit to measure; with a model: check it and time it."""

import json
from pathlib import Path
from typing import Any

import click

from loadbench import runlog, spec
from loadbench.cli.say import show
from loadbench.errors import SpecError
from loadbench.model import plain
from loadbench.overrides import parse_settings
from loadbench.ready import Finding
from loadbench.spec import Scenario
from loadbench.units import SECOND, parse_duration


@click.command()
@click.argument("what", metavar="[MODEL|SCENARIO]", required=False)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Any key of the scenario; of a model a setting of the engine: engine.max_batch=8",
)  # fmt: skip
@click.option("--target", metavar="URL", help="Of a scenario, as the next three.")
@click.option("--rate", metavar="RATE", help='Same rate throughout, like 300 or "80 %".')
@click.option("--baseline", metavar="NAME|RUN", help="Can the run be held against this one?")
@click.option("--out", metavar="DIR", help="Where the run would land; default: results.")
@click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE:DIMS",
              help="For files that do not say: x:FP32:-1,256")  # fmt: skip
@click.option("--output", "outputs", multiple=True, metavar="NAME:DTYPE:DIMS",
              help="Names the outputs, in order.")  # fmt: skip
@click.option("--factory", metavar="MODULE:FUNCTION", help="Makes the model that a file's weights "
              "belong to.")  # fmt: skip
@click.option("--trust", is_flag=True, help="Run code that comes with the model's file.")
@click.option("--load", "offer", is_flag=True, help="What load this machine can offer, and how "
              "punctually (15 s).")  # fmt: skip
@click.option("--duration", metavar="TIME", help="Length of the recorded load; with --load that "
              "of each of its six parts, default: 2s.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
def command(
    what: str | None,
    settings: tuple[str, ...],
    trust: bool,
    offer: bool,
    duration: str | None,
    target: str | None,
    rate: str | None,
    baseline: str | None,
    out: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Look over this machine, or a scenario on it, or a model.

    MODEL is a name of the zoo (mlp, resnet-tiny, encoder) or a file. It is loaded, its outputs are
    looked through for NaN, and every batch size up to engine.max_batch is timed. With --load: how
    many requests a second the load generator reaches here, and with what lateness. Exit code 1: a
    finding stands in the way (✗).
    """
    if offer:
        if what is not None:
            raise click.UsageError(f"--load looks at this machine alone, not at {what}")
        return _offer(duration or "2s", as_json)
    if what is None or _is_scenario(what):
        chosen = None
        if what is not None:
            overrides = parse_settings(settings) | ({"target.url": target} if target else {})
            chosen = spec.load(what, overrides, rate=rate, duration=duration)
        held = _held_against(baseline, chosen, runlog.results_folder(out))
        return _machine(chosen, runlog.results_folder(out), trust, held, as_json)
    if target or rate or duration or baseline or out:
        raise click.UsageError(
            f"{what} is no scenario: --target, --rate, --baseline and --duration are of one"
        )
    from loadbench.cli.serve import engine_settings
    from loadbench.engine import doctor

    checked = engine_settings(settings, {key: value for key, value in given.items() if value})
    report = doctor.examine(what, checked, trust=trust)
    if as_json:
        show(json.dumps({**plain(report), "passed": report.passed}, ensure_ascii=False))
    else:
        show(doctor.text_of(report))
    return 0 if report.passed else 1


def _is_scenario(what: str) -> bool:
    """Whether it is not a model: a TOML file may also be a pipeline of them."""
    from loadbench.engine.pipeline import is_pipeline

    if what in spec.shipped() or what.endswith(".py"):
        return True
    return what.endswith(".toml") and not is_pipeline(Path(what))


def _offer(duration: str, as_json: bool) -> int:
    from loadbench.runner import offer

    seconds = max(1, round(parse_duration(duration) / SECOND))
    found = offer.measure(lambda text: click.echo(text, err=True), seconds)
    if as_json:
        within = {f"{bound:g}_ms": found.within(bound) for bound in offer.BOUNDS_MS}
        show(json.dumps({**plain(found), "lateness_within": within}, ensure_ascii=False))
    else:
        show(offer.text_of(found))
    return 0 if found.within(offer.BOUNDS_MS[-1]) else 1


def _held_against(name: str | None, chosen: Scenario | None, results: Path) -> list[Finding]:
    """Whether there is such a baseline, and it did the work that this scenario would."""
    if name is None:
        return []
    if chosen is None:
        raise click.UsageError("--baseline is of a SCENARIO")
    from loadbench.cli.gate import Gate
    from loadbench.judge.comparison import terms_of
    from loadbench.judge.shift import FEWEST

    try:
        found = Gate(name, terms_of(()), strict=False).opened(chosen, results)
    except SpecError as error:
        return [Finding("✗", "baseline", f"{error.message}: {error.hint}".rstrip(": "))]
    made = len(found.snapshots)
    some = "" if made >= FEWEST else f": {made} repeat{'s' if made > 1 else ''} give no verdict"
    return [Finding("▲" if some else "✓", "baseline", f"baseline {found.name}{some}")]


def _machine(
    chosen: Scenario | None, results: Path, trust: bool, more: list[Finding], as_json: bool
) -> int:
    from loadbench import ready
    from loadbench.engine import found

    findings = ready.check(chosen, results, trust) + more
    url = chosen.spec.target.url if chosen else ""
    if url.startswith("local:"):
        fault = found.fault(url.removeprefix("local:"))
        text = fault or f"{url} is there"
        findings.insert(0, Finding("✗" if fault else "✓", "model", text))
    if as_json:
        told = {
            "findings": plain(findings),
            "models": plain(found.models(Path())),
            "backends": found.backends(),
            "devices": found.devices(),
        }
        show(json.dumps(told, ensure_ascii=False))
    else:
        for finding in findings:
            show(f"{finding.sign} {finding.text}")
    return 1 if any(finding.sign == "✗" for finding in findings) else 0
