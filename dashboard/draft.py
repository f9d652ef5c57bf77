"""A run that is being put together: what was chosen and typed, as a command line, and its faults.

Pure but for reading scenario files; the screen shows it, the command's own checks judge it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from loadbench import spec, units
from loadbench.errors import SpecError
from loadbench.overrides import parse_settings
from loadbench.report.shape import rates_text, whole_text
from loadbench.spec import Scenario, Spec


class Field(NamedTuple):
    """A setting that can be typed: an option of the command, or a key of the scenario."""

    id: str
    label: str
    key: str
    local: bool = False  # of an engine that the run starts: no matter of a server that is there


FIELDS = (
    Field("rate", "rate", "--rate"),
    Field("duration", "duration", "--duration"),
    Field("max_batch", "max batch", "engine.max_batch", local=True),
    Field("policy", "policy", "engine.policy", local=True),
    Field("slo", "SLO", "engine.slo", local=True),
    Field("backend", "backend", "engine.backend", local=True),
    Field("device", "device", "engine.device", local=True),
    Field("precision", "precision", "engine.precision", local=True),
    Field("p99", "limit p99", "checks.p99"),
    Field("workers", "workers", "--workers"),
    Field("repeats", "repeats", "--repeats"),
    Field("baseline", "baseline", "--baseline"),
    Field("more", "more", "--set"),
)
_LEADING = {  # what stands for the rate where there is none
    "closed": Field("rate", "in flight", "load.concurrency"),
    "journey": Field("rate", "users", "load.users"),
    "trace": Field("rate", "scale", "load.scale"),
}
_MOST = 1000  # processes, repeats
_PLACE = re.compile(r"^\s*(line \d+)?:?\s*")


def fields(found: Spec | None) -> tuple[Field, ...]:
    """The settings as they are called for a scenario."""
    leading = _LEADING.get(found.load.arrivals) if found else None
    return (leading, *FIELDS[1:]) if leading else FIELDS


@dataclass(frozen=True)
class Draft:
    """`scenario` is a name or a path, `values` what was typed by the fields' ids; an empty target
    is the scenario's own. `out` is given where runs do not land in the usual folder."""

    scenario: str = ""
    target: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    trust: bool = False
    out: str = ""

    def arguments(self, known: tuple[Field, ...], only: str = "") -> list[str]:
        """Of `loadbench run`; those of one field alone if `only` names one."""
        found = [self.scenario]
        if self.target:
            found += ["--target", self.target]
        for one in known:
            text = self.values.get(one.id, "").strip()
            if text and only in ("", one.id):
                found += _argument(one, text)
        found += ["--out", self.out] if self.out else []
        return [*found, "--trust"] if self.trust else found


def _argument(one: Field, text: str) -> list[str]:
    if one.id == "more":
        pairs = (pair.strip() for pair in text.split(";"))
        return [word for pair in pairs if pair for word in ("--set", pair)]
    return [one.key, text] if one.key.startswith("--") else ["--set", f"{one.key}={text}"]


def for_doctor(arguments: list[str]) -> list[str]:
    """The same without what the doctor is not told."""
    for option in ("--workers", "--repeats"):
        if option in arguments:
            at = arguments.index(option)
            arguments = arguments[:at] + arguments[at + 2 :]
    return arguments


@dataclass(frozen=True)
class Checked:
    """A draft read as the command would read it. Without a scenario `faults` say why: by the id of
    the field at fault, or by "" for what is wrong with the whole."""

    scenario: Scenario | None
    fields: tuple[Field, ...]
    present: Mapping[str, str]  # what the scenario itself says, by field
    faults: Mapping[str, str]
    shape: str = ""  # in a line


