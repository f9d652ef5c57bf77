"""What a window tells of the machine: its processor, its memory, its cards, our own processes.

Who reads it is `probe`, on cards also `engine.device`.
"""

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
