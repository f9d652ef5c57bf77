"""A torch model on three streams and from recorded graphs, against a stand-in for torch.cuda: this
machine has no card. The stand-in runs everything at once and in order, and checks what a card does
not forgive: that no stream touches memory that another one may still be working on."""

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loadbench.engine.backends import Arrays, graphs
from loadbench.engine.backends.precision import lower
from loadbench.engine.backends.prepare import finish
from loadbench.engine.backends.streams import StreamFlight, Streams, attach
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.engine.device import cuda as card
from loadbench.engine.device import turns
from loadbench.engine.device.cards import Nvml
from loadbench.engine.device.turns import Seat
from loadbench.engine.signature import inputs_of
from loadbench.engine.watch.finite import origin
from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.spec import EngineSpec
from tests.test_device import Driver, Torch

HOST = "host"
Seen = dict[str, int]  # of each stream: how many of its steps are known to have ended


class Races(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes who touched which memory last, and complains where nothing orders two accesses of which
    one writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at = HOST
        self.seen: dict[str, Seen] = {HOST: {}}
        self._wrote: dict[int, tuple[str, int]] = {}
        self._read: dict[int, dict[str, int]] = {}
        self.races: list[str] = []
        self.counted = 0

    def step(self, who: str) -> Seen:
        """The next step of the host, or of a stream, which begins it after what the host knows."""
        seen = self.seen.setdefault(who, {})
        if who != HOST:
            _join(seen, self.seen[HOST])
        seen[who] = seen.get(who, 0) + 1
        return seen

    def touch(self, tensor: torch.Tensor, writes: bool, what: str) -> None:
        seen, who = self.step(self.at), self.at
        where = tensor.untyped_storage().data_ptr()
        self.counted += 1
        before = [self._wrote.get(where)]
        if writes:
            before += self._read.get(where, {}).items()
        for other, number in filter(None, before):
            if seen.get(other, 0) < number:
                self.races.append(f"{what}: {who} touches what {other} works on")
        if writes:
            self._wrote[where], self._read[where] = (who, seen[who]), {}
        else:
            self._read.setdefault(where, {})[who] = seen[who]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = zip(func._schema.arguments, args, strict=False)
        for argument, value in given:
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor):
                    written = argument.alias_info is not None and argument.alias_info.is_write
                    if not func.is_view:
                        self.touch(tensor, written, str(func))
        found = func(*args, **kwargs)
        if not func.is_view:
            for tensor in tree_leaves(found):
                if isinstance(tensor, torch.Tensor):
                    self.touch(tensor, True, str(func))
        return found


def _join(mine: Seen, other: Mapping[str, int]) -> None:
    for who, number in other.items():
        mine[who] = max(mine.get(who, 0), number)


class Lane:
    """A CUDA stream."""

    def __init__(self, edge: "Edge", name: str) -> None:
        self._edge: Edge = weakref.proxy(edge)
        self.name = name

    def wait_event(self, event: "Moment") -> None:
        _join(self._edge.races.step(self.name), event.seen)

    def synchronize(self) -> None:
        _join(self._edge.races.step(HOST), self._edge.races.step(self.name))


