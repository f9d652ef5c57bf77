"""What is not the same in two snapshots: the work done, and the settings it was done by."""

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.environment import shown
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
_SETTINGS = (
    "spec.target.url", "spec.target.replicas", "spec.target.weights", "target.version",
    "target.protocol", "workers.here", "workers.elsewhere", "spec.engine", "spec.target.timeout",
    "spec.target.connect_timeout", "spec.target.connections", "spec.load.warmup",
    "summary.limit_ms", "target.tls", "target.device", "target.precision", "target.policy",
    "target.max_batch", "machine.host", "machine.processor", "machine.cores",
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
    return _differences(a, b, _SETTINGS)


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
    return [Difference(key, shown(key, a), shown(key, b))]  # comments of pull requests have it
