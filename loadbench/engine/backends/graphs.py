"""CUDA graphs of a torch model, one for each batch size: what the host would tell the card kernel
by kernel is recorded once and then replayed as a whole.

A graph works on memory of its own, which stays where it is: inputs are copied into it and outputs
out of it, on the stream that replays. All graphs of a model share one pool, the largest recorded
first, since they never run at the same time. The pool is kept for good, so it is told to the
device's books. Tested with stand-ins for torch.cuda: nothing was ever recorded on a card.
"""

import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from loadbench.engine import datatypes, outputs, signature
from loadbench.engine.backends import beside
from loadbench.engine.backends.torch_run import TorchModel
from loadbench.engine.device import turns
from loadbench.engine.device.cuda import keep
from loadbench.errors import SpecError

WARM = 3  # runs before one is recorded: libraries choose kernels and make what they keep

Tensors = dict[str, torch.Tensor]


class _Recorded(NamedTuple):
    graph: Any
    inputs: Tensors
    outputs: Tensors


class Graphs:
    """The graphs of one model, by the shapes of the inputs."""

    def __init__(self) -> None:
        self._recorded: dict[tuple[torch.Size, ...], _Recorded] = {}

    def add(self, recorded: _Recorded) -> None:
        self._recorded[_key(recorded.inputs)] = recorded

    def replayed(self, tensors: Tensors) -> Tensors | None:
        """Outputs for inputs on the card, computed on the current stream; they are the caller's.
        None: there is no graph for these shapes."""
        recorded = self._recorded.get(_key(tensors))
        if recorded is None:
            return None
        for name, tensor in recorded.inputs.items():
            tensor.copy_(tensors[name], non_blocking=True)
        recorded.graph.replay()
        return {name: tensor.clone() for name, tensor in recorded.outputs.items()}


def steps(largest: int) -> tuple[int, ...]:
    """Batch sizes of which none is more than half as large again as the one before, but for the
    smallest: 1, 2, 4, 8, 12, 16, 24, 32, 48 … and the largest itself."""
    found = {largest}
    power = 1
    while power < largest:
        found.add(power)
        if power >= 8 and power + power // 2 < largest:
            found.add(power + power // 2)
        power *= 2
    return tuple(sorted(found))


def record(model: TorchModel, sizes: Sequence[int], stream: Any, cuda: Any) -> Graphs:
    """Records every size on `stream`. Raises what torch does where the model cannot be recorded
    (it looks at values, or memory lacks), SpecError where a graph answers otherwise than it."""
    found = Graphs()
    index = torch.device(model.device).index or 0
    before = _unused(cuda, index)
    tuning = torch.backends.cudnn.benchmark
    # Worth it for sizes that are known beforehand only: every new one would be tuned anew, those of
    # models that serve meanwhile, too
    torch.backends.cudnn.benchmark = tuning or not turns.taken()
    try:
        with torch.inference_mode(), cuda.stream(stream):
            static = _placed(model, max(sizes), 1)
            pool = cuda.graph_pool_handle()
            for rows in sorted(sizes, reverse=True):
                inputs = {name: tensor[:rows] for name, tensor in static.items()}
                found.add(_one(model, inputs, (pool, stream), cuda))
                _check(model, found, rows)
    finally:
        torch.backends.cudnn.benchmark = tuning
    kept = max(0, _unused(cuda, index) - before)
    keep(index, kept)
    weakref.finalize(found, keep, index, -kept)
    return found


def _one(model: TorchModel, inputs: Tensors, where: tuple[Any, Any], cuda: Any) -> _Recorded:
    pool, stream = where
    for _ in range(WARM):
        model.computed(inputs)
    stream.synchronize()
    graph = cuda.CUDAGraph()
    # Other threads may serve meanwhile: what they ask of CUDA must not spoil the recording
    try:
        with cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            given = model.computed(inputs)
    except BaseException:
        _give_up(torch.device(model.device).index or 0, pool)
        raise
    return _Recorded(graph, inputs, given)


def _give_up(index: int, pool: Any) -> None:
    """Has torch's allocator know that nothing is recorded any more: up to 2.12 it goes on with that
    after a failure, gives no memory back when it lacks some, and ends in an assertion of its own
    when it is to (pytorch#180395)."""
    edge: Any = torch._C
    with suppress(RuntimeError, AttributeError):  # it knows; it has no such functions
        edge._cuda_endAllocateToPool(index, pool)
        edge._cuda_releasePool(index, pool)


def _check(model: TorchModel, found: Graphs, rows: int) -> None:
    """A model that decides by values, on the host, has one decision recorded."""
    tensors = _placed(model, rows, 2)
    replayed = found.replayed(tensors)
    assert replayed is not None
    exact = _arrays(model, model.computed(tensors))
    worst = outputs.difference(_arrays(model, replayed), exact, model.outputs)
    if not worst <= beside.ERROR:
        raise SpecError(f"a replayed batch of {rows} is off by {worst:.2g}")


def _placed(model: TorchModel, rows: int, seed: int) -> Tensors:
    """Example inputs on the card."""
    arrays = signature.inputs_of(model, rows, seed)
    return {
        tensor.name: datatypes.to_torch(arrays[tensor.name], tensor.datatype).to(model.device)
        for tensor in model.inputs
    }


def _arrays(model: TorchModel, found: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {t.name: datatypes.from_torch(found[t.name], t.datatype) for t in model.outputs}


def _unused(cuda: Any, index: int) -> int:
    """Bytes that torch holds on the card without using them, beyond what it would give back."""
    cuda.empty_cache()
    return int(cuda.memory_reserved(index)) - int(cuda.memory_allocated(index))


def _key(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in tensors.values())
