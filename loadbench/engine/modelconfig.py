"""What a model's configuration changes about how it is served: Triton's ModelConfig, as JSON.

Of Triton's keys those that say how to batch, how many instances run and which versions are loaded
are followed; what describes the model itself is found out by running it. Our own settings stand in
`parameters`, under the names that they have in a scenario's `[engine]`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loadbench.errors import SpecError
from loadbench.spec import EngineSpec, checked

_OURS = (
    "backend", "device", "instances", "max_batch", "max_wait", "policy", "precision", "preferred",
    "queue", "seed", "slo", "threads", "inputs", "outputs",
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
    return Configured(_changed(settings, changes, origin), _versions(found, origin))


def _batching(found: Any) -> dict[str, Any]:
    """A delay or preferred sizes ask for Triton's own way of batching, otherwise ours is taken."""
    if not isinstance(found, Mapping):
        return {}
    delay, preferred = (
        found.get("max_queue_delay_microseconds", 0),
        found.get("preferred_batch_size", []),
    )
    changes: dict[str, Any] = {}
    if levels := found.get("priority_levels"):
        changes["priorities"] = levels
        if default := found.get("default_priority_level"):
            changes["default_priority"] = default
    waiting = {"queue_policy": found.get("default_queue_policy")}
    by_level = found.get("priority_queue_policy", {})
    if isinstance(by_level, Mapping):
        waiting |= {f"level.{number}": policy for number, policy in by_level.items()}
    for key, policy in waiting.items():
        if isinstance(policy, Mapping):
            changes[key] = _queueing(policy)
    if not delay and not preferred and not any(waiting.values()):
        return changes
    waited = f"{delay} us" if isinstance(delay, int) else delay
    return changes | {"policy": "fixed", "max_wait": waited, "preferred": preferred}


def _queueing(found: Mapping[str, Any]) -> dict[str, Any]:
    """Triton's ModelQueuePolicy in our words."""
    timeout = found.get("default_timeout_microseconds", 0)
    return {
        "timeout": f"{timeout} us" if isinstance(timeout, int) else timeout,
        "override": found.get("allow_timeout_override", False),
        "action": str(found.get("timeout_action", "reject")).lower(),
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


def _changed(settings: EngineSpec, changes: Mapping[str, Any], origin: str) -> EngineSpec:
    raw: dict[str, Any] = {}
    for key, value in changes.items():
        table, _, name = key.rpartition(".")
        (raw.setdefault(table, {}) if table else raw)[name] = value
    found = checked(EngineSpec, raw, origin)
    update: dict[str, Any] = {key: getattr(found, key) for key in raw if key != "fake"}
    if "fake" in raw:
        update["fake"] = settings.fake.model_copy(
            update={key: getattr(found.fake, key) for key in raw["fake"]}
        )
    return settings.model_copy(update=update)


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
