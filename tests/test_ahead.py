"""Batches launched while the device runs the one before: it never waits for the host, and all that
holds for batches that are run holds for these. The device is simulated, or a gate that lets its
batches end when it is opened."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays
from loadbench.engine.backends.fake import FakeModel
from loadbench.engine.backends.fake_stream import SimulatedFlight, SimulatedStream
from loadbench.engine.buckets import Sizes
from loadbench.engine.device.seam import Cpu
from loadbench.engine.device.simulated import Gpu
from loadbench.engine.execution import Failing, Piece, stack
from loadbench.engine.flight import launch
from loadbench.engine.instance import WAKE_NS, Instance, Taken
from loadbench.engine.job import Job
from loadbench.engine.place import Place
from loadbench.engine.protocol import Plan, Slot
from loadbench.engine.room import Room
from loadbench.engine.rule import Rule
from loadbench.engine.service import ServiceTimes
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.engine.watch import Watched
from loadbench.ride import Ride
from loadbench.simspec import SimSpec
from loadbench.spec import FakeSpec
from loadbench.units import MS, SECOND
from tests.batching import DEADLINE, POISON, Asked, Gate, run
from tests.served import request_binary, rows, serving, settings

HOST, DEVICE = 3 * MS, 10 * MS


class Clock:
    """Time that passes only while somebody sleeps or works."""

    def __init__(self, oversleep: int = 0) -> None:
        self.now = SECOND
        self.oversleep = oversleep

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND) + self.oversleep


class Stream(SimulatedStream):
    """Staging takes the host its time."""

    def __init__(self, clock: Clock, depth: int, host: int = HOST) -> None:
        card = Gpu(0, SimSpec(), clock)
        super().__init__(card, lambda _: DEVICE, depth, clock, clock.sleep)
        self._time = clock
        self._host = host
        self.launched: list[SimulatedFlight] = []

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> SimulatedFlight | None:
        self._time.now += self._host
        flight = super().launch(shapes, fill)
        if flight is not None:
            self.launched.append(flight)
        return flight


class Model(FakeModel):
    """Runs nothing: all of its batches are launched."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(FakeSpec(width=2))
        self.launcher = stream

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        raise AssertionError("it was not launched")


class Books:
    """The batcher's part: batches of one request, as many as are wanted, one always waiting."""

    def __init__(self, clock: Clock, number: int, ahead: bool) -> None:
        self.failing = Failing(lambda *_: None)
        self._clock = clock
        self._left = number
        self._ahead = ahead
        self.ran: list[tuple[Taken, list[Piece], int]] = []  # and when it was told

    def take(self) -> Taken | None:
        if not self._left:
            return None
        self._left -= 1
        x = np.full((1, 2), self._left, np.float32)
        job = Job({"x": x}, 1, ((2,),), lambda _: True)
        return Taken([job], Ride(self._left, "idle"), self._clock(), 0, 0, 1, 1)

    def ahead(self, instance: Instance) -> Taken | None:
        return self.take() if self._ahead else None

    def ended(
        self, instance: Instance, batch: Taken, pieces: list[Piece], coming: Taken | None = None
    ) -> Taken | None:
        self.ran.append((batch, pieces, self._clock()))
        following = None if coming else self.take()
        if coming is None and following is None:
            instance.inbox.put(None)
        return following


def served(
    ahead: bool, number: int = 20, oversleep: int = 0, host: int = HOST
) -> tuple[Books, Stream]:
    clock = Clock(oversleep)
    stream = Stream(clock, 2, host)
    books = Books(clock, number, ahead)
    place = Place(Cpu(), Room(1), ServiceTimes(1))
    instance = Instance(Model(stream), place, clock, clock.sleep)
    instance.inbox.put(books.take())
    instance.work(books)
    return books, stream


def test_the_device_never_waits_for_the_host() -> None:
    books, stream = served(ahead=True)
    assert len(stream.launched) == 20
    assert [flight.gap_ns for flight in stream.launched] == [0] * 20
    one_by_one = served(ahead=False)[1]
    assert [flight.gap_ns for flight in one_by_one.launched[1:]] == [HOST] * 19
    numbers = [batch.number for batch, _, _ in books.ran]
    assert numbers == sorted(numbers, reverse=True)  # told in the order in which they were taken
    for batch, pieces, _ in books.ran:
        assert [piece.fault for piece in pieces] == [None]
        assert (pieces[0].outputs["y"] == batch.number).all()


