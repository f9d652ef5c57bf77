"""The figures of a snapshot, by their kinds: what all who show or compare them rely on.

A text for a time, or a time below nothing or beyond all, is no figure. Whoever took it for one
would show it, or call it larger than any: a snapshot that has such is damaged, for a list as for a
comparison.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from loadbench.errors import SpecError
from loadbench.machine import Gpu
from loadbench.model import Note, Trust
from loadbench.printable import harmless
from loadbench.summary import CheckResult
from loadbench.units import BEYOND

Amount = Annotated[float, msgspec.Meta(ge=0, le=BEYOND)]


class _Machine(msgspec.Struct):
    gpus: tuple[Gpu, ...] = ()


class Figures(msgspec.Struct):
    """Of a summary, or of the repeats of a series as one. Latencies in ms, rates per second."""

    seconds: float | None = None
    asked: Amount = 0  # the middle of two counts may be a half
    done: Amount = 0
    limit_ms: Amount | None = None
    rate: dict[str, Amount | None] = {}
    latency_ms: dict[str, Amount | None] = {}
    bands_ms: dict[str, tuple[float, float | None]] = {}
    no_bands: dict[str, dict[str, str]] = {}
    checks: tuple[CheckResult, ...] = ()
    trust: Trust | None = None
    text: str = ""
    notes: tuple[Note, ...] = ()
    lateness_ms: dict[str, float | None] = {}
    server: dict[str, Any] | None = None
    machine: _Machine | None = None
    tokens: dict[str, Any] | None = None


class _Snapshot(msgspec.Struct):
    summary: Figures | None = None
    overall: Figures | None = None  # of a series


def check(snapshot: Mapping[str, Any], of: str) -> None:
    """SpecError, which begins with `of`, if the snapshot is damaged."""
    try:
        msgspec.convert(snapshot, _Snapshot)
    except (msgspec.ValidationError, ValueError) as error:
        raise SpecError(f"{of}: {words(error)}", "loadbench list shows which are whole") from error


def words(error: Exception) -> str:
    """What is said of a run.json that cannot be what it is to be."""
    return f"run.json is damaged: {harmless(str(error))}"
