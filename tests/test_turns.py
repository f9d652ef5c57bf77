"""Several models on one nearly full card: a row that finds no memory beside others has its turn."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from numpy.typing import NDArray

from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.device.seam import Cpu
from loadbench.engine.device.simulated import Gpu
from loadbench.engine.device.turns import Seat, Turns
from loadbench.engine.instance import Instance, Taken
from loadbench.engine.place import Place
from loadbench.engine.policy import Rule
from loadbench.engine.room import Room
from loadbench.engine.service import ServiceTimes
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.engine.warmup import warm_up
from loadbench.units import MS
from tests.batching import Asked, Gate
from tests.served import request_json, rows, serving, settings
from tests.test_ahead import Books, Clock, Stream
from tests.test_ahead import Model as Launching
from tests.test_device import sim

ROWS = 10  # that find room on the card
LARGE = 5  # so much takes a row of these …
ROW = range(100, 200)  # … values
HUGE = 1000.0  # never fits


class Model(Gate):
    """On a card; it has a name, and writes down what it ran."""

    def __init__(self, name: str, card: Gpu, log: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name = name
        self._card = card
        self._log = log

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = arrays["x"]
        each = [LARGE if value in ROW else 1 for value in x[:, 0]]
        with self._card.batch(ROWS + 1 if (x == HUGE).any() else sum(each)):
            self._log.append((self.name, len(x)))
            return super().run(arrays)


class Served:
    """Models beside each other, each with a batcher of its own."""

    def __init__(self, names: str, turns: Turns) -> None:
        card, _ = sim(memory=f"{ROWS} GB", weights="0 B", batch="0 B", row="1 GB")
        self.turns = turns
        self.ran: list[tuple[str, int]] = []
        self.models = {name: Model(name, card, self.ran) for name in names}
        self.accounts = {name: Account() for name in names}
        self.asked: dict[str, Asked] = {}
        for name, model in self.models.items():
            place = Place(card, Room(16), ServiceTimes(16))
            place.turns = turns
            terms = Terms(Rule("deadline", 16), 1000, 1 << 20, None, [place])
            loop = asyncio.get_running_loop()
            batcher = Batcher([model], terms, place.service, self.accounts[name], loop)
            self.asked[name] = Asked(batcher)

    def start(self) -> None:
        for asked in self.asked.values():
            asked.batcher.start()

    async def stop(self) -> None:
        """Each request must be in the books once."""
        for model in self.models.values():
            model.open.set()
        for name, asked in self.asked.items():
            await asked.until(len(asked.answers) + asked.batcher.open)
            assert asked.batcher.stop(10)
            told = self.accounts[name]
            assert asked.batcher.open == 0
            assert told.success + told.failed == len(asked.answers)
        assert not self.turns.closed


def beside(
    names: str, test: Callable[[Served], Coroutine[Any, Any, None]], patience_s: float = 20
) -> None:
    async def main() -> None:
        served = Served(names, Turns(patience_s))
        served.start()
        try:
            await test(served)
        finally:
            await served.stop()

    asyncio.run(main())


async def until(met: Callable[[], bool]) -> None:
    for _ in range(4000):
        if met():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


async def filled(served: Served, number: int = 8) -> None:
    """`b` runs so many rows until it is let."""
    served.models["b"].open.clear()
    served.asked["b"].ask(1.0, number)
    await until(lambda: bool(served.ran))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_model_beside_a_large_one_is_answered(depth: int) -> None:
    options = settings(
        "device=sim", f"sim.depth={depth}", "sim.memory=2 GB", "sim.weights=100 MB",
        "sim.batch=300 MB", "sim.row=50 MB", "fake.a=4 ms",
    )  # fmt: skip
    with serving("a=fake", "b=fake", *options) as engine:

        def ask(name: str, size: int, number: int) -> int:
            found = engine.call(f"/v2/models/{name}/infer", request_json(rows(size, number)))
            assert found.status != 200 or found.json["outputs"][0]["data"][0] == number
            return found.status

        def large(first: int) -> set[int]:
            """Without a break: there is always one that runs."""
            numbers = itertools.count(first)
            return {ask("b", 26, next(numbers)) for _ in iter(over.is_set, True)}

        over = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            beside = [pool.submit(large, 1000 * thread) for thread in range(4)]
            try:
                assert {ask("a", 1, number) for number in range(30)} == {200}
            finally:
                over.set()
            assert [each.result(20) for each in beside] == [{200}] * 4
        assert engine.stats("a")["loadbench"]["lacks"] > 0
        assert engine.stop() == 0


def test_a_row_waits_for_what_runs_and_what_comes_waits_for_the_row() -> None:
    async def test(served: Served) -> None:
        await filled(served)
        served.asked["a"].ask(100.0)
        await until(lambda: served.turns.closed)
        job = served.asked["c"].ask(2.0)  # would fit beside what runs
        await until(lambda: job.taken)
        await asyncio.sleep(0.05)
        assert not served.asked["a"].answers
        served.models["b"].open.set()
        for name in "abc":
            await served.asked[name].until(1)
        served.asked["a"].check(100.0)
        assert served.ran == [("b", 8), ("a", 1), ("c", 1)]
        assert job.queue_ns > 40 * MS  # its wait is no time of the model

    beside("abc", test)


def test_however_many_rows_wait_all_are_answered() -> None:
    async def test(served: Served) -> None:
        await filled(served)
        for name in "acdef":
            for value in ROW[:5]:
                served.asked[name].ask(float(value))
        await until(lambda: served.turns.closed)
        served.models["b"].open.set()
        for name in "acdef":
            await served.asked[name].until(5)
            for value in ROW[:5]:
                served.asked[name].check(float(value))

    beside("abcdef", test)


def test_those_that_want_to_be_alone_are_so_in_the_order_in_which_they_came() -> None:
    turns = Turns(patience_s=20)
    went: list[str] = []
    inside: list[str] = []

    def alone(seat: Seat, name: str) -> None:
        with seat, seat.alone() as free:
            inside.append(name)
            assert free
            assert inside == [name]
            time.sleep(0.002)
            inside.remove(name)
            went.append(name)

    seats = {name: Seat(turns) for name in "dacfe"}
    for seat in seats.values():
        turns.joins(seat)
        seat.begin()
    with Seat(turns) as first, ThreadPoolExecutor(5) as pool:
        first.begin()
        done = []
        for name, seat in seats.items():
            done.append(pool.submit(alone, seat, name))
            while len(turns.wanting) < len(done):
                time.sleep(0.001)
        assert not went
        first.end()
        for each in done:
            each.result(20)
    assert went == list("dacfe")


def test_a_model_that_is_drained_while_its_row_waits_answers_it_and_ends() -> None:
    async def test(served: Served) -> None:
        await filled(served)
        asked = served.asked["a"]
        asked.ask(100.0)
        await until(lambda: served.turns.closed)
        asked.batcher.drain()
        ending = asyncio.create_task(asyncio.to_thread(asked.batcher.stop, 10))
        served.models["b"].open.set()
        assert await ending
        await asked.until(1)
        asked.check(100.0)
        served.asked["b"].ask(2.0, 3)  # the others go on
        await served.asked["b"].until(2)
        served.asked["b"].check(2.0, 3)

    beside("ab", test)


def test_only_the_row_that_does_not_fit_by_itself_fails() -> None:
    async def test(served: Served) -> None:
        await filled(served)
        asked = served.asked["a"]
        asked.ask(100.0)  # the others wait behind it, and become one batch
        await until(lambda: served.turns.closed)
        for value in (101.0, HUGE, 3.0, 102.0):
            asked.ask(value)
        served.models["b"].open.set()
        await asked.until(5)
        for value in (100.0, 101.0, 3.0, 102.0):
            asked.check(value)
        refused = asked.answers[HUGE]
        assert isinstance(refused, Refused)
        assert refused.status == 500
        assert refused.message == "out of memory: sim:0 has no room for this batch"
        assert served.accounts["a"].failed == 1

    beside("ab", test)


def test_a_row_does_not_wait_for_ever_and_holds_up_nobody_else() -> None:
    async def test(served: Served) -> None:
        await filled(served)
        served.asked["a"].ask(100.0)
        await served.asked["a"].until(1)
        refused = served.asked["a"].answers[100.0]
        assert isinstance(refused, Refused)
        assert "what else runs on the device did not end in time" in refused.message
        assert not served.turns.closed
        served.asked["c"].ask(2.0)  # beside the batch that hangs
        await served.asked["c"].until(1)
        served.asked["c"].check(2.0)

    beside("abc", test, patience_s=0.1)


def test_whoever_waits_for_one_that_hangs_alone_goes_on_after_a_while() -> None:
    turns = Turns(patience_s=0.05)
    with Seat(turns) as hanging, Seat(turns) as other:
        hanging.begin()
        with hanging.alone() as free:
            assert free
            assert other.begin()
            with other.alone() as late:
                assert not late
        assert not other.begin()


def test_one_that_leaves_in_the_middle_of_a_batch_is_waited_for_no_longer() -> None:
    turns = Turns(patience_s=20)
    went: list[bool] = []

    def alone() -> None:
        with Seat(turns) as seat, seat.alone() as free:
            went.append(free)

    waiting = threading.Thread(target=alone)
    with Seat(turns) as leaving:
        leaving.begin()
        waiting.start()
        while not turns.closed:
            time.sleep(0.001)
        assert not went
    waiting.join(10)
    assert went == [True]


def test_a_model_that_warms_up_counts_as_one_that_runs() -> None:
    gate = Gate()
    gate.open.clear()
    place = Place(Cpu(), Room(1), ServiceTimes(1))
    place.turns = Turns(patience_s=20)
    happened: list[str] = []

    def alone() -> None:
        with Seat(place.turns) as seat, seat.alone() as free:
            happened.append(f"alone {free} after {len(gate.ran)}")

    warming = threading.Thread(target=warm_up, args=([gate], [place], 1))
    waiting = threading.Thread(target=alone)
    warming.start()
    while not gate.ran:
        time.sleep(0.001)
    waiting.start()
    while not place.turns.closed and not happened:
        time.sleep(0.001)
    time.sleep(0.05)
    assert not happened
    gate.open.set()
    for thread in (warming, waiting):
        thread.join(10)
    assert happened == ["alone True after 1"]


def test_nothing_is_locked_while_nobody_wants_to_be_alone() -> None:
    turns = Turns()
    with Seat(turns) as seat:

        def batches() -> None:
            for _ in range(3):
                assert not seat.begin()
                seat.end()
            done.set()

        done = threading.Event()
        thread = threading.Thread(target=batches)
        with turns._changed:
            thread.start()
            assert done.wait(10)
        thread.join()


class Visited(Books):
    """While its first batch runs, somebody wants the device for himself."""

    def __init__(self, clock: Clock, turns: Turns, stream: Stream) -> None:
        super().__init__(clock, 20, True)
        self._turns = turns
        self._stream = stream
        self.thread = threading.Thread(target=self._visit)
        self.before = -1  # batches that were launched

    def ahead(self, instance: Instance) -> Taken | None:
        if not self.thread.ident:
            self.thread.start()
            while not self._turns.closed:
                time.sleep(0.001)
        return super().ahead(instance)

    def _visit(self) -> None:
        with Seat(self._turns) as seat, seat.alone() as free:
            assert free
            self.before = len(self._stream.launched)


def test_nothing_is_launched_behind_a_batch_that_is_waited_for() -> None:
    clock = Clock()
    stream = Stream(clock, 2)
    place = Place(Cpu(), Room(1), ServiceTimes(1))
    place.turns = Turns(patience_s=20)
    books = Visited(clock, place.turns, stream)
    instance = Instance(Launching(stream), place, clock, clock.sleep)
    instance.inbox.put(books.take())
    instance.work(books)
    books.thread.join(10)
    assert books.before == 2  # the first, and the one that was taken already
    assert len(stream.launched) == len(books.ran) == 20
    assert stream.launched[3].gap_ns == 0  # and then again