class Moment:
    """A CUDA event."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self.seen: Seen = {}
        self.ms = 0.0

    def record(self, stream: Lane) -> None:
        self.seen = dict(self._edge.races.step(stream.name))
        self._edge.clock_ms += 1
        self.ms = self._edge.clock_ms

    def synchronize(self) -> None:
        assert self.seen, "never recorded"
        _join(self._edge.races.step(HOST), self.seen)

    def query(self) -> bool:
        return False

    def elapsed_time(self, later: "Moment") -> float:
        return later.ms - self.ms


class Graph:
    """Replays by calling the model on the recorded inputs: the only thing the CPU can."""

    replays = 0
    again: Callable[[], None]

    def replay(self) -> None:
        self.replays += 1
        self.again()


class Edge:
    """torch.cuda, as far as it is used here."""

    def __init__(self, model: TorchModel) -> None:
        self.races = Races()
        self.streams: Counter[int] = Counter()
        self.tuned: list[bool] = []
        self.clock_ms = 0.0
        self.graphs: list[Graph] = []
        self.pools: list[Any] = []
        self.modes: list[str] = []
        self.reserved, self.allocated = 1000, 400
        self.recording: Exception | None = None
        self._model: TorchModel = weakref.proxy(model)

    def Stream(self, device: torch.device, priority: int = 0) -> Lane:
        """One of 32, in turn."""
        self.streams[priority] += 1
        return Lane(self, f"stream {priority} {self.streams[priority] % 32}")

    def Event(self, *, enable_timing: bool, blocking: bool) -> Moment:
        assert enable_timing
        assert blocking
        return Moment(self)

    @contextmanager
    def stream(self, stream: Lane) -> Iterator[None]:
        before, self.races.at = self.races.at, stream.name
        try:
            yield
        finally:
            self.races.at = before

    def CUDAGraph(self) -> Graph:
        self.graphs.append(Graph())
        return self.graphs[-1]

    def graph_pool_handle(self) -> object:
        return object()

    @contextmanager
    def graph(
        self, graph: Graph, *, pool: object, stream: Lane, capture_error_mode: str
    ) -> Iterator[None]:
        self.pools.append(pool)
        self.modes.append(capture_error_mode)
        self.tuned.append(torch.backends.cudnn.benchmark)
        called: list[Any] = []
        computed = self._model.computed

        def noted(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            found = computed(tensors)
            called.append((tensors, found))
            return found

        self._model.computed = noted  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._model.computed
        if self.recording:
            raise self.recording
        ((inputs, outputs),) = called
        self.reserved += 100
        self.allocated += 30

        def again() -> None:
            for name, tensor in computed(inputs).items():
                outputs[name].copy_(tensor)

        graph.again = again

    def empty_cache(self) -> None:
        pass

    def synchronize(self, device: torch.device) -> None:
        for lane in [name for name in self.races.seen if name != HOST]:
            _join(self.races.step(HOST), self.races.step(lane))

    def memory_reserved(self, index: int) -> int:
        return self.reserved

    def memory_allocated(self, index: int) -> int:
        return self.allocated


class Net(torch.nn.Module):
    """Two inputs of a closed shape, two outputs, of which one is in half precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.layer(x) * n, "half": x.sum(1, keepdim=True).to(torch.bfloat16)}


def net(module: torch.nn.Module | None = None, *tensors: Tensor, **changed: Any) -> TorchModel:
    module = (module or Net()).eval()
    given = tensors or (Tensor("x", "FP32", (-1, 4)), Tensor("n", "INT64", (-1, 1)))
    names = [tensor.name for tensor in given]
    program = Program(
        "net",
        "pytorch",
        module,
        lambda found: module(*(found[name] for name in names)),
        given,
        heavy=tuple(p for p in module.parameters() if p.dim() > 1),
    )
    return finish(program, settings(**changed), "cpu")


def settings(**changed: Any) -> EngineSpec:
    return EngineSpec.model_validate({"precision": "fp32", "threads": 1, "max_batch": 4} | changed)


def shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


class Desk:
    """A model with its streams, and the host as the fourth that may touch their memory."""

    def __init__(self, **changed: Any) -> None:
        self.model = net()
        self.edge = Edge(self.model)
        attach(self.model, settings(**changed), self.edge, pinned=False)
        assert isinstance(self.model.launcher, Streams)
        self.streams = self.model.launcher

    def launch(self, arrays: Arrays) -> StreamFlight | None:
        def fill(buffers: Arrays) -> None:
            for name, buffer in buffers.items():
                self.edge.races.touch(torch.from_numpy(_plain(buffer)), True, "fill")
                buffer[...] = arrays[name]

        return self.streams.launch(shapes(arrays), fill)

    def wait(self, flight: StreamFlight) -> dict[str, Any]:
        found = flight.wait()
        for array in found.values():
            self.edge.races.touch(torch.from_numpy(_plain(array)), False, "answer")
        return found


def _plain(array: Any) -> Any:
    return array.view(np.int16) if array.dtype == np.uint16 else array


