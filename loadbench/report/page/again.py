"""Everything needed to get the same run again: command, scenario, versions, machine, where the log
lies. What looks like a secret is left out: reports are passed on."""

import shlex
from typing import Any

import tomlkit

from loadbench.environment import kept, typed
from loadbench.errors import LoadbenchError
from loadbench.report.markup import Markup, joined, tag
from loadbench.report.page.material import Material
from loadbench.report.page.sections import section
from loadbench.report.page.timeline import cards_of
from loadbench.spec import check
from loadbench.units import gigabytes

_LONGEST = 40_000  # characters of a scenario
_CODED = ("trace", "locustfile")  # settings that name files: to check them would read these


def again(material: Material, of: str = "") -> Markup:
    """The list, and the scenario as it was run; `of` one run of several."""
    snapshot = material.snapshot
    facts = [(name, value) for name, value in _facts(material) if value]
    scenario = scenario_text(snapshot.get("spec"))
    return section(
        f"{of} To repeat it".strip(),
        tag("dl", [joined(tag("dt", name), tag("dd", value)) for name, value in facts]),
        tag("h3", "Scenario, with all that was set by hand", class_="apart") if scenario else None,
        tag("pre", scenario, tabindex=0) if scenario else None,
        name=None if of else "again",
    )


def _facts(material: Material) -> list[tuple[str, str | Markup]]:
    snapshot, start = material.snapshot, material.start
    machine = _mapping(snapshot.get("machine"))
    target = _mapping(snapshot.get("target"))
    packages = ", ".join(
        f"{k} {v}" for k, v in _mapping(machine.get("packages")).items() if k != "loadbench"
    )
    command = snapshot.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    settings = ", ".join(
        f"{key} {target[key]}"
        for key in ("protocol", "precision", "policy", "max_batch", "instances", "version")
        if target.get(key) not in (None, "")
    )
    return [
        ("Command", tag("code", command_text(words)) if words else ""),
        ("Scenario", str(snapshot.get("scenario_file") or start.scenario)),
        ("Target", ", ".join(filter(None, [start.target, start.device, settings]))),
        ("Commit", str(snapshot.get("commit") or "none: not in a git repository")),
        ("Versions", f"loadbench {snapshot.get('loadbench', '?')}, python"
         f" {machine.get('python', '?')}, {packages}".rstrip(", ")),
        ("Machine", _machine(machine)),
        ("Cards", _cards(material, machine)),
        ("Clocks", f"second 0 was due at {start.wall_time}; times are of the monotonic clock"),
        ("Log", tag("code", str((material.folder / "log.ndjson").absolute()))),
    ]  # fmt: skip


def _machine(machine: dict[str, Any]) -> str:
    memory = machine.get("memory")
    cores = machine.get("usable_cores") or machine.get("cores")
    return ", ".join(
        str(part)
        for part in (
            machine.get("host"),
            machine.get("processor"),
            f"{cores} cores" if cores else None,
            f"{gigabytes(memory)} GB memory" if isinstance(memory, int) else None,
            machine.get("system"),
        )
        if part
    )


def _cards(material: Material, machine: dict[str, Any]) -> str:
    gpus = machine.get("gpus")
    names = ", ".join(map(str, gpus)) if isinstance(gpus, list) else ""
    if not names:
        return "none" if machine else ""
    driver = f", driver {machine['driver']}" if machine.get("driver") else ""
    serving = cards_of(material.total.whole.machine, material.start)
    clocks = ", ".join(f"{card.sm_clock_mhz} MHz" for card in serving if card.sm_clock_mhz)
    clock = f", {clocks} at the end" if clocks else ""
    return f"{names}{driver}{clock}"


def command_text(words: list[str]) -> str:
    """As it is typed into a shell, without what looks like a secret."""
    return shlex.join(typed(words))


def scenario_text(spec: Any) -> str:
    """The scenario as TOML, without what is the default anyway; "" where there is none."""
    if not isinstance(spec, dict):
        return ""
    text = tomlkit.dumps(_told(kept(_short(spec))))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n# … cut here"


def _short(spec: dict[str, Any]) -> dict[str, Any]:
    load = _mapping(spec.get("load"))
    if any(load.get(name) for name in _CODED):
        return spec
    try:
        found = check(spec, "run.json")
    except LoadbenchError:
        return spec  # of another version
    return found.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _told(value: Any) -> Any:
    """Without what TOML has no word for."""
    if isinstance(value, dict):
        parts = {key: _told(part) for key, part in value.items() if part is not None}
        return {key: part for key, part in parts.items() if part not in ({}, [])}
    if isinstance(value, list):
        return [_told(part) for part in value if part is not None]
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
