"""The cards of this machine as NVML, the driver's library, shows them; no CUDA context is needed.

What is absent or hidden (by a container, by an old driver) is None or missing. Tested against
stand-ins for the library only: it has not run on a card.
"""

import os
from collections.abc import Mapping
from typing import Any

import pynvml

from loadbench.engine.device.seam import Cpu, State
from loadbench.model import THROTTLE


class Nvml:
    """The cards that CUDA would show to this process, in the driver's order.

    CUDA_VISIBLE_DEVICES is honoured as CUDA does: entries are indices, the beginning of UUIDs or
    slices of a card (MIG), and the list ends at the first that is none of these.
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
            if entry.startswith("MIG-"):
                found = [self._ask("nvmlDeviceGetHandleByUUID", entry)]
            if not found or found[0] is None:
                break
            chosen.append(found[0])
        return chosen

    def is_available(self) -> bool:
        return bool(self._cards)

    def device_count(self) -> int:
        return len(self._cards)

    def mem_get_info(self, device: int) -> tuple[int, int]:
        try:
            memory = self._library.nvmlDeviceGetMemoryInfo(self._cards[device])
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_SUPPORTED:
                raise
            host = Cpu().memory()  # what a card without memory of its own uses (Jetson, DGX Spark)
            return host.free, host.total
        return int(memory.free), int(memory.total)

    def get_device_name(self, device: int) -> str:
        return str(self._library.nvmlDeviceGetName(self._cards[device]))

    def uuid(self, device: int) -> str:
        """`GPU-…`; "" where there is no such card."""
        if device >= len(self._cards):
            return ""
        return str(self._ask("nvmlDeviceGetUUID", self._cards[device]) or "")

    def index_of(self, uuid: str) -> int | None:
        """The card with that UUID, given without its kind (`GPU-`) in front: CUDA may count the
        cards in another order than the driver."""
        for index in range(len(self._cards)):
            if self.uuid(index).partition("-")[2] == uuid:
                return index
        return None

    def state(self, device: int, own: int) -> State:
        """Throttling, the SM clock, and processes other than `own`."""
        if device >= len(self._cards):
            return State()
        card = self._cards[device]
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", card)
        if reasons is None:  # drivers before 535 know it by its former name
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", card)
        clock = self._ask("nvmlDeviceGetClockInfo", card, pynvml.NVML_CLOCK_SM)
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses", card) or []
        pids = {process.pid for process in processes}
        return State(
            tuple(name for bit, name in THROTTLE.items() if (reasons or 0) & bit),
            clock or None,
            # A container sees the host's process ids, among which it cannot tell its own.
            tuple(sorted(pids - {own})) if own in pids else (),
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        """One reading, or None where it is not given."""
        try:
            return getattr(self._library, function)(*arguments)
        except (pynvml.NVMLError, AttributeError):
            return None
