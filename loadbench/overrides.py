"""Changes to a scenario from the command line: `--set key=value`, `--rate`, `--duration`. They are
made on the raw TOML before it is checked, so they meet the same errors as the file.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from loadbench import units
from loadbench.errors import SpecError


def parse_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`("engine.max_batch=8", …)` → {"engine.max_batch": 8}; values are TOML, else plain text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise SpecError(f"--set {pair!r} is not key=value", "--set engine.max_batch=8")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text.strip()
    return found


def put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key in nested tables."""
    *tables, last = key.split(".")
    for name in tables:
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise SpecError(f"{key!r}: {name!r} is not a table")
    raw[last] = value


def reshape(
    raw: dict[str, Any], lengths: Sequence[int], rate: str | None, duration: str | None
) -> None:
    """The phases of a raw scenario at one rate, or stretched to a length.

    `lengths` are the checked lengths of its phases in ns.
    """
    planned = sum(lengths)
    if rate and raw["load"].get("arrivals") == "journey":
        raise SpecError("a journey has users, no rate", "--set load.users=50")
    if rate and raw["load"].get("arrivals") == "trace":
        raise SpecError("a trace brings its own rate", "--set load.scale=2 doubles it")
    length = units.parse_duration(duration) if duration else planned
    if duration and length < units.MS:
        raise SpecError(f"a duration of {duration!r} is none", 'write it like "20s" or "1m30s"')
    if rate:
        phases = [{"rate": rate, "for": f"{length} ns"}]
    elif not lengths:  # a trace says itself how long it is, and so may a Locust file
        phases = [{"for": f"{length} ns"}]
    else:
        phases = [_stretched(phase, length, planned) for phase in raw["load"]["phases"]]
    raw["load"]["phases"] = phases


def _stretched(phase: dict[str, Any], length: int, planned: int) -> dict[str, Any]:
    """A phase of a shape that shall take `length` instead of `planned`."""
    found: dict[str, Any] = {
        key: f"{max(1, units.parse_duration(phase[key]) * length // planned)} ns"
        for key in ("for", "sine", "sawtooth")
        if key in phase
    }
    return {**phase, **found}


def heeded(overrides: Mapping[str, Any], url: str) -> None:
    """SpecError for settings of an engine at a target that loadbench does not start: nobody would
    heed them, and what is told of them would not be so."""
    own = [key for key in overrides if key.startswith("engine.")]
    if own and "://" in url:
        raise SpecError(
            f"{own[0]} is of an engine that loadbench starts, and {url} is a server of others",
            "leave it out, or take a target like local:MODEL",
        )
