"""The known-answer model: a batch of b takes a + c·b, or a time drawn around it, and echoes `x`.

What it answers is decided here, and how long that takes. Stalls and bad answers concern the whole
server and are in `engine.faults`.
"""

import ctypes
import hashlib
import math
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.backends.fake_stream import SimulatedStream
from loadbench.engine.device.simulated import Gpu, choose, gpu
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, FakeSpec

_PR_SET_TIMERSLACK = 29
_BLOCK = bytes(16_384)  # hashing it takes some 20 µs, without the interpreter's lock


class FakeModel:
    """Serves `x` [-1, width] as `y`. Safe to share among instances: random draws are locked."""

    name = "fake"
    version = "1"
    platform = "fake"
    batched = True
    max_batch: int | None = None
    precision = "fp32"
    notes: tuple[Note, ...] = ()

    def __init__(self, settings: FakeSpec, card: Gpu | None = None) -> None:
        self.device = card.name if card else "cpu"
        self._card = card
        self.launcher: SimulatedStream | None = None
        if card is not None:
            card.load()
            weakref.finalize(self, card.unload)
            if card.depth > 1:
                self.launcher = SimulatedStream(card, self.took, card.depth)
        self.metadata: dict[str, Any] = {}
        self.inputs: tuple[Tensor, ...] = (Tensor("x", "FP32", (settings.width,)),)
        self.outputs: tuple[Tensor, ...] = (Tensor("y", "FP32", (settings.width,)),)
        self._settings = settings
        self._random = np.random.default_rng(settings.seed)
        self._lock = threading.Lock()
        self._precise = threading.local()

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Echoes the rows after the time that a batch of so many takes."""
        x = arrays["x"]
        with self._card.batch(len(x)) if self._card else nullcontext():
            if took := self.took(len(x)):
                until = time.monotonic_ns() + took
                if self._settings.busy:
                    _spin(until)
                else:
                    self._sleep(until)
        return {"y": x}

    def took(self, rows: int) -> int:
        """How long (ns) the next batch of so many takes."""
        settings = self._settings
        if not (settings.a or settings.c):
            return 0
        slower = self._card.slowdown() if self._card else 1
        return round(self._draw(settings.a + settings.c * rows) * slower)

    def memory(self) -> dict[str, int]:
        """It has no weights but on a simulated GPU."""
        return {"GPU": self._card.weights} if self._card else {"CPU": 0}

    def _draw(self, mean_ns: int) -> int:
        service = self._settings.service
        if service == "constant":
            return mean_ns
        with self._lock:
            if service == "exponential":
                return round(self._random.exponential(mean_ns))
            cv = float(service.removeprefix("lognormal(").removesuffix(")"))
            spread = math.log1p(cv * cv)
            return round(self._random.lognormal(math.log(mean_ns) - spread / 2, math.sqrt(spread)))

    def _sleep(self, until: int) -> None:
        """Sleeps to the moment; the kernel's timer slack of 50 µs is taken off the thread first."""
        if not hasattr(self._precise, "done"):
            self._precise.done = True
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
        while (left := until - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)


def _spin(until: int) -> None:
    """Burns a core as a model does: in C, without the interpreter's lock."""
    while time.monotonic_ns() < until:
        hashlib.sha256(_BLOCK)


def open_fake(settings: EngineSpec) -> FakeModel:
    """The model of `local:fake`; on a simulated GPU if the settings say so."""
    if not settings.device.startswith("sim"):
        return FakeModel(settings.fake)
    where = choose(settings.device, settings.sim)
    card = gpu(int(where.partition(":")[2]), settings.sim)
    if settings.gpu_memory is not None:
        card.limit(settings.gpu_memory)
    return FakeModel(settings.fake, card)
