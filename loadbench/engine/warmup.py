"""Warm-up: the model runs every batch size that will be planned with before anyone is served.

The largest comes first, so that memory is taken once and not in growing steps, and a batch that
does not fit is found out now. The times go into the batcher's plan.
"""

import time
from collections.abc import Sequence

from loadbench.engine.backends import Arrays, Model
from loadbench.engine.measure import sizes
from loadbench.engine.service import ServiceTimes
from loadbench.engine.signature import inputs_of
from loadbench.errors import LoadbenchError, RunError
from loadbench.units import SECOND

REPEATS = 3
BUDGET_NS = 2 * SECOND  # for repeats; a size runs at least twice, unless it takes this long


def warm_up(
    models: Sequence[Model], largest: int, service: ServiceTimes, *, disturbed: bool = False
) -> dict[int, int]:
    """Runs every instance at every size of `sizes`; RunError if it cannot run one of them. Returns
    the median times (ns) by rows; with `disturbed`, where other work takes the processor away, the
    shortest ones, and they alone go into the plan."""
    until = time.monotonic_ns() + BUDGET_NS
    found: dict[int, list[int]] = {}
    for model in models:
        for rows in reversed(sizes(largest if model.batched else 1)):
            times = _times(model, rows, until)
            for ns in [min(times)] if disturbed else times:
                service.observe(rows, ns)
                found.setdefault(rows, []).append(ns)
    return {rows: sorted(times)[(len(times) - 1) // 2] for rows, times in sorted(found.items())}


def _times(model: Model, rows: int, until: int) -> list[int]:
    """How long (ns) a batch of `rows` takes. The first is slower (buffers, tuning) and counts only
    if there is no time for another."""
    arrays = inputs_of(model, rows)
    found: list[int] = []
    while len(found) <= REPEATS and (len(found) < 2 or time.monotonic_ns() < until):
        started = time.monotonic_ns()
        _run(model, arrays, rows)
        found.append(time.monotonic_ns() - started)
        if found[0] > BUDGET_NS:
            return found
    return found[1:]


def _run(model: Model, arrays: Arrays, rows: int) -> None:
    try:
        model.run(arrays)
    except LoadbenchError:
        raise
    except MemoryError as error:
        raise RunError(
            f"{model.name}: no memory for a batch of {rows}: {error}", "lower engine.max_batch"
        ) from error
    except Exception as error:
        raise RunError(
            f"{model.name} fails on a batch of {rows}: {type(error).__name__}: {error}",
            "loadbench doctor MODEL tells more",
        ) from error
