"""The two sides of an A/B: what is asked of both, and what may differ between them."""

import copy
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadbench.environment import shown
from loadbench.errors import SpecError
from loadbench.judge.differences import leaves
from loadbench.runner.children import environment
from loadbench.shape import Phase
from loadbench.spec import Scenario, Spec, check

_WORK = ("load", "request")  # the same for both: what is compared is who answers
_ASK = "import json, loadbench; print(json.dumps([loadbench.__version__, loadbench.__file__]))"
_PACED = ("constant", "poisson", "gamma")


@dataclass(frozen=True, slots=True)
class Side:
    """A scenario, and the interpreter of another build that its engine is started with."""

    scenario: Scenario
    python: str = ""
    build: str = ""  # the version and the place of that build

    @property
    def facts(self) -> dict[str, str]:
        url = str(shown("url", self.scenario.spec.target.url))
        name = f"{self.scenario.name} ({url}{f', {self.build}' if self.build else ''})"
        found = {"name": name, "scenario": self.scenario.name, "file": self.scenario.file}
        return found | {"url": url, "python": self.python, "build": self.build}


def side(scenario: Scenario, python: str) -> Side:
    """Raises SpecError for an interpreter that cannot be had, or has no loadbench."""
    if not python:
        return Side(scenario)
    if not scenario.spec.target.url.startswith("local:"):
        raise SpecError(
            f"{python}: {scenario.spec.target.url} is not started by loadbench",
            "another interpreter is for targets like local:MODEL",
        )
    path = os.path.abspath(python)
    try:
        done = subprocess.run(
            [path, "-P", "-c", _ASK],
            capture_output=True, text=True, timeout=60, check=False, env=environment(path),
        )  # fmt: skip
        version, place = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        hint = "the python of a virtual environment that the other build is installed in"
        raise SpecError(f"{python} cannot start a loadbench: {_reason(error)}", hint) from error
    return Side(scenario, path, f"loadbench {version} in {os.path.dirname(place)}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it has none" if isinstance(error, ValueError) else "it does not answer"


def one_rate(a: Scenario, b: Scenario) -> float:
    """The rate of both. Raises SpecError where they are not asked the same, or not at one rate."""
    for table in _WORK:
        left, right = (_dump(found.spec)[table] for found in (a, b))
        keys = [found.key for found in leaves(table, left, right)]
        if keys:
            raise SpecError(
                f"A and B are asked different things: {', '.join(keys[:5])}",
                "an A/B compares who answers: give both the same [load] and [[request]]",
            )
    load = a.spec.load
    if load.arrivals not in _PACED:
        raise SpecError(
            f"arrivals = {load.arrivals!r} has no rate to be given in turns",
            f"an A/B takes {', '.join(_PACED)}: --set load.arrivals=poisson --rate 100",
        )
    if load.calibrate is not None:
        raise SpecError(
            "rates in % are of what each target can do: A and B would be asked different things",
            "leave load.calibrate out and give a rate: --rate 100",
        )
    phases = load.resolve()
    rates = {rate for phase in phases for rate in (phase.start, phase.end)}
    if len(rates) > 1:
        raise SpecError(f"the rate of {a.name} changes, and blocks hold one", "--rate 100")
    rate = rates.pop()
    if rate <= 0:
        raise SpecError("nothing is asked at a rate of 0", "--rate 100")
    return rate


def held(scenario: Scenario, phases: Sequence[Phase]) -> Scenario:
    """The scenario with these phases instead of its own. Warm-up is among them."""
    raw = copy.deepcopy(scenario.raw)
    shape = [{"rate": phase.start, "for": f"{phase.length_ns} ns"} for phase in phases]
    raw["load"] |= {"warmup": "0s", "phases": shape}
    return scenario._replace(raw=raw, spec=check(raw, scenario.file))


def differences(a: Side, b: Side) -> list[list[Any]]:
    """[key, of A, of B] of each setting that is not the same, and of the builds."""
    left, right = _dump(a.scenario.spec), _dump(b.scenario.spec)
    found = [one for key in left for one in leaves(key, left[key], right[key])]
    build = [["build", a.build or "this one", b.build or "this one"]]
    return [[one.key, one.a, one.b] for one in found] + (build if a.build != b.build else [])


def _dump(spec: Spec) -> dict[str, Any]:
    """To be compared, not kept: the differences are without secrets, by themselves."""
    found: dict[str, Any] = spec.model_dump(mode="json")
    found.pop("title")
    return found