def same(found: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    assert found.keys() == right.keys()
    for name in right:
        assert found[name].dtype == right[name].dtype
        np.testing.assert_allclose(found[name], right[name], rtol=1e-5)


@pytest.mark.parametrize("recorded", [False, "auto"])
def test_streams_touch_no_memory_that_another_one_works_on(recorded: bool | str) -> None:
    desk = Desk(graphs=recorded)
    sizes = (2, 2, 4, 4, 1, 3, 3, 2, 2)
    batches = [inputs_of(desk.model, rows, seed=n) for n, rows in enumerate(sizes)]
    right = [desk.model.plain(arrays) for arrays in batches]
    kept = []
    with desk.edge.races:
        flight = desk.launch(batches[0])
        for arrays in batches[1:]:
            assert flight is not None
            following = desk.launch(arrays)
            kept.append(desk.wait(flight))
            flight = following
        assert flight is not None
        kept.append(desk.wait(flight))
    assert desk.edge.races.counted > 100
    assert desk.edge.races.races == []
    for found, wanted in zip(kept, right, strict=True):  # outputs stay as long as they are held
        same(found, wanted)
    replays = sum(graph.replays for graph in desk.edge.graphs)
    assert replays == (
        0 if recorded is False else 7 + 3
    )  # 3 rows have no graph; once each to be compared


def test_weights_that_are_still_cast_are_waited_for() -> None:
    model = net()
    edge = Edge(model)
    caster = edge.Stream(torch.device("cpu"))
    with edge.races:
        with edge.stream(caster):
            for weight in model.weights():
                edge.races.touch(weight, True, "cast")
        attach(model, settings(graphs=False), edge, pinned=False)
        model.run(inputs_of(model, 2))
    assert edge.races.races == []


class Careless(Streams):
    """Frees a buffer before its batch is over, or does not wait for what was copied."""

    def __init__(self, fault: str, *rest: Any, **more: Any) -> None:
        super().__init__(*rest, **more)
        self.fault = fault
        if fault == "no wait":
            self.compute.wait_event = lambda event: None


@pytest.mark.parametrize("fault", ["no wait", "too soon"])
def test_the_stand_in_sees_what_would_go_wrong(fault: str) -> None:
    desk = Desk(graphs=False)
    desk.streams = Careless(fault, desk.model, 4, desk.edge, pinned=False)
    arrays = inputs_of(desk.model, 3)
    with desk.edge.races:
        for _ in range(3):
            flight = desk.launch(arrays)
            assert flight is not None
            if fault == "too soon":
                flight._free()
            else:
                desk.wait(flight)
    assert desk.edge.races.races


def test_a_flight_tells_the_times_of_the_card() -> None:
    desk = Desk(graphs=False)
    arrays = inputs_of(desk.model, 2)
    first, second = desk.launch(arrays), desk.launch(arrays)
    assert first is not None
    assert second is not None
    first.wait()
    second.wait()
    # Four events a batch, a millisecond each: copied, begun, computed, copied back
    assert (first.compute_ns, first.gap_ns) == (1_000_000, 0)
    assert (second.compute_ns, second.gap_ns) == (1_000_000, 3_000_000)


def test_two_batches_fly_and_a_third_or_a_larger_one_does_not() -> None:
    desk = Desk(graphs=False)
    arrays = inputs_of(desk.model, 4)
    flights = [desk.launch(arrays), desk.launch(arrays)]
    assert desk.launch(arrays) is None
    same(desk.model.run(arrays), desk.model.plain(arrays))  # beside them
    for flight in flights:
        assert flight is not None
        same(flight.wait(), desk.model.plain(arrays))
    large = inputs_of(desk.model, 5)
    assert desk.launch(large) is None
    same(desk.model.run(large), desk.model.plain(large))
    assert desk.launch(arrays) is not None


def test_a_batch_that_fails_leaves_its_buffer() -> None:
    desk = Desk(graphs=False)
    arrays = inputs_of(desk.model, 2)

    def full(tensors: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken(buffers: Arrays) -> None:
        raise ValueError("rows that cannot be stacked")

    program = desk.model.program
    desk.model.program = program._replace(call=full)
    for _ in range(3):
        with pytest.raises(MemoryError, match="no room for this batch"):
            desk.launch(arrays)
        with pytest.raises(ValueError, match="cannot be stacked"):
            desk.streams.launch(shapes(arrays), broken)
    desk.model.program = program
    flights = [desk.launch(arrays) for _ in range(2)]
    assert None not in flights


def test_many_threads_may_run_batches() -> None:
    desk = Desk()
    right = [desk.model.plain(inputs_of(desk.model, 1 + n % 4, seed=n)) for n in range(8)]
    faults: list[BaseException] = []

    def ask(n: int) -> None:
        try:
            for _ in range(20):
                same(desk.model.run(inputs_of(desk.model, 1 + n % 4, seed=n)), right[n])
        except BaseException as error:  # noqa: BLE001  told below
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not faults


def test_each_size_has_a_graph_the_largest_first_in_one_pool() -> None:
    desk = Desk(max_batch=40)
    assert graphs.steps(40) == (1, 2, 4, 8, 12, 16, 24, 32, 40)
    assert desk.model.metadata["buckets"] == [1, 2, 4, 8, 12, 16, 24, 32, 40]
    assert len(desk.edge.graphs) == 9
    assert len(set(map(id, desk.edge.pools))) == 1
    assert set(desk.edge.modes) == {"thread_local"}
    arrays = inputs_of(desk.model, 12, seed=5)
    same(desk.model.run(arrays), desk.model.plain(arrays))
    # 40, 32, 24, 16, 12: the fifth; the others were replayed once, to be compared
    assert [graph.replays for graph in desk.edge.graphs] == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    arrays = inputs_of(desk.model, 13)  # as it is
    same(desk.model.run(arrays), desk.model.plain(arrays))
    assert sum(graph.replays for graph in desk.edge.graphs) == 10
    assert not torch.backends.cudnn.benchmark


def test_sizes_that_are_asked_for_are_recorded() -> None:
    desk = Desk(buckets=(3, 2, 8))
    assert desk.model.metadata["buckets"] == [2, 3]  # of up to four


@pytest.mark.parametrize("how", ["capture", "values"])
def test_a_model_that_cannot_be_recorded_runs_without(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    edge = Edge(model)
    if how == "capture":
        edge.recording = RuntimeError("operation not permitted when stream is capturing\nmore")
        word = "operation not permitted when stream is capturing"
    else:
        monkeypatch.setattr(Graph, "replay", lambda self: None)
        word = "is off by"
    attach(model, settings(), edge, pinned=False)
    assert "buckets" not in model.metadata
    assert [note.code for note in model.notes] == ["backend", "graphs"]
    assert word in model.notes[-1].text
    arrays = inputs_of(model, 3, seed=4)
    same(model.run(arrays), model.plain(arrays))
    assert not torch.backends.cudnn.benchmark


def test_open_sizes_are_not_recorded_and_graphs_need_a_card() -> None:
    for asked, told in ((True, ["backend", "graphs"]), ("auto", ["backend"])):
        model = net(torch.nn.ReLU(), Tensor("x", "FP32", (-1, -1)))
        attach(model, settings(graphs=asked), Edge(model), pinned=False)
        assert [note.code for note in model.notes] == told
        assert isinstance(model.launcher, Streams)
        arrays = inputs_of(model, 3)
        same(model.run(arrays), model.plain(arrays))
    with pytest.raises(SpecError, match="runs on the CPU"):
        net(graphs=True)


def lanes(model: TorchModel) -> set[str]:
    streams = model.launcher
    assert isinstance(streams, Streams)
    return {lane.name for lane in (streams._inward, streams.compute, streams._outward)}


@pytest.mark.long
def test_no_stream_is_another_model_s_however_many_are_loaded_and_unloaded() -> None:
    edge = Edge(net())
    models = []
    for _ in range(20):
        models.append(net())
        attach(models[-1], settings(graphs=False), edge, pinned=False)
    assert len(set().union(*map(lanes, models))) == 60
    none = net()
    attach(none, settings(), edge, pinned=False)
    assert none.launcher is None
    assert none.notes[-1].code == "streams"
    assert "no streams left" in none.notes[-1].text
    for number in range(40):
        gone = lanes(models.pop(number % 20))
        gc.collect()
        models.append(net())
        attach(models[-1], settings(graphs=False), edge, pinned=False)
        assert lanes(models[-1]) == gone


@pytest.mark.parametrize("knows", [False, True])
def test_a_recording_that_fails_is_taken_off_the_allocator_s_books(
    knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, object]] = []

    def end(index: int, pool: object) -> None:
        if knows:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        told.append(("end", index, pool))

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    release = lambda index, pool: told.append(("release", index, pool))  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_releasePool", release, raising=False)
    model = net()
    edge = Edge(model)
    edge.recording = RuntimeError("operation failed due to a previous error during capture")
    attach(model, settings(), edge, pinned=False)
    (pool,) = edge.pools
    assert told == ([] if knows else [("end", 0, pool), ("release", 0, pool)])
    assert "a previous error during capture" in model.notes[-1].text
    told.clear()
    Desk()
    assert told == []


@pytest.mark.parametrize("alone", [True, False])
def test_convolutions_are_tuned_only_while_nobody_else_could_be(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_known", {})
    with Seat(turns.turns_of("cuda:1")) if not alone else nullcontext():
        desk = Desk()
    assert desk.edge.tuned == [alone] * 3
    assert not torch.backends.cudnn.benchmark


def test_memory_that_graphs_keep_is_not_free_for_batches() -> None:
    gc.collect()
    found = card.Card(0, Torch(), Nvml(Driver(), {}))
    before = found.memory().held
    desk = Desk()
    assert len(desk.edge.graphs) == 3
    assert found.memory().held == before - 3 * 70
    del desk
    gc.collect()  # the stand-in's graphs hold the model
    assert found.memory().held == before


def test_where_a_value_went_wrong_is_found_although_a_graph_is_replayed() -> None:
    desk = Desk()
    arrays = inputs_of(desk.model, 2)
    module = desk.model.program.module
    assert isinstance(module, Net)
    module.layer.weight.data[0, 0] = float("nan")
    assert origin(desk.model, arrays) == "layer (Linear)"
    replays = [graph.replays for graph in desk.edge.graphs]
    desk.model.run(arrays)
    assert sum(graph.replays for graph in desk.edge.graphs) == sum(replays) + 1


def test_no_memory_for_buffers_leaves_a_model_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    model = net()
    monkeypatch.setattr("loadbench.engine.backends.streams._Buffer", full)
    attach(model, settings(), Edge(model), pinned=False)
    assert model.launcher is None
    assert "out of memory" in model.notes[-1].text


class Images(torch.nn.Module):
    """A convolution, and a reshape that does or does not care how the channels lie."""

    def __init__(self, strict: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8 * 36, 4)
        self.strict = strict

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        rows = len(y)
        found: torch.Tensor = self.head(y.view(rows, -1) if self.strict else y.reshape(rows, -1))
        return found


@pytest.mark.parametrize("strict", [False, True])
def test_convolutions_in_half_precision_have_their_channels_last(strict: bool) -> None:
    image = Tensor("x", "FP32", (-1, 3, 6, 6))
    exact = net(Images(strict), image)
    half = net(Images(strict), image, precision="bf16")
    module = half.program.module
    assert isinstance(module, Images)
    weight = module.conv.weight
    assert weight.dtype == torch.bfloat16
    assert weight.is_contiguous(memory_format=torch.channels_last) != strict
    arrays = inputs_of(exact, 3)
    right = exact.run(arrays)["output0"]
    assert np.abs(half.run(arrays)["output0"] - right).max() < 0.02 * np.abs(right).max()
    assert [note.code for note in half.notes] == ["backend", "precision"]


def test_open_sizes_keep_their_layout() -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.conv(x).mean((2, 3))
            return found

    model = net(Mean(), Tensor("x", "FP32", (-1, 3, -1, -1)))
    module = model.program.module
    assert isinstance(module, Mean)
    lower(model, list(module.parameters())[:1], "bf16")
    assert not module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    model.run(inputs_of(model, 2))
