"""A torch model's launcher on a CUDA card: a batch is copied in, computed and copied out on three
streams, so that the copies of one batch go along with the computing of another.

Rows are written into one of two pinned buffers, whose memory the card can read by itself. Outputs
lie in pinned memory that torch's allocator takes back when the last array on it is gone. Where
graphs are recorded (see `graphs`), replaying one takes the place of calling the model. Tested with
stand-ins for torch.cuda on the CPU, which check that no two streams touch the same memory without
one having waited for the other: it has not run on a card.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loadbench.engine import signature
from loadbench.engine.backends import Arrays, graphs
from loadbench.engine.backends.torch_run import TorchModel, dtype_of, is_full
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec

DEPTH = 2
MOST_BYTES = 1 << 28  # of one buffer, pinned and on the card; larger batches are run
MILLION = 1_000_000
_LANES = 10  # times three streams: torch has 32 of each priority
_PRIORITIES = 2


Lanes = tuple[Any, Any, Any]


class _Card:
    """The streams of a card, three for each model that is there. torch hands its 32 out in turn,
    also those in use; while a graph is recorded on one, nobody else may come near it."""

    def __init__(self) -> None:
        self._spare: deque[Lanes] = deque()
        self._made = 0

    def lanes(self, owner: object, cuda: Any, device: torch.device) -> Lanes:
        """Three streams for as long as the owner is there. RuntimeError if there are no more."""
        try:
            found = self._spare.popleft()
        except IndexError:
            if self._made == _LANES * _PRIORITIES:
                raise RuntimeError(f"torch has no streams left on {device}") from None
            priority = -(self._made // _LANES)
            one, two, three = (cuda.Stream(device, priority=priority) for _ in range(3))
            found = (one, two, three)
            self._made += 1
        weakref.finalize(owner, self._spare.append, found)
        return found


_cards: weakref.WeakKeyDictionary[Any, dict[int, _Card]] = weakref.WeakKeyDictionary()


class _Inputs(NamedTuple):
    """One input of a batch in its buffers."""

    host: torch.Tensor
    card: torch.Tensor
    array: NDArray[Any]  # over `host`


class _Buffer:
    """Room for the inputs of one batch on both sides."""

    def __init__(self, tensors: tuple[Tensor, ...], sizes: Mapping[str, int], where: str,
                 pinned: bool) -> None:  # fmt: skip
        self._dtypes = {tensor.name: dtype_of(tensor) for tensor in tensors}
        self._host = {
            name: torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            for name, size in sizes.items()
        }
        self._card = {
            name: torch.empty(size, dtype=torch.uint8, device=where) for name, size in sizes.items()
        }

    def views(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, _Inputs] | None:
        """The first bytes of each as tensors of these shapes; None: there is no room for them."""
        found = {}
        for name, dtype in self._dtypes.items():
            size = dtype.itemsize * int(np.prod(shapes[name]))
            if size > len(self._host[name]):
                return None
            host, card = (
                side[name][:size].view(dtype).view(shapes[name])
                for side in (self._host, self._card)
            )
            found[name] = _Inputs(host, card, _array(host))
        return found


class Streams:
    """A Launcher (see backends), and what runs a batch to its end meanwhile. `cuda` is torch.cuda,
    `pinned` whether the host's memory can be pinned. Raises what torch raises for want of memory,
    RuntimeError for want of streams.
    """

    def __init__(self, model: TorchModel, rows: int, cuda: Any = torch.cuda,
                 *, pinned: bool = True) -> None:  # fmt: skip
        self.recorded: graphs.Graphs | None = None
        self._model: TorchModel = weakref.proxy(model)  # which holds it: both go at once
        self._cuda = cuda
        self._pinned = pinned
        device = torch.device(model.device)
        cuda.synchronize(device)  # where weights may still be cast on a stream that these ignore
        card = _cards.setdefault(cuda, {}).setdefault(device.index or 0, _Card())
        self._inward, self.compute, self._outward = card.lanes(self, cuda, device)
        row = {name: array.nbytes for name, array in signature.inputs_of(model, 1).items()}
        rows = min(rows, MOST_BYTES // max(1, sum(row.values())))
        sizes = {name: rows * size for name, size in row.items()}
        self._free = deque(_Buffer(model.inputs, sizes, model.device, pinned) for _ in range(DEPTH))
        self._lock = threading.Lock()
        self._before: Any = None  # the event at the end of the last batch's computing

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> "StreamFlight | None":
        try:
            buffer = self._free.popleft()
        except IndexError:
            return None
        flight = None
        try:
            inputs = buffer.views(shapes)
            if inputs is not None:
                fill({name: found.array for name, found in inputs.items()})
                flight = self._enqueued(inputs, lambda: self._free.append(buffer))
        finally:
            if flight is None:
                self._free.append(buffer)
        return flight

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """As Model.run."""

        def fill(buffers: Arrays) -> None:
            for name, array in buffers.items():
                np.copyto(array, arrays[name])

        shapes = {tensor.name: arrays[tensor.name].shape for tensor in self._model.inputs}
        flight = self.launch(shapes, fill)
        if flight is not None:
            return flight.wait()
        with self._cuda.stream(self.compute):  # recorded graphs share memory: never beside them
            return self._model.plain(arrays)

    def _enqueued(self, inputs: dict[str, _Inputs], free: Callable[[], object]) -> "StreamFlight":
        try:
            with self._lock, torch.inference_mode():
                return self._flight(inputs, free)
        except BaseException as error:
            # What was started may still read the buffer
            self._inward.synchronize()
            self.compute.synchronize()
            if not isinstance(error, RuntimeError) or not is_full(error):
                raise
        raise MemoryError(f"{self._model.device} has no room for this batch")

    def _flight(self, inputs: dict[str, _Inputs], free: Callable[[], object]) -> "StreamFlight":
        arrived, began, computed, landed = (
            self._cuda.Event(enable_timing=True, blocking=True) for _ in range(4)
        )
        with self._cuda.stream(self._inward):
            for found in inputs.values():
                found.card.copy_(found.host, non_blocking=True)
            arrived.record(self._inward)
        with self._cuda.stream(self.compute):
            self.compute.wait_event(arrived)
            began.record(self.compute)
            given = self._computed({name: found.card for name, found in inputs.items()})
            computed.record(self.compute)
        with self._cuda.stream(self._outward):
            self._outward.wait_event(computed)
            hosts = {}
            for name, tensor in given.items():
                hosts[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
                hosts[name].copy_(tensor, non_blocking=True)
            landed.record(self._outward)
        before, self._before = self._before, computed
        return StreamFlight(_Events(before, began, computed, landed), given, hosts, free)

    def _computed(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.recorded is not None:
            found = self.recorded.replayed(tensors)
            if found is not None:
                return found
        return self._model.computed(tensors)


class _Events(NamedTuple):
    """Moments of the card's clock. `before`: when the batch before was computed."""

    before: Any
    began: Any
    computed: Any
    landed: Any