def test_a_batch_stays_open_until_it_must_be_launched() -> None:
    books, _ = served(ahead=True)
    told = [at for _, _, at in books.ran]
    for (batch, _, _), before in zip(books.ran[3:], told[2:], strict=False):
        assert before - batch.taken == HOST + WAKE_NS


def test_a_thread_that_wakes_up_late_sets_out_earlier() -> None:
    _, stream = served(ahead=True, oversleep=4 * MS)
    gaps = [flight.gap_ns for flight in stream.launched]
    assert any(gaps[1:10])
    assert gaps[10:] == [0] * 10


def test_the_times_of_a_batch_add_up_and_are_the_devices() -> None:
    books, _ = served(ahead=True)
    for batch, (piece,), told in books.ran[1:]:
        assert piece.infer_ns == piece.compute_ns == DEVICE
        assert batch.taken + batch.waited_ns + batch.between_ns + piece.compute_ns == told
        assert batch.between_ns == 0
    first, (piece,), told = books.ran[0]
    # The second was launched while the first ran, by then not yet seen to end
    assert (piece.input_ns, piece.infer_ns, first.waited_ns) == (HOST, DEVICE, 0)
    alone, _ = served(ahead=False)
    for batch, (piece,), told in alone.ran:
        assert (piece.input_ns, piece.infer_ns) == (HOST, DEVICE)
        assert batch.taken + piece.compute_ns == told


def test_a_host_slower_than_the_device_is_seen_in_the_gaps_and_planned_with() -> None:
    host = 2 * DEVICE
    books, stream = served(ahead=True, host=host)
    assert [flight.gap_ns for flight in stream.launched[1:]] == [host - DEVICE] * 19
    for batch, (piece,), _ in books.ran[1:-1]:
        assert (piece.input_ns, piece.infer_ns) == (0, DEVICE)
        assert (batch.between_ns, batch.least_ns) == (host - DEVICE, host)
    assert books.ran[-1][0].between_ns == host - DEVICE  # whose end is seen: nothing follows
    assert [batch.least_ns for batch, _, _ in served(ahead=True)[0].ran] == [0] * 20


def test_the_plan_goes_by_the_slower_of_host_and_device() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        batch = Taken([], Ride(1, "idle"), SECOND, 0, 0, 1, 1, least_ns=7 * MS)
        x = np.ones((1, 2), np.float32)
        jobs = [Job({"x": x}, 1, ((2,),), lambda _: True)]
        batch = batch._replace(jobs=jobs)
        (instance,) = asked.batcher._instances
        for infer, planned in ((2 * MS, 7 * MS), (9 * MS, 9 * MS)):
            piece = Piece(jobs, 1, 0, infer, SECOND, {})
            for _ in range(64):
                asked.batcher._learn(instance, batch, [piece], SECOND)
            assert asked.batcher.places[0].service.table[1] == planned

    run(test, Rule("deadline", 1), Gate())


