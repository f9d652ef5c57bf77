"""The machine's readings: NVML for every GPU, psutil for the host and our own processes.

What is absent is None or missing, never 0: a machine without a driver has no GPUs, a container may
hide power or temperature of one. Whoever shows or judges readings lives elsewhere.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from loadbench.model import THROTTLE, Gpu, Machine, Note, Process

_THREADS = 256  # of a process that are looked at

NO_GPU = Note(
    "no-gpu",
    "no GPU (NVML library not found): ran on CPU",
    "do not compare with runs on a GPU",
)


class Nvml:
    """The cards of this machine. `library` is pynvml, or None where it cannot be initialised."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._cards: list[tuple[int, Any]] = []
        if library is not None:
            count = library.nvmlDeviceGetCount()
            self._cards = [(n, library.nvmlDeviceGetHandleByIndex(n)) for n in range(count)]

    @classmethod
    def open(cls) -> "Nvml":
        """NVML of this machine; without cards when there is no driver."""
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return cls(None)
        return cls(pynvml)

    def driver(self) -> str | None:
        return self._ask("nvmlSystemGetDriverVersion") if self._library else None

    def read(self, own: frozenset[int] = frozenset()) -> tuple[Gpu, ...]:
        """All cards now. `own` are process ids that are ours, so not named as others."""
        return tuple(self._card(index, handle, own) for index, handle in self._cards)

    def numbered(self, device: str, uuid: str) -> str:
        """The device by the number that its card has here, which tells by its UUID: in a process
        that sees only some of the cards (CUDA_VISIBLE_DEVICES) it has another one."""
        for index, handle in self._cards:
            if uuid and _text(self._ask("nvmlDeviceGetUUID", handle)) == uuid:
                return f"{device.partition(':')[0]}:{index}"
        return device

    def _ask(self, function: str, *arguments: Any) -> Any:
        """One reading, or None where the card, the driver or a container does not give it."""
        try:
            return getattr(self._library, function)(*arguments)
        except (self._library.NVMLError, AttributeError):
            return None

    def _card(self, index: int, handle: Any, own: frozenset[int]) -> Gpu:
        library = self._library
        busy = self._ask("nvmlDeviceGetUtilizationRates", handle)
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:  # drivers before 535 know it by its former name
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or []
        return Gpu(
            index=index,
            name=_text(self._ask("nvmlDeviceGetName", handle)) or f"GPU {index}",
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
            utilization=None if busy is None else busy.gpu / 100,
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            power_w=None if power is None else power / 1000,
            temperature_c=self._ask(
                "nvmlDeviceGetTemperature", handle, library.NVML_TEMPERATURE_GPU
            ),
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
            throttle=tuple(name for bit, name in THROTTLE.items() if (reasons or 0) & bit),
            processes=tuple(
                (process.pid, process.usedGpuMemory)
                for process in processes
                if process.pid not in own
            ),
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


class Probe:
    """Reads the machine once a second. `processes` are ours by role: their children count in, but
    for those that have a role themselves."""

    def __init__(self, nvml: Nvml, processes: Callable[[], dict[str, int]]) -> None:
        self._nvml = nvml
        self._processes = processes
        self._known: dict[int, psutil.Process] = {}
        self._measured: set[int] = set()
        self._waits: dict[int, tuple[int, int]] = {}  # when, and how long it had waited until then
        psutil.cpu_percent(None)  # the first call only sets the mark that the next measures from

    def read(self) -> Machine:
        memory = psutil.virtual_memory()
        roles = self._processes()
        families = {role: self._family(pid, {*roles.values()}) for role, pid in roles.items()}
        own = frozenset(member.pid for family in families.values() for member in family)
        return Machine(
            cpu=psutil.cpu_percent(None) / 100,
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            gpus=self._nvml.read(own),
            processes={role: self._process(family) for role, family in families.items()},
        )

    def _family(self, pid: int, roles: set[int]) -> list[psutil.Process]:
        try:
            first = self._remember(pid)
            return [first, *(
                self._remember(child.pid) for child in first.children(recursive=True)
                if child.pid not in roles
            )]  # fmt: skip
        except psutil.Error:
            return []

    def _remember(self, pid: int) -> psutil.Process:
        """The same object each second: psutil measures CPU between two calls on one object."""
        if pid not in self._known:
            self._known[pid] = psutil.Process(pid)
        return self._known[pid]

    def _process(self, family: list[psutil.Process]) -> Process:
        cpu = _sum(self._cpu, family)
        memory = _sum(lambda member: member.memory_info().rss, family)
        waited = _sum(self._waited, family)
        return Process(cpu=cpu, memory=None if memory is None else int(memory), waited=waited)

    def _cpu(self, member: psutil.Process) -> float | None:
        """None the first time: there is nothing yet to measure from."""
        first = member.pid not in self._measured
        self._measured.add(member.pid)
        share: float = member.cpu_percent(None) / 100
        return None if first else share

    def _waited(self, member: psutil.Process) -> float | None:
        """Seconds a second; None the first time, and where the kernel does not tell."""
        now, total = time.monotonic_ns(), _run_delay(member.pid)
        before = self._waits.get(member.pid)
        if total is None:
            return None
        self._waits[member.pid] = (now, total)
        if before is None or now <= before[0]:
            return None
        return max(0, total - before[1]) / (now - before[0])  # threads that end take theirs along


def _run_delay(pid: int) -> int | None:
    """For how long (ns) the threads of a process could have run and had no core; None: not told."""
    found = []
    try:
        for task in islice(Path(f"/proc/{pid}/task").iterdir(), _THREADS):
            with suppress(OSError):  # it has just ended
                found.append(int((task / "schedstat").read_bytes().split()[1]))
    except (OSError, ValueError, IndexError):
        return None
    return sum(found) if found else None


def _sum(
    read: Callable[[psutil.Process], float | None], family: list[psutil.Process]
) -> float | None:
    """Over all members that still live and say something; None when none does."""
    found = []
    for member in family:
        try:
            found.append(read(member))
        except psutil.Error:
            continue
    known = [value for value in found if value is not None]
    return sum(known) if known else None


def versions(nvml: Nvml) -> dict[str, Any]:
    """What a result must name to be comparable: machine, processor, cards, versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("loadbench", "torch", "onnxruntime-gpu", "onnxruntime", "locust", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory": psutil.virtual_memory().total,
        "gpus": [card.name for card in nvml.read()],
        "driver": nvml.driver(),
        "python": platform.python_version(),
        "packages": found,
    }


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: platform knows a little
    return platform.processor() or platform.machine()
