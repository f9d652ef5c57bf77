"""`loadbench find SCENARIO`: the highest arrival rate at which the target holds its limit."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from msgspec.structs import replace

from loadbench import runlog, spec
from loadbench.bounds import require_rate
from loadbench.cli.run import _signals as signals
from loadbench.cli.say import say, show
from loadbench.environment import kept, left_out
from loadbench.errors import SpecError
from loadbench.judge.search import LEAST_S, Terms
from loadbench.judge.searches import Hunt, Setting, parse_over, read_hunt
from loadbench.judge.stage import Claim, claim
from loadbench.overrides import heeded, parse_settings
from loadbench.report.find import find_facts, find_text
from loadbench.units import SECOND, parse_duration, parse_rate, parse_share

_OPTIONS = {"most": "max"}  # as they are typed, where that is another word
_ANEW = ("as_json", "trust", "settings")  # may be given to a search that goes on; not all settings
FOUND, NOWHERE, NOT_MADE, NO_VERDICT = 0, 1, 3, 4


@click.command()
@click.argument("scenario", required=False)
@click.option("--slo", metavar="CONDITION", help='Like "p99 < 100 ms"; default: the first check.')
@click.option("--over", metavar="KEY=A,B,…", multiple=True, help="Several settings; repeatable.")
@click.option("--start", metavar="RATE", help="Where to begin; default: half of what batches do.")
@click.option("--max", "most", metavar="RATE", help="Try no higher rate.")
@click.option("--stage", default="60s", metavar="TIME", help="A full stage; default: 60s.")
@click.option("--settle", default="2s", metavar="TIME", help="After a change of rate; default: 2s.")
@click.option("--budget", default="15m", metavar="TIME", help="For each setting; default: 15m.")
@click.option("--precision", default="2 %", metavar="SHARE", help="That will do; default: 2 %.")
@click.option("--resume", metavar="RUN", help="Go on with a find that was broken off.")
@click.option("--target", metavar="URL", help="http(s):// or grpc(s)://host:port, or local:MODEL")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any scenario key.")
@click.option("--name", help="Name of the folder; default: find and the scenario.")
@click.option("--out", metavar="DIR", help="Where runs land; default: results.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option("--trust", is_flag=True, help="Allow scenarios and model files that run code.")
def command(scenario: str | None, out: str | None, resume: str | None, **given: Any) -> int:
    """The highest rate at which SCENARIO's target holds a limit.

    One run is led from rate to rate in an open loop: up until the limit does not hold, near the
    crossing until its place is known, and at last a full stage at the rate that is told. What
    failed, was refused or never sent counts as over the limit.

    Exit codes: 0 confirmed, 1 no rate holds it (at any setting), 2 bad input, 3 the run could not
    be made, 4 not confirmed within the budget, or the generator was the limit, 129/130/143 stopped
    by a signal.
    """
    from loadbench.experiments.find import Finder, searchable
    from loadbench.runner import Options

    results = runlog.results_folder(out)
    folder = None
    if resume is not None:
        if scenario is not None:
            raise SpecError("--resume knows its scenario", f"loadbench find --resume {resume}")
        _as_begun(given)
        folder = runlog.find(resume, results)
        hunt, scenario = _known(folder, parse_settings(given["settings"]))
    elif scenario is None:
        target = f" --target {shlex.quote(given['target'])}" if given["target"] else ""
        whole = f"loadbench find steady{target} --slo 'p99 < 100 ms'"
        raise SpecError("find needs a scenario", whole)
    else:
        hunt = _asked(scenario, given)
    scenarios = [_scenario(scenario, hunt, setting) for setting in hunt.settings]
    for each, setting in zip(scenarios, hunt.settings, strict=True):
        heeded(setting.over, each.spec.target.url)
        for option, rate in (("--start", hunt.terms.start), ("--max", hunt.terms.most)):
            require_rate(each.spec.target, rate or 0.0, option)
        searchable(each, hunt.terms.start)
    options = Options(
        results=results,
        name=given["name"] or "",
        command=("loadbench", *sys.argv[1:]),
        trust=given["trust"],
    )
    finder = Finder(hunt, scenarios, options, lambda text: say(f"  {text}"), folder)
    say(f"find {finder.folder}")
    with signals(finder) as caught:
        hunt = finder.execute()
    if finder.folder.exists():
        facts = json.dumps(find_facts(finder.folder), ensure_ascii=False)
        show(facts if given["as_json"] else find_text(finder.folder))
    return 128 + caught[0] if caught else _exit_code(hunt, finder.failed)


def _as_begun(given: dict[str, Any]) -> None:
    """SpecError for options that a search has from its beginning: they would not be heeded."""
    typed = click.get_current_context().get_parameter_source
    names = [name for name in given if typed(name) is ParameterSource.COMMANDLINE]
    wrong = [_OPTIONS.get(name, name) for name in names if name not in _ANEW]
    if wrong:
        raise _as_it_was(" and --".join(sorted(wrong)))


def _as_it_was(wrong: str) -> SpecError:
    return SpecError(
        f"--resume goes on as it was begun, without --{wrong}",
        "leave that out, or begin a new find",
    )


def _with_secrets(hunt: Hunt, folder: Path, given: dict[str, Any]) -> Hunt:
    """With the settings that were not kept, being secret, as they are given again: all of these,
    and no others."""
    lacking = dict.fromkeys(left_out(hunt.overrides))
    for key in given:
        if key not in lacking:
            raise _as_it_was(f"set {key}")
    if left := [key for key in lacking if key not in given]:
        again = " ".join(f"--set {key}=…" for key in left)
        raise SpecError(
            f"{folder.name} was begun with {' and '.join(left)}, which looks like a secret and was"
            " not kept",
            f"give it again: loadbench find --resume {folder.name} {again}",
        )
    return replace(hunt, overrides={**hunt.overrides, **given})


def _known(folder: Path, given: dict[str, Any]) -> tuple[Hunt, str]:
    """The hunt of a find that was broken off, and its scenario."""
    snapshot = runlog.read_snapshot(folder)
    if snapshot.get("kind") != runlog.FIND:
        raise SpecError(f"{folder.name} is no find", "loadbench list shows what is there")
    if runlog.state(snapshot) == "running":
        raise SpecError(f"{folder.name} goes on: it cannot be resumed", "loadbench tui shows it")
    hunt = read_hunt(snapshot)
    if all(setting.found for setting in hunt.settings):
        raise SpecError(f"{folder.name} was not broken off", f"loadbench show {folder}")
    hunt = _with_secrets(hunt, folder, given)
    file = str(snapshot.get("scenario_file"))
    now = spec.load(file, {**hunt.overrides, **hunt.settings[0].over})
    if now.spec.facts() != kept(snapshot.get("spec")):
        raise SpecError(f"{file} has changed since {folder.name}", "begin a new find")
    return hunt, file


def _asked(scenario: str, given: dict[str, Any]) -> Hunt:
    overrides: dict[str, Any] = parse_settings(given["settings"])
    if given["target"]:
        overrides["target.url"] = given["target"]
    wanted = _claim(scenario, overrides, given["slo"])
    limit = wanted.text.partition(" ")
    overrides["checks"] = {limit[0]: limit[2]}
    start = parse_rate(given["start"]) if given["start"] else None
    most = parse_rate(given["most"]) if given["most"] else None
    if start == 0 or most == 0:
        raise SpecError("a rate to search from or to is above 0", "leave --start and --max out")
    precision = parse_share(given["precision"])
    if not 0.002 <= precision <= 0.5:
        raise SpecError("--precision is in 0.2 % … 50 %", 'write it like "2 %"')
    terms = Terms(
        claim=wanted,
        start=start,
        most=most,
        stage_s=_seconds("--stage", given["stage"], LEAST_S),
        settle_s=_seconds("--settle", given["settle"], 1),
        budget_s=_seconds("--budget", given["budget"], LEAST_S + 1),
        precision=precision,
    )
    if terms.budget_s < terms.stage_s + terms.settle_s:
        raise SpecError("--budget leaves no room for one --stage", "give more, or shorter stages")
    settings = tuple(Setting(over=over) for over in parse_over(given["over"]))
    return Hunt(terms, settings, overrides)


def _claim(scenario: str, overrides: dict[str, Any], slo: str | None) -> Claim:
    """What is to hold: as it was said, else the scenario's first check that can be searched for."""
    if slo is None:
        for check in spec.load(scenario, overrides).spec.checks:
            try:
                return claim(check)
            except SpecError:
                continue
        raise SpecError(f"{scenario} has no check to search for", '--slo "p99 < 100 ms"')
    for sign in ("<=", "<", ">"):
        name, found, limit = slo.partition(sign)
        if found:
            return _typed(slo, name.strip(), f"{found} {limit.strip()}")
    raise SpecError(f"--slo {slo!r} is no condition", 'write it like "p99 < 100 ms"')


def _typed(slo: str, name: str, limit: str) -> Claim:
    """What --slo says. It is read apart from the scenario: no line of that file is at fault."""
    try:
        (check,) = spec.checks_of({name.replace("p99.9", "p99_9"): limit})
        return claim(check)
    except SpecError as error:
        raise SpecError(f"--slo {slo!r}: {error.message}", error.hint) from error


def _seconds(name: str, text: str, least: int) -> int:
    found = round(parse_duration(text) / SECOND)
    if not least <= found <= 86_400:
        raise SpecError(f"{name} {text}: from {least} s to a day", f"{name} {least}s")
    return found


def _scenario(scenario: str, hunt: Hunt, setting: Setting) -> spec.Scenario:
    return spec.load(scenario, {**hunt.overrides, **setting.over})


def _exit_code(hunt: Hunt, failed: bool) -> int:
    if failed:
        return NOT_MADE
    found = [hunt.result(setting) for setting in hunt.settings]
    if not all(one.verdict for one in found):
        say("loadbench: no verdict: see above what was the limit")
        return NO_VERDICT
    return NOWHERE if all(one.rate is None for one in found) else FOUND
