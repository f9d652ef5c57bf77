"""How long a batch of each size takes on a model that stands alone: L(b).

What is timed is `Model.run`: from arrays on the host to arrays on the host. Queues and the network
are not in it.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from loadbench.engine import signature
from loadbench.engine.backends import Model
from loadbench.engine.device.seam import Device
from loadbench.model import Value
from loadbench.units import MS

Clock = Callable[[], int]


class Timing(Value, frozen=True):
    """Runs of one batch size. `fastest_ns` is what the machine can do, `median_ns` what it did."""

    rows: int
    runs: int
    fastest_ns: int
    median_ns: int
    slowest_ns: int
    peak: int | None = None  # bytes of the device's memory that a run took, where it tells

    @property
    def rows_per_second(self) -> float:
        return self.rows * 1e9 / self.median_ns


def sizes(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … and the largest itself."""
    powers = [1 << i for i in range(largest.bit_length()) if 1 << i < largest]
    return (*powers, largest)


def parts_of(models: Sequence[Model]) -> dict[str, tuple[int, int]]:
    """Batches and time (ns) of each part of the models that are made of several, by its name."""
    found: dict[str, tuple[int, int]] = {}
    for model in models:
        parts: Mapping[str, Sequence[int]] = getattr(model, "parts", {})
        for name, (batches, ns) in parts.items():
            before = found.get(name, (0, 0))
            found[name] = before[0] + batches, before[1] + ns
    return found


def timed(
    call: Callable[[], object],
    rows: int,
    budget: int = 300 * MS,
    *,
    least: int = 3,
    clock: Clock = time.monotonic_ns,
) -> Timing:
    """Calls for about `budget` ns, at least `least` times after one call that does not count."""
    call()
    found: list[int] = []
    end = clock() + budget
    while len(found) < least or clock() < end:
        begun = clock()
        call()
        found.append(clock() - begun)
    found.sort()
    return Timing(rows, len(found), found[0], found[len(found) // 2], found[-1])


def table(
    model: Model,
    largest: int,
    budget: int = 300 * MS,
    where: Device | None = None,
    rising: Sequence[int] = (),
) -> tuple[Timing, ...]:
    """Timings of every size up to `largest`, or of those given, but for sizes that do not fit into
    memory; the largest first: it sets the device's memory up. `where` tells what they take.

    A model without a batch axis has one row. MemoryError if not even the smallest size fits.
    """
    if model.max_batch is not None:
        largest = min(largest, model.max_batch)
    rows = rising or sizes(largest if model.batched else 1)
    found = []
    for number in reversed(rows):
        if (timing := _sized(model, number, budget, where)) is not None:
            found.append(timing)
        elif number == rows[0]:
            raise MemoryError(f"{model.name}: no memory for a batch of {number}")
    return tuple(reversed(found))


def _sized(model: Model, rows: int, budget: int, where: Device | None) -> Timing | None:
    """One size; None if it does not fit."""
    arrays = signature.inputs_of(model, rows)
    if where is not None:
        where.begin_peak()
    try:
        found = timed(lambda: model.run(arrays), rows, budget)
    except MemoryError:
        return None
    return replace(found, peak=where.peak() if where is not None else None)
