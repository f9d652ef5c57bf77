"""A CUDA card: its memory as torch's allocator and the driver tell it, its state as NVML does.

Without torch the driver alone is asked, and what a batch takes stays unknown. ONNX Runtime needs no
more: its arena tells nothing, but keeps what the largest batch took at the warm-up, so that nobody
else can take that away; sizes that found no memory then are come back to a row at a time (`room`).
Tested against stand-ins for `torch.cuda` and NVML only: it has not run on a card.
"""

import os
import sys
from typing import Any, Protocol

from loadbench.engine.device.cards import Nvml
from loadbench.engine.device.seam import Memory, State

_kept: dict[int, int] = {}


def keep(index: int, size: int) -> None:
    """So many bytes more of what torch holds on a card cannot be had for batches, although nothing
    is in them: recorded graphs compute there. Less than 0: they can again."""
    _kept[index] = _kept.get(index, 0) + size


def reserved(index: int) -> int:
    """Bytes of a card that torch's allocator holds for all models of this process together."""
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.memory_reserved(index)) if torch is not None else 0


class Allocator(Protocol):
    """What is asked of torch's allocator; torch.cuda has all of it."""

    def mem_get_info(self, device: int) -> tuple[int, int]: ...
    def get_device_name(self, device: int) -> str: ...
    def get_device_properties(self, device: int) -> Any: ...
    def get_per_process_memory_fraction(self, device: int) -> float: ...
    def memory_reserved(self, device: int) -> int: ...
    def memory_allocated(self, device: int) -> int: ...
    def max_memory_allocated(self, device: int) -> int: ...
    def reset_peak_memory_stats(self, device: int) -> None: ...


class Card:
    """`cuda:N`. `allocator` is torch.cuda, None where torch is not what runs there."""

    def __init__(self, index: int, allocator: Allocator | None, cards: Nvml) -> None:
        self.name = f"cuda:{index}"
        self._index = index
        self._allocator = allocator
        self._cards = cards
        self._before = 0
        told = getattr(allocator.get_device_properties(index), "uuid", "") if allocator else ""
        found = cards.index_of(str(told)) if told else None
        self._card = index if found is None else found
        self.uuid = cards.uuid(self._card)

    def title(self) -> str:
        if self._allocator is not None:
            return self._allocator.get_device_name(self._index)
        return self._cards.get_device_name(self._card)

    def memory(self) -> Memory:
        if self._allocator is None:
            return Memory(*self._cards.mem_get_info(self._card))
        allocator, index = self._allocator, self._index
        free, total = allocator.mem_get_info(index)
        reserved = allocator.memory_reserved(index)
        # What engine.gpu_memory allows this process counts, where that is less
        allowed = round(total * allocator.get_per_process_memory_fraction(index))
        free = max(0, min(free, allowed - reserved))
        held = reserved - _kept.get(index, 0)
        return Memory(free, total, held, allocator.memory_allocated(index))

    def state(self) -> State:
        return self._cards.state(self._card, os.getpid())

    def begin_peak(self) -> None:
        if self._allocator is not None:
            self._allocator.reset_peak_memory_stats(self._index)
            self._before = self._allocator.memory_allocated(self._index)

    def peak(self) -> int | None:
        if self._allocator is None:
            return None
        return max(0, self._allocator.max_memory_allocated(self._index) - self._before)


def open_card(index: int) -> Card:
    """The card, with torch's allocator where a model has brought torch in, and that can use cards:
    one that was built for CPUs only is found beside ONNX Runtime."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available()
    return Card(index, torch.cuda if torch is not None and used else None, Nvml())
