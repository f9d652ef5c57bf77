"""Settings that somebody made and that nothing heeds: said once, so that nobody waits for them.

What contradicts itself is refused when the settings are read (`spec`); these are sound by
themselves, and only another one, or the model, leaves them without a use.
"""

from collections.abc import Iterator

from loadbench.engine.backends import Model
from loadbench.model import Note
from loadbench.spec import EngineSpec

_HOLDING = ("deadline", "failfast")


def unused(settings: EngineSpec, model: Model) -> tuple[Note, ...]:
    """A note for each setting without a use, of those that were made and not left as they are."""
    return tuple(
        Note("no-effect", f"engine.{key} has no effect {why}", "leave it out")
        for key, why in (*_of_the_policy(settings), *_of_the_model(settings, model))
        if key in settings.model_fields_set
    )


def _of_the_policy(settings: EngineSpec) -> Iterator[tuple[str, str]]:
    """Those that another policy heeds, with the reason."""
    under = f'with policy = "{settings.policy}"'
    if settings.policy != "fixed":
        yield "max_wait", f'{under}: it is for "fixed"'
        yield "preferred", f'{under}: it is for "fixed"'
        for key, tables in (
            ("queue_policy", [settings.queue_policy]), ("level", settings.level.values())
        ):  # fmt: skip
            if any(table.model_fields_set - {"requests"} for table in tables):
                yield key, f'{under}, but for its requests: it is for "fixed"'
    if settings.hold and settings.policy not in _HOLDING:
        yield "hold", f"{under}: it is for {' and '.join(_HOLDING)}"


def _of_the_model(settings: EngineSpec, model: Model) -> Iterator[tuple[str, str]]:
    """Those that another model would heed, or another device, with the reason."""
    if settings.buckets and not model.batched:
        yield "buckets", "on a model that runs one request at a time"
    elif above := [size for size in settings.buckets if size > settings.max_batch]:
        yield "buckets", f"with {min(above)} and more: max_batch is {settings.max_batch}"
    if model.platform not in ("fake", "ensemble"):  # a stage may be the fake one
        yield "fake", "on any model but the one named fake"
    if not model.device.startswith("sim") and model.platform != "ensemble":
        yield "sim", f'on {model.device}: it is for device = "sim"'