class Launching(Gate):
    """The gate as a device: batches are launched, and come through when it opens. With `tight`
    memory lacks when a batch is launched, otherwise it shows when it is waited for."""

    def __init__(self, room: int = 1 << 30, tight: bool = False, depth: int = 2) -> None:
        super().__init__(room)
        self.launcher = self
        self.launched: list[int] = []
        self.tight = tight
        self.most = 0
        self._depth = depth
        self._flying = 0

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> "Passing | None":
        if self._flying >= self._depth:
            return None
        x = np.full(shapes["x"], np.nan, np.float32)
        fill({"x": x})
        if self.tight and len(x) > self.room:
            raise MemoryError(f"no room for {len(x)}")
        self.launched.append(len(x))
        self._flying += 1
        self.most = max(self.most, self._flying)
        return Passing(self, x)

    def passed(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        self._flying -= 1
        return self.run({"x": x})


class Passing:
    compute_ns = 1000
    gap_ns = 0

    def __init__(self, gate: Launching, x: NDArray[Any]) -> None:
        self._gate = gate
        self._x = x

    def done(self) -> bool:
        return self._gate.open.is_set()

    def wait(self) -> dict[str, NDArray[Any]]:
        return self._gate.passed(self._x)


PAIRS = Rule("deadline", 2)


async def launched(gate: Launching, number: int) -> None:
    for _ in range(2000):
        if len(gate.launched) >= number:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{gate.launched}")


def test_two_batches_are_on_their_way_and_everyone_gets_their_own_rows() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in range(1, 8):
            asked.ask(value)
        await launched(gate, 2)
        assert gate.launched == [2, 2]
        assert (asked.batcher.waiting, asked.batcher.open) == (3, 7)
        gate.open.set()
        await asked.until(7)
        for value in range(1, 8):
            asked.check(value)
        assert list(asked.answers) == list(range(1, 8))
        assert gate.most == 2
        assert account.success == 7
        engine = account.engine()
        assert sum(batch.rows for batch in engine.recent) == 7
        assert sum(batch.compute_ns for batch in engine.recent) == engine.busy_ns
        assert [batch.number for batch in engine.recent] == [1, 2, 3, 4]
        assert account.closed["full"] == {2: 3}

    run(test, PAIRS, Launching())


def test_waiting_in_flight_for_the_batch_before_is_queueing() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in range(1, 5):
            asked.ask(value)
        await launched(gate, 2)
        await asyncio.sleep(0.1)
        gate.open.set()
        await asked.until(4)
        assert asked.check(1).compute_ns >= 99 * MS
        assert asked.check(1).queue_ns < asked.check(3).queue_ns
        assert asked.check(3).queue_ns >= 99 * MS
        assert asked.check(3).batch_wait_ns < 90 * MS

    run(test, PAIRS, Launching())


@pytest.mark.parametrize("tight", [False, True])
def test_a_lack_of_memory_in_flight_costs_nobody_an_answer(tight: bool) -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in range(1, 30):
            asked.ask(value)
        await asyncio.sleep(0.02)
        gate.open.set()
        await asked.until(29)
        for value in range(1, 30):
            asked.check(value)
        assert account.success == 29
        assert max(gate.launched[2:]) <= 4 if tight else max(gate.launched[3:]) <= 4
        assert asked.batcher.places[0].room.most <= 4
        assert asked.batcher.places[0].busy == 0

    run(test, DEADLINE, Launching(room=3, tight=tight))


def test_a_row_that_lacks_memory_only_beside_another_batch_is_run_after_it() -> None:
    class Beside(Launching):
        def launch(
            self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
        ) -> "Passing | None":
            if self._flying:
                raise MemoryError("no room beside the other")
            return super().launch(shapes, fill)

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in (1, 2, 3):
            asked.ask(value)
        await launched(gate, 1)
        gate.open.set()
        await asked.until(3)
        for value in (1, 2, 3):
            asked.check(value)
        assert gate.launched[:1] == [1]
        assert account.success == 3

    run(test, PAIRS._replace(max_batch=1), Beside())


def test_poisoned_requests_in_flight_fail_alone() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        values = [*range(1, 9), POISON, *range(9, 14), 2 * POISON, 14, 15]
        for value in values:
            asked.ask(value)
        await asked.until(len(values))
        for value in range(1, 16):
            asked.check(value)
        poison, refused = asked.answers[POISON], asked.answers[2 * POISON]
        assert isinstance(poison, Refused)
        assert isinstance(refused, Refused)
        assert (poison.status, refused.status) == (500, 400)
        assert (account.success, account.failed) == (15, 2)

    run(test, DEADLINE, Launching())


def test_a_device_that_breaks_in_flight_is_told_from_a_model_that_fails() -> None:
    class Breaking(Launching):
        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        for value in (1, 2, 3):
            asked.ask(value)
        await asked.until(3)
        assert all(isinstance(found, Refused) for found in asked.answers.values())
        assert account.failed == 3
        assert asked.batcher.places[0].busy == 0

    run(test, PAIRS, Breaking())
    job = Job({"x": np.zeros((1, 2), np.float32)}, 1, ((2,),), lambda _: True)
    flying = launch(Breaking(), [job], ())
    assert flying is not None
    assert "illegal memory access" in flying.land(lambda: 1).piece.broken


def test_a_model_that_cannot_launch_another_batch_runs_it() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in range(1, 7):
            asked.ask(value)
        await launched(gate, 1)
        gate.open.set()
        await asked.until(6)
        for value in range(1, 7):
            asked.check(value)
        assert gate.most == 1
        assert account.success == 6

    run(test, PAIRS, Launching(depth=1))


def test_nothing_in_flight_is_lost_when_the_engine_stops() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        gate.open.clear()
        for value in range(1, 6):
            asked.ask(value)
        await launched(gate, 2)
        asked.batcher.drain()
        with pytest.raises(Refused, match="shutting down"):
            asked.ask(9)
        loop = asyncio.get_running_loop()
        stopped = loop.run_in_executor(None, asked.batcher.stop, 20)
        gate.open.set()
        assert await stopped
        await asked.until(5)
        for value in range(1, 6):
            asked.check(value)
        assert asked.batcher.open == 0

    run(test, PAIRS, Launching())


def test_a_deadline_is_judged_by_the_end_of_what_is_in_flight() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        for _ in range(8):
            asked.batcher.places[0].service.observe(2, 10 * SECOND)
        gate.open.clear()
        for value in (1, 2, 3, 4):
            asked.ask(value, timeout=(15 if value < 3 else 15 + value) * SECOND)
        await launched(gate, 1)
        await asked.until(2)  # a batch of 10 s would be in time by itself, but not after another
        assert sorted(asked.answers) == [3, 4]
        assert account.shed == {"infeasible": 2}
        gate.open.set()
        await asked.until(4)

    run(test, PAIRS, Launching(), slo=60 * SECOND)


def test_a_padded_batch_in_flight_answers_only_those_who_asked() -> None:
    jobs = [Job({"x": np.full((n, 2), n, np.float32)}, n, ((2,),), lambda _: True) for n in (2, 3)]
    gate = Launching()
    sizes: Sizes = (4, 8)
    flying = launch(gate, jobs, sizes)
    assert flying is not None
    assert gate.launched == [8]
    piece, error = flying.land(lambda: 77)
    assert (piece.rows, piece.padded, piece.ended, error) == (5, 3, 77, None)
    assert piece.outputs["y"][:, 0].tolist() == [4, 4, 6, 6, 6]


def test_what_is_put_around_a_model_is_run() -> None:
    job = Job({"x": np.zeros((1, 2), np.float32)}, 1, ((2,),), lambda _: True)
    gate = Launching()
    assert launch(Watched(gate, []), [job], ()) is None
    gate.batched = False
    assert launch(gate, [job], ()) is None


def plan() -> Plan:
    slots = (Slot("a", "FP32", (-1, 2), 0, 8), Slot("b", "INT64", (-1, 1), 8, 16))
    return Plan("n", 1, ((2,), (1,)), None, slots, (), 16)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("received", [False, True])
def test_rows_are_stacked_into_buffers_as_into_fresh_arrays(
    number: int, more: int, received: bool
) -> None:
    gate = Gate()
    jobs = []
    for n in range(number):
        a, b = np.full((1, 2), n + 0.5, np.float32), np.full((1, 1), -n, np.int64)
        job = Job({"a": a, "b": b}, 1, ((2,), (1,)), lambda _: True)
        if received:
            job = Job.__new__(Job)
            job.plan, job.tail = plan(), memoryview(a.tobytes() + b.tobytes())
        jobs.append(job)
    buffers: dict[str, NDArray[Any]] = {
        "a": np.empty((number + more, 2), np.float32),
        "b": np.empty((number + more, 1), np.int64),
    }
    stack(gate, jobs, more, buffers)
    for name, array in stack(gate, jobs, more).items():
        assert np.array_equal(buffers[name], array)


def test_the_engine_launches_ahead_on_a_simulated_card() -> None:
    chosen = settings(
        "device=sim",
        "sim.depth=2",
        "sim.oom=2 %",
        "sim.seed=3",
        "fake.a=2 ms",
        "fake.c=50 us",
        "max_batch=8",
    )

    def ask(number: int) -> int:
        x = rows(1 + number % 3, number * 64)
        body, headers = request_binary(x)
        answer = engine.call("/v2/models/fake/infer", body, **headers)
        assert answer.status != 200 or answer.tail == x.tobytes()
        return answer.status

    with serving("fake", *chosen) as engine, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(300)))
        stats = engine.stats()
        assert set(found) <= {200, 500}
        assert found.count(200) >= 250  # chance gives a lone row no memory now and then
        assert stats["inference_stats"]["success"]["count"] == found.count(200)
        assert stats["loadbench"].get("failed", 0) == found.count(500)
        assert engine.stop() == 0
