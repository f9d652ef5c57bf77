"""A GPU that is not there: memory that runs out, another process that takes some, a clock that is
throttled. For tests, and for people who have no card; only the fake model runs on it.

How long a batch takes at the full clock is the fake model's business.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from loadbench.engine.device.seam import Memory, State
from loadbench.errors import SpecError
from loadbench.simspec import SimSpec

FULL_CLOCK_MHZ = 1980
OTHER = 4_194_304  # the pid of the other process: one more than a pid can be


class Gpu:
    """One simulated card, as the settings have it. Safe to share among threads."""

    def __init__(
        self, index: int, settings: SimSpec, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.name = f"sim:{index}"
        self.uuid = f"SIM-{index}"
        self.depth = settings.depth
        self._settings = settings
        self._clock = clock
        self._begun = clock()
        self._lock = threading.Lock()
        self._random = random.Random(settings.seed + index)
        self._used = self._peak = self._before = 0
        self._allowed = settings.memory
        self._measuring = False

    def title(self) -> str:
        return "simulated GPU"

    def memory(self) -> Memory:
        with self._lock:
            return Memory(self._free(), self._settings.memory, self._used, self._used)

    def state(self) -> State:
        throttled = self.slowdown() > 1
        return State(
            ("thermal (simulated)",) if throttled else (),
            round(FULL_CLOCK_MHZ / self.slowdown()),
            (OTHER,) if self._taken() else (),
        )

    def begin_peak(self) -> None:
        with self._lock:
            self._before = self._peak = self._used
            self._measuring = True

    def peak(self) -> int | None:
        self._measuring = False
        return self._peak - self._before

    def slowdown(self) -> float:
        """How many times longer everything takes now."""
        phase = self._settings.throttle_phase()
        return phase[0] if phase and self._within(phase[1], phase[2]) else 1.0

    def limit(self, share: float) -> None:
        """This process may take so much of the memory and no more."""
        self._allowed = round(share * self._settings.memory)

    @property
    def weights(self) -> int:
        """Bytes of each model's weights."""
        return self._settings.weights

    def load(self) -> None:
        """Takes the memory of a model's weights. MemoryError if there is not so much."""
        self._take(self._settings.weights)

    def unload(self) -> None:
        """The weights of a model are gone."""
        with self._lock:
            self._used -= self._settings.weights

    @contextmanager
    def batch(self, rows: int) -> Iterator[None]:
        """A batch runs inside. MemoryError if it finds no room, or as chance has it, which spares
        the warm-up."""
        size = self._settings.batch + self._settings.row * rows
        chance = 0.0 if self._measuring else self._settings.oom
        if chance and self._random.random() < chance:
            raise MemoryError(f"{self.name} has no room for this batch (drawn)")
        self._take(size)
        try:
            yield
        finally:
            with self._lock:
                self._used -= size

    def _take(self, size: int) -> None:
        with self._lock:
            if size > self._free():
                raise MemoryError(f"{self.name} has no room for this batch")
            self._used += size
            self._peak = max(self._peak, self._used)

    def _free(self) -> int:
        there = self._settings.memory - self._used - self._taken()
        return max(0, min(there, self._allowed - self._used))

    def _taken(self) -> int:
        """Bytes that the other process has now."""
        phase = self._settings.other_phase()
        return round(phase[0]) if phase and self._within(phase[1], phase[2]) else 0

    def _within(self, length: int, period: int) -> bool:
        """In the first `length` ns of a period; the first period is free of it."""
        passed = self._clock() - self._begun
        return passed >= period and passed % period < length


@cache
def gpu(index: int, settings: SimSpec) -> Gpu:
    """The same card for everybody who asks for it: it stands for a thing that is there once."""
    return Gpu(index, settings)


def choose(asked: str, settings: SimSpec) -> str:
    """`sim` or `sim:N` → "sim:N": without a number that with the most free memory."""
    if ":" not in asked:
        free = [gpu(index, settings).memory().free for index in range(settings.cards)]
        return f"sim:{free.index(max(free))}"
    if int(asked.partition(":")[2]) >= settings.cards:
        known = ", ".join(f"sim:{i}" for i in range(settings.cards))
        raise SpecError(f"there is no {asked}", f"there are: {known}; see engine.sim.cards")
    return asked
