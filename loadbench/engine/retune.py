"""Changing how a version's requests are brought together, while it serves them.

All on the event loop's thread and at once: a request is served by the old settings or by the new
ones. What was warmed up stays as it is, so that no batch may be larger than it was then.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from loadbench.engine.assembly import QUEUE_BYTES, batching, queue_rows
from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.modelconfig import changed
from loadbench.engine.rule import Rule
from loadbench.engine.tensors import Refused
from loadbench.spec import EngineSpec
from loadbench.standing import Settings

KEYS = ("max_batch", "policy", "slo", "max_wait", "hold")
_ORIGIN = "engine"


class Retuned(NamedTuple):
    """What came of it; `settings` are all of the version's."""

    settings: EngineSpec
    before: Settings
    after: Settings


def retune(endpoint: Endpoint, settings: EngineSpec, asked: Mapping[str, Any]) -> Retuned:
    """Has a version go on by other settings. Raises Refused and SpecError, and then nothing has
    changed."""
    if unknown := [key for key in asked if key not in KEYS]:
        text = f"{unknown[0]!r} cannot be changed while the engine serves"
        raise Refused(400, f"{text}: {', '.join(KEYS)} can")
    if not asked:
        raise Refused(400, f"nothing is asked for: give some of {', '.join(KEYS)}")
    if not endpoint.signature.batched:
        raise Refused(400, f"{endpoint.signature.model} runs one request at a time, always")
    wanted = changed(settings, {key: _value(key, value) for key, value in asked.items()}, _ORIGIN)
    rule, batcher = batching(endpoint.model, wanted), endpoint.batcher
    _check(asked, wanted, rule, batcher)
    before, table = batcher.settings, batcher.places[0].service
    # a request that was small enough to be taken once must still find room
    waiting = max(queue_rows(wanted, rule, table), endpoint.signature.max_rows)
    terms = Terms(rule, waiting, QUEUE_BYTES, wanted.slo, batcher.places)
    if before.texts == terms.settings().texts:
        raise Refused(400, f"nothing would change: {_told(before, asked)}")
    endpoint.change(terms, time.monotonic_ns())
    return Retuned(wanted, before, batcher.settings)


def _value(key: str, value: Any) -> Any:
    """As the settings take it: programs send numbers, people write words."""
    if key == "slo" and value in ("none", ""):
        return None
    if key == "max_batch" and isinstance(value, bool):
        raise Refused(400, "max_batch is a number of rows")
    if isinstance(value, str | int | float) or (value is None and key == "slo"):
        return value
    raise Refused(400, f"{key} is {value!r}, no number and no text")


def _check(asked: Mapping[str, Any], wanted: EngineSpec, rule: Rule, batcher: Batcher) -> None:
    """Refuses what cannot be had, and what would count for nothing."""
    warmed = min(len(place.service.table) for place in batcher.places) - 1
    most = wanted.max_batch
    if "max_batch" in asked and most > warmed:
        raise Refused(
            400,
            f"max_batch = {most}: batches of up to {warmed} were warmed up; start the engine with "
            f"engine.max_batch = {most}",
        )
    if "max_batch" in asked and rule.max_batch > most:
        raise Refused(400, f"max_batch = {most}: no batch of this model is below {rule.max_batch}")
    if "max_wait" in asked and rule.policy != "fixed":
        raise Refused(400, f'max_wait counts for nothing under policy = "{rule.policy}", but only '
                           'under "fixed"')  # fmt: skip
    if "hold" in asked and rule.policy not in ("deadline", "failfast"):
        raise Refused(400, f'hold counts for nothing under policy = "{rule.policy}", but only '
                           'under "deadline" and "failfast"')  # fmt: skip


def _told(found: Settings, asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} is {text}" for key, text in found.texts.items() if key in asked)