def check(draft: Draft) -> Checked:
    """Reads the scenario with all that was typed; finds the fields that are at fault."""
    try:
        plain = spec.load(draft.scenario)
    except SpecError as error:
        return Checked(None, FIELDS, {}, {"": sentence(error, draft.scenario)})
    known, said = fields(plain.spec), present(plain.spec)
    try:
        return _whole(_load(draft, known), known, said, draft)
    except SpecError as error:
        whole = sentence(error, draft.scenario)
    faults = {**dict(_at_fault(draft, known)), **dict(_miscounted(draft))}
    return Checked(None, known, said, faults or {"": whole})


def _whole(
    found: Scenario, known: tuple[Field, ...], said: Mapping[str, str], draft: Draft
) -> Checked:
    faults = dict(_miscounted(draft))
    if faults:
        return Checked(None, known, said, faults)
    return Checked(found, known, said, {}, shape_line(found.spec))


def _miscounted(draft: Draft) -> Iterator[tuple[str, str]]:
    """Options of the command that are numbers."""
    for id, what, least in (("workers", "processes", 0), ("repeats", "runs, 1 to 1000", 1)):
        text = draft.values.get(id, "").strip()
        if text and not (text.isdecimal() and least <= int(text) <= _MOST):
            yield id, f"--{id}: {text!r} is not a number of {what}"


def _at_fault(draft: Draft, known: tuple[Field, ...]) -> Iterator[tuple[str, str]]:
    for one in known:
        if draft.values.get(one.id, "").strip():
            try:
                _load(draft, known, one.id)
            except SpecError as error:
                yield one.id, sentence(error, draft.scenario, lines=False)


def _load(draft: Draft, known: tuple[Field, ...], only: str = "") -> Scenario:
    """By the arguments themselves, as the command parses them."""
    words = iter(draft.arguments(known, only)[1:])
    given: dict[str, str] = {}
    settings: list[str] = []
    for word in words:
        if word == "--set":
            settings.append(next(words))
        elif word != "--trust":
            given[word] = next(words)
    overrides = parse_settings(tuple(settings))
    if "--target" in given:
        overrides["target.url"] = given["--target"]
    rate, duration = given.get("--rate"), given.get("--duration")
    return spec.load(draft.scenario, overrides, rate=rate, duration=duration)


def sentence(error: SpecError, scenario: str, lines: bool = True) -> str:
    """The first fault in one line, the file's name left out: it stands beside it. Without `lines`
    for what was typed over the file, where the number of a line would lead astray."""
    found = error.message.split("\n")
    first = next((line for line in found if "unknown key" in line), found[0])  # others follow
    try:
        path = str(spec.find(scenario))
    except SpecError:
        path = scenario
    first = first.removeprefix(path)
    place = _PLACE.match(first)
    line, rest = (place[1], first[place.end() :]) if place else (None, first)
    text = f"{line}: {rest}" if line and lines else rest
    return f"{text}: {error.hint}" if error.hint else text


def present(found: Spec) -> dict[str, str]:
    """What the scenario says by itself, as it would be typed."""
    load, engine = found.load, found.engine
    length = sum(phase.length for phase in load.phases)
    checks = {check.name: check.text for check in found.checks}
    leading = {
        "closed": str(load.concurrency),
        "journey": str(load.users),
        "trace": f"{load.scale:g}",
    }
    return {
        "rate": leading.get(load.arrivals) or _rates(found),
        "duration": units.duration(length) if length else "its own",
        "max_batch": str(engine.max_batch),
        "policy": engine.policy,
        "slo": units.duration(engine.slo) if engine.slo else "none",
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        "p99": checks.get("p99", "none"),
        "workers": "1 process",
        "repeats": "1",
        "baseline": "none",
        "url": found.target.url,
        "more": "such as engine.hold=false; load.seed=8",
    }


def shape_line(found: Spec) -> str:
    """How requests will arrive, how many, how long."""
    try:
        return whole_text(found.load)
    except SpecError as error:  # rates in % beside rates per second have no common axis
        return f"{error.message} before the calibration"


def _rates(found: Spec) -> str:
    try:
        return rates_text(found.load)
    except SpecError:
        return "several"
