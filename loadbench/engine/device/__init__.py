"""The device a model runs on: which one, what is free on it, how many threads.

Whether there are cards is asked of `torch.cuda` itself for torch's backends, of NVML for others,
which would otherwise have to wait for torch to load. What a device can tell while it serves is
behind `seam.Device`, with CUDA (`cuda`), the CPU and a simulated GPU (`simulated`) on its other
side. The CUDA side has been run against stand-ins for those libraries only.
"""

import os
from collections.abc import Sequence
from typing import Protocol

import psutil

from loadbench import units
from loadbench.engine.device.cards import Nvml
from loadbench.engine.device.seam import Cpu, Device
from loadbench.errors import SpecError
from loadbench.simspec import SimSpec

__all__ = [
    "Cuda", "Nvml", "cards_of", "choose", "number_as_the_driver", "open_device", "require_room",
    "spread", "threads",
]  # fmt: skip


class Cuda(Protocol):
    """What is asked of CUDA; torch.cuda has all of it."""

    def is_available(self) -> bool: ...
    def device_count(self) -> int: ...
    def mem_get_info(self, device: int) -> tuple[int, int]: ...


def cards_of(cuda: Cuda) -> Cuda:
    """Whom to ask about the cards that `cuda` (torch's) may use: the driver, since torch would take
    some hundred MB on each card that it is asked about; torch where these do not see as many."""
    driver = Nvml()
    same = cuda.is_available() and driver.device_count() == cuda.device_count()
    return driver if same else cuda


def number_as_the_driver() -> None:
    """Has CUDA count this process's cards as the driver does, and `nvidia-smi`, unless the user
    wants it otherwise: by itself it counts the fastest first. To be called before CUDA is used."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def choose(asked: str, cuda: Cuda) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` → "cpu" or "cuda:N".

    `auto` and `cuda` take the card with the most free memory; `auto` falls back to the CPU where
    there is no card, anything else that is missing is a SpecError.
    """
    count = cuda.device_count() if cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not count):
        return "cpu"
    if not count:
        raise SpecError(
            f"engine.device = {asked!r}, but no CUDA device can be used here",
            'set engine.device = "cpu" or "auto"; `nvidia-smi` shows what the driver sees',
        )
    if ":" in asked:
        index = int(asked.partition(":")[2])
        if index >= count:
            known = ", ".join(f"cuda:{i}" for i in range(count))
            raise SpecError(f"there is no {asked} on this machine", f"there are: {known}")
        return f"cuda:{index}"
    free = [cuda.mem_get_info(index)[0] for index in range(count)]
    return f"cuda:{free.index(max(free))}"


def open_device(name: str, settings: SimSpec) -> Device:
    """The device that a model said it is on."""
    kind, _, index = name.partition(":")
    if kind == "cuda":
        from loadbench.engine.device.cuda import open_card

        return open_card(int(index))
    if kind == "sim":
        from loadbench.engine.device.simulated import gpu

        return gpu(int(index), settings)
    return Cpu()


def spread(asked: str, first: str, instances: int, cards: Sequence[int]) -> tuple[str, ...]:
    """A device for each instance, when the first one got `first`: those of a list in turn; where
    no card was named all of them in turn, that with the most free memory (`cards`) first."""
    named = asked.split(",")
    kind, _, index = first.partition(":")
    if len(named) == 1 and index and ":" not in asked:
        order = sorted(range(len(cards)), key=lambda card: -cards[card])
        named = [first, *(f"{kind}:{card}" for card in order if card != int(index))]
    elif len(named) == 1:
        named = [first]
    return tuple(named[number % len(named)] for number in range(instances))


def require_room(size: int, what: str) -> None:
    """SpecError if `size` bytes cannot be read into this machine's memory."""
    free = int(psutil.virtual_memory().available)
    if size > free:
        raise SpecError(
            f"{what} needs {units.gigabytes(size)} GB, and {units.gigabytes(free)} GB are free",
            "free some memory, or serve it on a larger machine",
        )


def threads(asked: int | None, instances: int) -> int:
    """Threads for each instance: as asked, else an equal part of all cores but one.

    That one is left to the load and to the server's own loop.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, ((cores or 1) - 1) // instances)
