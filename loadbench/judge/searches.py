"""Searches of one scenario at several settings: what is asked for, how far each has come, and
which settings no other beats.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from loadbench.environment import kept
from loadbench.errors import SpecError
from loadbench.judge.search import Found, Limit, Terms, ended
from loadbench.judge.stage import Seen
from loadbench.model import Value, decode
from loadbench.overrides import parse_settings

_MOST = 256  # settings


class Setting(Value, frozen=True, omit_defaults=False):
    """`over` are the keys of the scenario in which it differs from the others. `runs` are the
    folders of its runs: one, and another for each time that it was resumed."""

    over: dict[str, Any] = {}
    runs: tuple[str, ...] = ()
    start: float | None = None
    seen: tuple[Seen, ...] = ()
    spent_s: float = 0.0
    found: Found | None = None

    @property
    def name(self) -> str:
        """`max_batch 16, policy fixed`."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.over.items())


class Hunt(Value, frozen=True, omit_defaults=False):
    """All of it, as it stands in the snapshot."""

    terms: Terms
    settings: tuple[Setting, ...]
    overrides: dict[str, Any] = {}  # of the scenario, for all settings

    def result(self, setting: Setting, why: Limit = "stopped") -> Found:
        """Of a setting; of one that has not ended what is known so far, and `why` no more."""
        terms = msgspec.structs.replace(self.terms, start=setting.start or self.terms.start)
        return setting.found or ended(terms, setting.seen, setting.spent_s, why)


def parse_over(texts: Sequence[str]) -> list[dict[str, Any]]:
    """`("engine.max_batch=8,16", "engine.policy=fixed,deadline")` → all four combinations, the last
    key changing first. SpecError where a text is no such list."""
    keys: dict[str, list[Any]] = {}
    for text in texts:
        key, sign, values = text.partition("=")
        parts = [part.strip() for part in values.split(",")]
        if not sign or not key.strip() or not all(parts):
            example = "--over engine.max_batch=8,16,32"
            raise SpecError(f"--over {text!r} is not key=value,value", example)
        if key.strip() in keys:
            raise SpecError(f"--over has {key.strip()!r} twice", "name all of its values in one")
        found = [parse_settings((f"v={part}",))["v"] for part in parts]
        if len({str(value) for value in found}) < len(found):
            raise SpecError(f"--over {text!r} names a value twice", "each is searched once")
        if kept(found, key.strip()) != found:  # the names of the settings are told everywhere
            raise SpecError(f"--over {key.strip()}: values that look secret", "name them: $A,$B")
        keys[key.strip()] = found
    combined = [dict(zip(keys, values, strict=True)) for values in product(*keys.values())]
    if len(combined) > _MOST:
        raise SpecError(f"--over makes {len(combined)} settings", f"{_MOST} at most")
    return combined


def read_hunt(snapshot: Mapping[str, Any]) -> Hunt:
    """What a find's snapshot holds. SpecError if it is damaged, or none."""
    try:
        return decode(Hunt, msgspec.json.encode(snapshot["find"]))
    except (KeyError, msgspec.MsgspecError, ValueError) as error:
        name = snapshot.get("run", "this run")
        raise SpecError(f"{name}: its search cannot be read: {error}") from error


class Standing(Value, frozen=True):
    """What settings are weighed by at the rate that they hold."""

    name: str
    rate: float
    p50_ms: float
    front: bool  # no other has a higher rate and a lower latency


def front(hunt: Hunt) -> Iterator[Standing]:
    """The Pareto front of rate and median latency, over all settings with a confirmed result."""
    found = list(_standings(hunt))
    for name, rate, p50 in found:
        beaten = any(
            other >= rate and less <= p50 and (other > rate or less < p50)
            for _, other, less in found
        )
        yield Standing(name, rate, p50, not beaten)


def _standings(hunt: Hunt) -> Iterator[tuple[str, float, float]]:
    for setting in hunt.settings:
        result = hunt.result(setting)
        at = [s for s in setting.seen if s.rate == result.rate and s.holds]
        p50 = at[-1].latency_ms.get("p50") if at else None
        if result.confirmed and result.rate is not None and p50 is not None:
            yield setting.name, result.rate, p50
