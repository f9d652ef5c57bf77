"""The seam between the batcher and what a model runs on: free memory, a batch's peak, its clock.

Three implementations: `Cpu` here, `cuda.Card` and `simulated.Gpu`. What is concluded from their
readings is the business of `place` and `room`.
"""

import platform
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil


class Memory(NamedTuple):
    """Bytes of a device now. `held` is what this process's allocator has of it, `used` what of that
    is in use; the rest can be had without asking the device."""

    free: int
    total: int
    held: int = 0
    used: int = 0

    @property
    def spare(self) -> int:
        """What this process can have."""
        return self.free + self.held - self.used


class State(NamedTuple):
    """How a device fares: what slows its clock down against its will, the clock in MHz (None: not
    told), and other processes that use it."""

    throttle: tuple[str, ...] = ()
    clock_mhz: int | None = None
    others: tuple[int, ...] = ()


class Device(Protocol):
    """One device. Its calls take up to a few milliseconds, and may come from any thread."""

    name: str  # "cpu", "cuda:0", "sim:0"
    uuid: str  # of a card; "" where there is none

    def title(self) -> str:
        """For people."""
        ...

    def memory(self) -> Memory: ...

    def state(self) -> State: ...

    def begin_peak(self) -> None:
        """From now on the most that is in use counts."""
        ...

    def peak(self) -> int | None:
        """The most (bytes) that was in use since, beyond what was when it began; None where the
        device cannot tell."""
        ...


class Cpu:
    """The host. It does not tell what a batch takes, and a card's clock it has not."""

    name = "cpu"
    uuid = ""

    def title(self) -> str:
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:  # not Linux
            return platform.processor() or platform.machine()
        return platform.processor() or platform.machine()

    def memory(self) -> Memory:
        found = psutil.virtual_memory()
        return Memory(int(found.available), int(found.total))

    def state(self) -> State:
        return State()

    def begin_peak(self) -> None:
        pass

    def peak(self) -> int | None:
        return None
