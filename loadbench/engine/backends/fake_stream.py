"""The fake model's launcher: batches on a simulated GPU that works by itself.

The card takes one batch after the other; when each begins and ends follows from when it was
launched. Nobody runs them: waiting for one means to sleep until its end.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays
from loadbench.engine.device.simulated import Gpu
from loadbench.units import SECOND


class SimulatedStream:
    """A Launcher (see backends) of `x` [rows, width], FP32. `took` says how long (ns) a batch of so
    many rows takes the card; `depth` batches may be on their way."""

    def __init__(
        self,
        card: Gpu,
        took: Callable[[int], int],
        depth: int,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self._card = card
        self._took = took
        self._depth = depth
        self._flying: list[SimulatedFlight] = []
        self._ends = 0  # of all that was launched
        self._memory = ExitStack()

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> "SimulatedFlight | None":
        if len(self._flying) >= self._depth:
            return None
        x = np.empty(shapes["x"], np.float32)
        fill({"x": x})
        # One after the other: the memory of a batch can be had for the one behind it
        self._memory.close()
        largest = max([len(x), *(flight.rows for flight in self._flying)])
        self._memory.enter_context(self._card.batch(largest))
        begins, took = max(self.clock(), self._ends), self._took(len(x))
        gap = begins - self._ends if self._ends else 0
        self._ends = begins + took
        flight = SimulatedFlight(self, x, (took, gap, self._ends))
        self._flying.append(flight)
        return flight

    def landed(self, flight: "SimulatedFlight") -> None:
        self._flying.remove(flight)
        if not self._flying:
            self._memory.close()


class SimulatedFlight:
    """A Flight (see backends)."""

    def __init__(
        self, stream: SimulatedStream, x: NDArray[Any], times: tuple[int, int, int]
    ) -> None:
        self._stream = stream
        self._x = x
        self.rows = len(x)
        self.compute_ns, self.gap_ns, self._ends = times

    def done(self) -> bool:
        return self._stream.clock() >= self._ends

    def wait(self) -> dict[str, NDArray[Any]]:
        while (left := self._ends - self._stream.clock()) > 0:
            self._stream.sleep(left / SECOND)
        self._stream.landed(self)
        return {"y": self._x}
