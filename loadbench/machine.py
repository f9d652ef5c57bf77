"""What a window tells of the machine: its processor, its memory, its cards, our own processes.

Who reads it is `probe`, on cards also `engine.device`.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from loadbench.value import Value

# NVML's bits of nvmlDeviceGetCurrentClocksEventReasons that slow the clock down against its will.
# Idle (0x1), application clocks (0x2) and sync boost (0x10) are choices, no throttling.
THROTTLE = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


class Gpu(Value, frozen=True):
    """NVML's readings of one card; None where the card, the driver or a container hides it."""

    index: int
    name: str
    uuid: str = ""
    utilization: float | None = None  # share of time with a kernel running
    memory_used: int | None = None
    memory_total: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    processes: tuple[tuple[int, int | None], ...] = ()  # (pid, bytes) of others than our engine
    part: str = ""  # of a card that is shared out (MIG): which of its instances this is

    @property
    def title(self) -> str:
        """`0`; `0 MIG 7` of a part. No two cards of a machine have the same."""
        return f"{self.index} MIG {self.part}" if self.part else str(self.index)

    @property
    def filled(self) -> float | None:
        """Share of its memory that is used."""
        known = self.memory_used is not None and self.memory_total
        return self.memory_used / self.memory_total if known else None  # type: ignore[operator]


def highest(cards: Iterable[Gpu], look: Callable[[Gpu], float | None]) -> Gpu | None:
    """The card of which this is the highest; None if it is known of none."""
    known = [(value, card) for card in cards if (value := look(card)) is not None]
    return max(known, key=lambda found: found[0])[1] if known else None


def fullest(cards: Sequence[Gpu]) -> Gpu | None:
    """The card of which the largest share is used; by bytes where none says how large it is."""
    return highest(cards, lambda card: card.filled) or highest(cards, lambda card: card.memory_used)


def card_number(device: str) -> int | None:
    """1 of `cuda:1`; None of what is no card."""
    match = re.fullmatch(r"(?:cuda|gpu):?(\d{0,4}).*", device)
    return int(match[1] or 0) if match else None


class Process(Value, frozen=True):
    """One of our own processes: CPU seconds per second (1.0 is one core), resident bytes, and for
    how many seconds a second its threads together could have run and had no core."""

    cpu: float | None
    memory: int | None
    waited: float | None = None


class Machine(Value, frozen=True):
    """The machine during a window."""

    cpu: float | None = None  # share of all cores
    memory_used: int | None = None
    memory_total: int | None = None
    gpus: tuple[Gpu, ...] = ()
    processes: dict[str, Process] = {}  # "engine", "load", "runner"
    told: bool = False  # the target told of the cards: they are its own, not this machine's

    def serving(self, number: int | None) -> tuple[Gpu, ...]:
        """The card of this number. Of those that a target told of all: any may serve the model."""
        return self.gpus if self.told else tuple(one for one in self.gpus if one.index == number)

    def on(self, device: str) -> tuple[Gpu, ...]:
        """Those that serve, by the device that a run's start names; the first if none has its
        number."""
        number = card_number(device)
        return self.serving(number) or (self.gpus[:1] if number is not None else ())
