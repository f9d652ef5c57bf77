"""What is not the same in two snapshots: the work done, and the settings it was done by."""

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.environment import kept, left_out
from loadbench.judge.metrics import at
from loadbench.value import Value

# what decides whether two runs did the same work, and what else is worth naming
_LOAD = (
    "spec.load.arrivals", "spec.load.seed", "spec.load.concurrency", "spec.load.cv",
    "spec.load.trace", "spec.load.scale", "spec.load.loop", "spec.request", "phases",
    "spec.load.users", "spec.load.spawn_rate", "spec.load.tags", "spec.load.exclude_tags",
    "spec.load.user_classes", "spec.load.arguments", "locustfile",
    "spec.target.path", "spec.target.method",  # all that plain HTTP says of what is asked
)  # fmt: skip
_WORK = ("target.model", "target.inputs", "target.outputs")
# of a scenario, what no figure comes from, or what stands elsewhere as it turned out; every other
# key of it is a setting, so that a new one cannot be forgotten
_NO_SETTINGS = (
    "title", "checks", "alert", "alerts", "target.owned",
    "target.model",  # target.model of the snapshot
    "target.protocol", "load.phases", "load.locustfile",
)  # fmt: skip
_FOUND = (
    "target.version", "target.file", "target.protocol", "workers.here", "workers.elsewhere",
)  # fmt: skip
_AROUND = (
    "summary.limit_ms", "target.tls", "target.device", "target.precision", "target.policy",
    "target.max_batch", "target.instances", "machine.host", "machine.processor", "machine.cores",
    "machine.usable_cores", "machine.gpus", "machine.driver", "machine.system", "machine.python",
    "machine.packages", "loadbench", "commit",
)  # fmt: skip


class Difference(Value, frozen=True, omit_defaults=False):
    """A setting, version or part of the machine that is not the same on both sides."""

    key: str
    a: Any
    b: Any


def work(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """What makes the figures of two snapshots those of different things."""
    told = all(isinstance(one.get("files"), Mapping) for one in (a, b))  # not by older versions
    return _differences(a, b, (*_LOAD, *(("files",) if told else ()), *_WORK))


def settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """What may be the reason why figures of the same work differ."""
    found = _of_scenarios(a, b)
    first = [one for one in found if one.key.startswith("target.")]
    rest = [one for one in found if one not in first]
    rest += _pauses(a, b)
    return [*first, *_differences(a, b, _FOUND), *rest, *_differences(a, b, _AROUND)]


def _pauses(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Between repeats, where both are of a series: a server of others keeps its state."""
    pauses = a.get("cool_down_s"), b.get("cool_down_s")
    return [] if None in pauses else leaves("cool_down_s", *pauses)


def _of_scenarios(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The settings in which two scenarios differ, each by its key in the file."""
    left, right = (_table(one.get("spec")) for one in (a, b))
    work = tuple(key.removeprefix("spec.") for key in _LOAD)
    found = _leaves_of_tables("", left, right)
    return [
        one for one in found if not any(_within(one.key, key) for key in (*work, *_NO_SETTINGS))
    ]


def _leaves_of_tables(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """As `leaves`. What is not there on one side, as an older version knew no such setting, is the
    same as what is empty on the other."""
    found = []
    for name in dict.fromkeys([*a, *b]):
        left, right = a.get(name), b.get(name)
        if isinstance(left or right, Mapping) and isinstance(right or left, Mapping):
            found += _leaves_of_tables(f"{prefix}{name}.", left or {}, right or {})
        elif (name in a and name in b) or left or right:
            found += leaves(f"{prefix}{name}", left, right)
    return found


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _within(key: str, whole: str) -> bool:
    return key == whole or key.startswith((f"{whole}.", f"{whole}["))


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], keys: Iterable[str]
) -> list[Difference]:
    found = []
    for key in keys:
        left, right = at(a, key.split(".")), at(b, key.split("."))
        found += leaves(key.removeprefix("spec."), left, right)
    return found


def leaves(key: str, a: Any, b: Any) -> list[Difference]:
    """The deepest keys at which two trees differ."""
    if a == b:
        return []
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = dict.fromkeys([*a, *b])
        return [
            found for name in names for found in leaves(f"{key}.{name}", a.get(name), b.get(name))
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [found for n, (x, y) in pairs for found in leaves(f"{key}[{n}]", x, y)]
    left, right = kept(a, key), kept(b, key)  # comments of pull requests have it
    if left == right and any(left_out([a, b], key)):  # an older version kept one: nobody knows
        return []
    return [Difference(key, left, right)]
