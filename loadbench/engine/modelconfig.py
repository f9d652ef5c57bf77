"""What a model's configuration changes about how it is served: Triton's ModelConfig, as JSON.

Of Triton's keys those that say how to batch, how many instances run and which versions are loaded
are followed; what describes the model itself is found out by running it. Our own settings stand in
`parameters`, under the names that they have in a scenario's `[engine]`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loadbench.errors import SpecError
from loadbench.overrides import put
from loadbench.spec import EngineSpec, checked

_OURS = (  # none that names a file or code
    "backend", "buckets", "cache", "default_priority", "device", "gpu_memory", "graphs",
    "hold", "inputs", "instances", "max_batch", "max_request_rows", "max_wait", "on_error",
    "outputs", "packed", "policy", "precision", "preferred", "priorities", "provider", "queue",
    "seed", "slo", "threads",
)  # fmt: skip
_WORDS = ("inputs", "outputs")  # several, parted by blanks


class Versions(NamedTuple):
    """Which of a model's versions are loaded: the newest so many, these, or (neither) all."""

    latest: int | None = 1
    only: tuple[str, ...] = ()

    def of(self, known: Sequence[str]) -> list[str]:
        """The oldest first. Raises SpecError if one is missing."""
        ordered = sorted(known, key=int)
        if self.only:
            for version in self.only:
                if version not in ordered:
                    raise SpecError(f"there is no version {version}, only {', '.join(ordered)}")
            return sorted(self.only, key=int)
        return ordered if self.latest is None else ordered[-self.latest :]


class Configured(NamedTuple):
    """What came of a configuration."""

    settings: EngineSpec
    versions: Versions | None  # None: it does not say


def configured(
    found: Mapping[str, Any], settings: EngineSpec, origin: str, *, trust: bool = False
) -> Configured:
    """The settings with what the configuration says. Raises SpecError; `trust` allows a factory,
    which is code."""
    changes: dict[str, Any] = {}
    most = found.get("max_batch_size")
    if most is not None:
        changes |= {"max_batch": most} if most else {"max_batch": 1, "policy": "none"}
    groups = found.get("instance_group")
    if isinstance(groups, list) and groups:
        counts = [group.get("count", 1) for group in groups if isinstance(group, Mapping)]
        if not all(type(count) is int for count in counts):
            raise SpecError(f"{origin}: instance_group: count is a whole number")
        changes["instances"] = sum(counts)
    changes |= _batching(found.get("dynamic_batching"))
    parameters = found.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise SpecError(f"{origin}: parameters is no object")
    for key, value in parameters.items():
        changes[key] = _parameter(key, value, origin, trust)
    return Configured(changed(settings, changes, origin), _versions(found, origin))


def _batching(found: Any) -> dict[str, Any]:
    """A delay, preferred sizes or queue policies ask for Triton's own way of batching, otherwise
    ours is taken."""
    if not isinstance(found, Mapping):
        return {}
    changes: dict[str, Any] = {}
    if delay := found.get("max_queue_delay_microseconds"):
        changes["max_wait"] = f"{delay} us"
    if preferred := found.get("preferred_batch_size"):
        changes["preferred"] = preferred
    if policy := found.get("default_queue_policy"):
        changes["queue_policy"] = _queue(policy)
    if isinstance(levels := found.get("priority_queue_policy"), Mapping) and levels:
        changes["level"] = {key: _queue(policy) for key, policy in levels.items()}
    if changes:
        changes = {"policy": "fixed", "max_wait": "0 ms", **changes}
    if number := found.get("priority_levels"):
        changes["priorities"] = number
    if number := found.get("default_priority_level"):
        changes["default_priority"] = number
    return changes


def _queue(found: Any) -> Any:
    """Triton's ModelQueuePolicy in our words."""
    if not isinstance(found, Mapping):
        return found
    return {
        "timeout": f"{found.get('default_timeout_microseconds', 0)} us",
        "override": found.get("allow_timeout_override", False),
        "action": str(found.get("timeout_action", "REJECT")).lower(),
        "requests": found.get("max_queue_size", 0),
    }


def _parameter(key: str, value: Any, origin: str, trust: bool) -> Any:
    if isinstance(value, Mapping):  # {"string_value": "bf16"}, as Triton has it
        value = value.get("string_value")
    if key == "factory" and not trust:
        raise SpecError(f"{origin}: a factory is code", "start the engine with --trust")
    if key not in (*_OURS, "factory") and not key.startswith("fake."):
        raise SpecError(f"{origin}: unknown parameter {key!r}", f"known: {', '.join(_OURS)}")
    if not isinstance(value, str | int | float | list):
        raise SpecError(f"{origin}: parameter {key!r} is {value!r}", '{"string_value": "…"}')
    if isinstance(value, str):
        if key in _WORDS:
            return value.split()
        if value.isdecimal():
            return int(value)
    return value


def changed(settings: EngineSpec, changes: Mapping[str, Any], origin: str) -> EngineSpec:
    """All settings are checked together, since some have to agree."""
    raw = settings.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        put(raw, key, value)
    return checked(EngineSpec, raw, origin)


def _versions(found: Mapping[str, Any], origin: str) -> Versions | None:
    policy = found.get("version_policy")
    if policy is None:
        return None
    match policy:
        case {"latest": {"num_versions": int(number)}} if number > 0:
            return Versions(number)
        case {"all": _}:
            return Versions(None)
        case {"specific": {"versions": [*numbers]}} if numbers:
            return Versions(None, tuple(str(number) for number in numbers))
    raise SpecError(
        f"{origin}: version_policy is {policy!r}",
        '{"latest": {"num_versions": 2}}, {"all": {}} or {"specific": {"versions": [1, 3]}}',
    )
