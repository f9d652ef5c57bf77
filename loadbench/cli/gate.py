"""`loadbench run --baseline …`: what the run is held against, and what came of it.

The baseline is opened before anything is run: one that is missing, unfinished, or of other work is
found out in a second rather than after six repeats. What counts as a regression is for
`loadbench.judge`.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from loadbench import baseline, runlog
from loadbench.engine.files import name_of
from loadbench.errors import SpecError
from loadbench.inputfiles import digests, whole_file
from loadbench.judge import differences
from loadbench.judge.comparison import Comparison, Terms, compare, terms_of
from loadbench.judge.gate import Decision, held
from loadbench.judge.metrics import at
from loadbench.judge.side import Side
from loadbench.model import plain
from loadbench.report.sides import side
from loadbench.spec import Scenario, Spec

REPEATS = 6  # made where nothing else is asked for: with fewer than 5 there is no verdict


class Gate(NamedTuple):
    """What the run is to be held against, by whatever it was called."""

    name: str
    terms: Terms
    strict: bool

    def opened(self, scenario: Scenario, results: Path) -> Side:
        """The baseline's side. SpecError if there is none, or it did other work than this will."""
        found = self.found(scenario.name, results)
        first = found.snapshots[0]
        load = scenario.spec.load
        ours = {**first, "spec": scenario.spec.facts()}
        known = None if load.calibrate is None else found.capacity
        if load.calibrate is not None and known is None:
            raise SpecError(
                f"{found.name} does not tell of how many requests per second its rates in % are",
                "make a run of this scenario the baseline: loadbench baseline set RUN",
            )
        ours |= _models(first, scenario.spec)
        ours["files"] = digests(scenario.spec)
        if load.locustfile:
            ours["locustfile"] = whole_file(load.locustfile)
        ours["phases"] = [plain(phase) for phase in load.resolve(known)]
        if other := differences.work(first, ours):
            raise SpecError(
                f"{found.name} did different work: {other[0].key} was {other[0].a!r},"
                f" here it is {other[0].b!r}",
                "make a run of this scenario the baseline: loadbench baseline set RUN",
            )
        return found

    def found(self, scenario: str, results: Path) -> Side:
        """The baseline's side, whole, for a run of that scenario. SpecError if there is none."""
        wanted = scenario if self.name == "baseline" else self.name
        folder = baseline.find(wanted, results)
        if folder is None and self.name == "baseline":
            raise SpecError(
                f"there is no baseline {wanted!r}", "make a run one: loadbench baseline set RUN"
            )
        found = side([folder or runlog.find(wanted, results)])
        compare(found, found, self.terms)  # is it whole?
        return found

    def held(self, against: Side, folder: Path) -> "Held":
        """The run that was made, or the series, against the baseline."""
        found = compare(against, side([folder]), self.terms)
        return Held(found, held(found, self.strict))


def _models(first: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The target as it will be, where both runs are of our own engine: which model a server of
    others has is known when it is asked."""
    target, url = first.get("target"), at(first, ("spec", "target", "url"))
    names = [_model(one) for one in (url, spec.target.url)]
    if not isinstance(target, Mapping) or None in names or names[0] == names[1]:
        return {}
    return {"target": {**target, "model": names[1]}}


def _model(url: object) -> str | None:
    """`local:resnet-tiny`, `local:models/a.onnx` → what the engine calls it; None of others."""
    name = url.removeprefix("local:") if isinstance(url, str) else ""
    if not name or name == url:
        return None
    return name_of(Path(name)) if Path(name).suffix else name


class Held(NamedTuple):
    """How a run stands against its baseline, and what that means for its exit code."""

    comparison: Comparison
    decision: Decision


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all that; the command gets them as `gate`, None where none is given."""

    @click.option(
        "--baseline", metavar="NAME|RUN", help="Exit with 1 if the run is worse than this one."
    )
    @click.option(
        "--gate", "gates", metavar="METRIC[=MARGIN]", multiple=True,
        help="What may not get worse, like p99=5% (the default).",
    )  # fmt: skip
    @click.option(
        "--strict", is_flag=True, help="Pass only where a regression is ruled out; else 4."
    )
    @functools.wraps(command)
    def inner(baseline: str | None, gates: tuple[str, ...], strict: bool, **given: Any) -> Any:
        if baseline is None and (gates or strict):
            raise SpecError("--gate and --strict judge against a baseline", "--baseline NAME|RUN")
        gate = None if baseline is None else Gate(baseline, terms_of(gates), strict)
        return command(**given, gate=gate)

    return inner
