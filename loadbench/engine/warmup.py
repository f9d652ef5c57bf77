"""Warm-up: the model runs every batch size that will be planned with before anyone is served.

The largest comes first, so that memory is taken once and not in growing steps, and a batch that
does not fit is found out now. The times go into the batcher's plan.
"""

import time
from collections.abc import Sequence

import numpy as np

from loadbench.engine.backends import Model
from loadbench.engine.datatypes import NUMPY
from loadbench.engine.service import ServiceTimes
from loadbench.engine.tensors import Array
from loadbench.errors import LoadbenchError, RunError
from loadbench.model import Tensor
from loadbench.units import SECOND

REPEATS = 3
BUDGET_NS = 2 * SECOND  # for repeats; a size runs at least twice, unless it takes this long
OPEN_DIMENSION = 16  # of inputs that leave one open


def warm_up(models: Sequence[Model], largest: int, service: ServiceTimes) -> None:
    """Runs every instance at every size of `sizes`; RunError if it cannot run one of them."""
    until = time.monotonic_ns() + BUDGET_NS
    for model in models:
        for rows in sizes(largest) if model.batched else (1,):
            for ns in _times(model, rows, until):
                service.observe(rows, ns)


def _times(model: Model, rows: int, until: int) -> list[int]:
    """How long (ns) a batch of `rows` takes. The first is slower (buffers, tuning) and counts only
    if there is no time for another."""
    arrays = example(model, rows)
    found: list[int] = []
    while len(found) <= REPEATS and (len(found) < 2 or time.monotonic_ns() < until):
        started = time.monotonic_ns()
        _run(model, arrays, rows)
        found.append(time.monotonic_ns() - started)
        if found[0] > BUDGET_NS:
            return found
    return found[1:]


def _run(model: Model, arrays: dict[str, Array], rows: int) -> None:
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


def sizes(largest: int) -> list[int]:
    """The largest, and the powers of two below it, falling."""
    powers = [1 << bits for bits in range(largest.bit_length()) if 1 << bits < largest]
    return [largest, *reversed(powers)]


def example(model: Model, rows: int) -> dict[str, Array]:
    """Inputs of ones in the model's shapes: valid for token ids and images alike."""
    return {tensor.name: _ones(tensor, model.batched, rows) for tensor in model.inputs}


def _ones(tensor: Tensor, batched: bool, rows: int) -> Array:
    inner = tuple(OPEN_DIMENSION if size < 0 else size for size in tensor.shape)
    shape = (rows, *inner) if batched else inner
    if tensor.datatype == "BYTES":
        return np.full(shape, b"1", object)
    if tensor.datatype == "BF16":
        return np.full(shape, 0x3F80, np.uint16)
    return np.ones(shape, NUMPY[tensor.datatype])
