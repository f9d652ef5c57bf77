"""Runs an ONNX Runtime session with inputs and outputs in the card's memory (IOBinding).

With CUDA graphs each bucket of rows is recorded once, on buffers that stay where they are, and
replayed: a batch is filled up to the next bucket. Run on the CPU's memory in tests; graphs were
never recorded on a card.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

MOST = 32  # graphs of one session: each keeps its memory for good
_NO_GRAPH = -1


class _Slot(NamedTuple):
    """The fixed buffers of one recorded graph."""

    binding: Any
    inputs: dict[str, Any]
    options: Any


class Bound:
    """Call it with arrays by input name; gives arrays in the order of `names`. Thread-safe: one
    batch after the other, as the card would take them anyway."""

    def __init__(self, session: Any, where: str, graphs: bool = False, library: Any = ort) -> None:
        self._session = session
        self._library = library
        kind, _, index = where.partition(":")
        self._where = (kind, int(index or 0))
        self._graphs = graphs  # then a run that is not to be recorded must say so
        self._buckets: tuple[int, ...] = ()
        self._batched = False
        self._slots: dict[tuple[tuple[int, ...], ...], _Slot] = {}
        self._lock = threading.Lock()

    def record(self, buckets: Sequence[int], batched: bool) -> None:
        """From now on by graphs, of a session that has them switched on. With `batched` the first
        axis of every tensor is the batch; `buckets` are the numbers of rows, rising, that get a
        graph, (1,) without a batch."""
        self._batched = batched
        self._buckets = tuple(buckets)

    def __call__(
        self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        with self._lock:
            if self._buckets and all(array.dtype.kind != "O" for array in feed.values()):
                return self._replayed(names, feed)
            return self._plain(names, feed)

    def _plain(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        binding = self._session.io_binding()
        for name, array in feed.items():
            if array.dtype.kind == "O":  # texts stay on the host
                binding.bind_cpu_input(name, array)
            else:
                value = self._library.OrtValue.ortvalue_from_numpy(array, *self._where)
                binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, *self._where)
        self._session.run_with_iobinding(binding, self._options(_NO_GRAPH))
        found: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return found

    def _replayed(
        self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        rows = len(next(iter(feed.values()))) if self._batched else 0
        padded = self._filled(feed, rows)
        if padded is None:
            return self._plain(names, feed)
        key = tuple(array.shape for array in padded.values())
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= MOST:  # of inputs whose other axes are open, too
                return self._plain(names, feed)
            slot = self._slots[key] = self._recorded(names, padded)
        for name, array in padded.items():
            slot.inputs[name].update_inplace(array)
        self._session.run_with_iobinding(slot.binding, slot.options)
        found = slot.binding.copy_outputs_to_cpu()
        return [array[:rows] for array in found] if self._batched else list(found)

    def _filled(
        self, feed: Mapping[str, NDArray[Any]], rows: int
    ) -> dict[str, NDArray[Any]] | None:
        """The arrays with rows of zeros up to the next bucket; None beyond the largest."""
        if not self._batched:
            return dict(feed)
        bucket = next((size for size in self._buckets if size >= rows), None)
        if bucket is None:
            return None
        found = {}
        for name, array in feed.items():
            found[name] = np.zeros((bucket, *array.shape[1:]), array.dtype)
            found[name][:rows] = array
        return found

    def _recorded(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> _Slot:
        """Buffers of these shapes. The first run on them records the graph: ONNX Runtime does by
        itself the run that has to come before."""
        values = self._library.OrtValue
        binding = self._session.io_binding()
        inputs = {
            name: values.ortvalue_from_numpy(array.copy(), *self._where)
            for name, array in feed.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in zip(names, self._plain(names, feed), strict=True):
            place = values.ortvalue_from_shape_and_type(
                list(array.shape), array.dtype.type, *self._where
            )
            binding.bind_ortvalue_output(name, place)
        return _Slot(binding, inputs, self._options(len(self._slots) + 1))  # 0 is ONNX Runtime's

    def _options(self, graph: int) -> Any:
        if not self._graphs:
            return None
        options = self._library.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options