class StreamFlight:
    """A Flight (see backends). It holds the outputs on the card until they have been copied: their
    memory belongs to the computing stream, which would give it to the next batch."""

    compute_ns = 0
    gap_ns = 0

    def __init__(
        self,
        events: _Events,
        given: Mapping[str, torch.Tensor],
        hosts: Mapping[str, torch.Tensor],
        free: Callable[[], object],
    ) -> None:
        self._events = events
        self._given = given
        self._hosts = hosts
        self._free = free

    def done(self) -> bool:
        return bool(self._events.landed.query())

    def wait(self) -> dict[str, NDArray[Any]]:
        before, began, computed, landed = self._events
        try:
            landed.synchronize()
        finally:
            self._given = {}
            self._free()
        self.compute_ns = round(began.elapsed_time(computed) * MILLION)
        if before is not None:
            self.gap_ns = round(before.elapsed_time(began) * MILLION)
        return {name: _array(tensor) for name, tensor in self._hosts.items()}


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """Over the tensor's own memory, which it keeps."""
    found: NDArray[Any] = (
        tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor
    ).numpy()
    return found


def attach(
    model: TorchModel, settings: EngineSpec, cuda: Any = torch.cuda, *, pinned: bool = True
) -> None:
    """Gives a model on a card its launcher, and graphs for its batch sizes where the settings and
    its shapes allow them. Falls back with a note: to graphs for none, to a model without."""
    if not model.batched:
        return
    largest = min(settings.max_batch, model.max_batch or settings.max_batch)
    try:
        streams = Streams(model, largest, cuda, pinned=pinned)
    except RuntimeError as error:
        text = f"nothing is copied while the card computes: {_line(error)}"
        hint = "free some memory there, lower engine.max_batch, or unload a model"
        model.notes = (*model.notes, Note("streams", text, hint))
        return
    model.launcher = streams
    if settings.graphs is False:
        return
    if any(-1 in tensor.shape for tensor in model.inputs):
        if settings.graphs is True:
            text = "no CUDA graphs: the model's inputs have open sizes"
            hint = "close them with --input NAME:DTYPE:-1,…, or export the model so"
            model.notes = (*model.notes, Note("graphs", text, hint))
        return
    asked = {size for size in settings.buckets if size <= largest}
    sizes = tuple(sorted(asked)) or graphs.steps(largest)
    try:
        streams.recorded = graphs.record(model, sizes, streams.compute, cuda)
    except (RuntimeError, SpecError, MemoryError) as error:
        text = f"no CUDA graphs: recording failed ({_line(error)})"
        hint = "engine.graphs = false does not try"
        model.notes = (*model.notes, Note("graphs", text, hint))
        return
    model.metadata["buckets"] = list(sizes)  # the batcher pads to these, and plans with them


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()
