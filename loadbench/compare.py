"""Two runs side by side: what differs between them first, then the figures.

n counts runs, not requests: requests of one run are not independent of each other, so one run a
side never gives a verdict, however many requests it has. It gives numbers, and says so.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.errors import SpecError
from loadbench.model import Note, Value

VERDICT = "inconclusive (1 run each)"

# name, unit, where it stands in a summary
_METRICS = (
    ("throughput", "/s", ("rate", "done")),
    ("p50", "ms", ("latency_ms", "p50")),
    ("p95", "ms", ("latency_ms", "p95")),
    ("p99", "ms", ("latency_ms", "p99")),
    ("p99.9", "ms", ("latency_ms", "p99_9")),
    ("on time", "%", ("on_time",)),
    ("queue", "ms", ("server", "queue_ms", "mean")),
    ("batch wait", "ms", ("server", "batch_wait_ms", "mean")),
    ("compute", "ms", ("server", "compute_ms", "mean")),
    ("per batch", "", ("server", "batch", "mean")),
    ("CPU", "%", ("machine", "cpu")),
    ("lateness p99", "ms", ("lateness_ms", "p99")),
)
# what decides whether two runs did the same work, and what else is worth naming
_LOAD = (
    "spec.load.arrivals", "spec.load.seed", "spec.load.concurrency", "spec.load.cv",
    "spec.load.trace", "spec.load.scale", "spec.load.loop", "spec.request", "phases",
    "spec.load.users", "spec.load.spawn_rate", "spec.load.tags", "spec.load.exclude_tags",
    "spec.load.user_classes", "spec.load.arguments", "locustfile",
)  # fmt: skip
_WORK = ("target.model", "target.inputs", "target.outputs")
_SETTINGS = (
    "workers.here", "workers.elsewhere", "spec.engine", "spec.target.timeout",
    "spec.target.connect_timeout", "spec.target.connections", "target.tls", "target.device",
    "target.precision", "target.policy", "target.max_batch", "machine.processor", "machine.cores",
    "machine.usable_cores", "machine.gpus", "machine.driver", "machine.system", "machine.python",
    "machine.packages", "loadbench", "commit",
)  # fmt: skip


class Row(Value, frozen=True, omit_defaults=False):
    """One metric: both values, the change from A to B as a share of A (none for
    what is a share itself), the verdict, n a side. `beyond` has the limit (ms) that a percentile
    lies above which has no number because it falls among the requests not answered well."""

    metric: str
    unit: str
    a: float | None
    b: float | None
    delta: float | None
    verdict: str
    n: tuple[int, int]
    beyond: tuple[float | None, float | None] = (None, None)


class Difference(Value, frozen=True, omit_defaults=False):
    """A setting, version or part of the machine that is not the same on both sides."""

    key: str
    a: Any
    b: Any


class Comparison(Value, frozen=True, omit_defaults=False):
    """What `loadbench compare` shows."""

    a: str
    b: str
    comparable: bool
    differences: tuple[Difference, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compares two snapshots (run.json). Raises SpecError if one has no whole summary."""
    for side in (a, b):
        if not side.get("summary"):
            name = side.get("run", "?")
            raise SpecError(
                f"{name} has no summary: it was not finished",
                f"loadbench show {name} reads what there is",
            )
    try:
        return _compared(a, b)
    except (KeyError, TypeError, AttributeError) as error:  # what a foreign file may lack or hold
        runs = " or ".join(dict.fromkeys(str(side.get("run", "?")) for side in (a, b)))
        raise SpecError(
            f"the summary of {runs} is damaged: {error!r}", "loadbench show RUN reads the log"
        ) from error


def _compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    work = [*_differences(a, b, _LOAD), *_differences(a, b, _WORK)]
    differences = (*work, *_differences(a, b, _SETTINGS))
    return Comparison(
        a=str(a["run"]),
        b=str(b["run"]),
        comparable=not work,
        differences=differences,
        rows=tuple(_rows(a["summary"], b["summary"])),
        notes=tuple(_notes(a, b, work)),
    )


def _at(tree: Any, path: Iterable[str]) -> Any:
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], keys: Iterable[str]
) -> list[Difference]:
    found = []
    for key in keys:
        left, right = _at(a, key.split(".")), _at(b, key.split("."))
        found += _leaves(key.removeprefix("spec."), left, right)
    return found


def _leaves(key: str, a: Any, b: Any) -> list[Difference]:
    """The deepest keys at which two trees differ."""
    if a == b:
        return []
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = dict.fromkeys([*a, *b])
        return [
            found for name in names for found in _leaves(f"{key}.{name}", a.get(name), b.get(name))
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [found for n, (x, y) in pairs for found in _leaves(f"{key}[{n}]", x, y)]
    return [Difference(key, a, b)]


def _rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterable[Row]:
    for name, unit, path in _METRICS:
        left, right = _at(a, path), _at(b, path)
        if left is None and right is None and path[0] != "latency_ms":
            continue
        delta = (right - left) / left if left and right is not None and unit != "%" else None
        known = path[0] != "latency_ms"
        beyond = (None if known else _beyond(a, left), None if known else _beyond(b, right))
        yield Row(name, unit, left, right, delta, VERDICT, (1, 1), beyond)
    yield Row("failed", "%", _failed(a), _failed(b), None, VERDICT, (1, 1))


def _beyond(summary: Mapping[str, Any], value: float | None) -> float | None:
    return summary.get("limit_ms") if value is None and summary["asked"] else None


def _failed(summary: Mapping[str, Any]) -> float | None:
    asked = summary["asked"]
    return 1 - summary["done"] / asked if asked else None


def _notes(a: Mapping[str, Any], b: Mapping[str, Any], work: list[Difference]) -> Iterable[Note]:
    if work:
        names = ", ".join(dict.fromkeys(re.split(r"[.\[]", found.key)[0] for found in work))
        text = f"the two runs did different work ({names}): these deltas are not comparable"
        yield Note("different-work", text, "run the same scenario against both")
    text = "one run a side: how much these figures move by themselves is not known"
    yield Note("single-runs", text, "run each side several times before believing a difference")
    for side in (a, b):
        trust = side["summary"].get("trust")
        if trust != "trusted":
            yield Note(
                "trust", f"{side['run']} is {trust}", f"loadbench show {side['run']} says why"
            )
        if side["summary"].get("reason") != "done":
            yield Note("incomplete", f"{side['run']} did not run to its end", "")
