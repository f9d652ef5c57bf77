"""The device a model runs on: which one, what is free on it, how many threads.

The CPU and CUDA stand behind one seam, `Cuda`: `torch.cuda` itself for torch's backends, NVML for
ONNX Runtime, which would otherwise have to wait for torch to load. The CUDA side has been run
against stand-ins for that seam only.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil
import pynvml

from loadbench import units
from loadbench.errors import SpecError


class Cuda(Protocol):
    """What is asked of CUDA; torch.cuda has all of it."""

    def is_available(self) -> bool: ...
    def device_count(self) -> int: ...
    def mem_get_info(self, device: int) -> tuple[int, int]: ...
    def get_device_name(self, device: int) -> str: ...


class Nvml:
    """CUDA's cards as the driver shows them, without a CUDA context.

    CUDA_VISIBLE_DEVICES is honoured as CUDA does: entries are indices or the beginning of UUIDs,
    and the list ends at the first that is neither.
    """

    def __init__(self, library: Any = pynvml, environment: Mapping[str, str] = os.environ) -> None:
        self._library = library
        self._cards: list[Any] = []
        try:
            library.nvmlInit()
        except pynvml.NVMLError:  # no driver: no cards
            return
        cards = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._cards = cards if visible is None else self._visible(cards, visible)

    def _visible(self, cards: list[Any], entries: str) -> list[Any]:
        chosen: list[Any] = []
        for entry in map(str.strip, entries.split(",")):
            found = [
                card
                for index, card in enumerate(cards)
                if entry == str(index)
                or (
                    entry.startswith("GPU-")
                    and self._library.nvmlDeviceGetUUID(card).startswith(entry)
                )
            ]
            if not found:
                break
            chosen.append(found[0])
        return chosen

    def is_available(self) -> bool:
        return bool(self._cards)

    def device_count(self) -> int:
        return len(self._cards)

    def mem_get_info(self, device: int) -> tuple[int, int]:
        memory = self._library.nvmlDeviceGetMemoryInfo(self._cards[device])
        return int(memory.free), int(memory.total)

    def get_device_name(self, device: int) -> str:
        return str(self._library.nvmlDeviceGetName(self._cards[device]))


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
        return asked
    free = [cuda.mem_get_info(index)[0] for index in range(count)]
    return f"cuda:{free.index(max(free))}"


def title(device: str, cuda: Cuda) -> str:
    """The device's name for people: `NVIDIA H200`, `AMD EPYC`."""
    if device != "cpu":
        return cuda.get_device_name(int(device.partition(":")[2]))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def free_memory(device: str, cuda: Cuda) -> int:
    """Bytes that can still be had on the device."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    return cuda.mem_get_info(int(device.partition(":")[2]))[0]


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
