"""The batcher: who rides with whom, and who gets what."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadbench.engine.job import Job, Served
from loadbench.engine.policy import Rule
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.units import MS, SECOND
from tests.batching import DEADLINE, POISON, Asked, Gate, run, started


def test_what_comes_during_a_batch_rides_in_the_next_and_gets_its_own_rows() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        for value, rows in ((2, 3), (3, 1), (4, 2), (5, 4)):
            asked.ask(value, rows)
        gate.open.set()
        await asked.until(5)
        for value, rows in ((1, 1), (2, 3), (3, 1), (4, 2), (5, 4)):
            asked.check(value, rows)
        assert gate.ran == [(1, 2), (6, 2), (4, 2)]  # 3 + 1 + 2 and four more do not fit into 8
        assert account.closed == {"idle": {1: 1}, "full": {6: 1}, "late-bind": {4: 1}}

    run(test, DEADLINE, Gate())


def test_only_equal_shapes_share_a_batch() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        for value in range(2, 8):
            asked.ask(value, width=2 + value % 2)
        gate.open.set()
        await asked.until(7)
        for value in range(1, 8):
            asked.check(value)
        assert gate.ran == [(1, 2), (3, 2), (3, 3)]

    run(test, DEADLINE, Gate())


def test_a_poisoned_request_fails_alone() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        for value in (2, 3, POISON, 4, 2 * POISON, 5):
            asked.ask(value)
        gate.open.set()
        await asked.until(7)
        for value in (1, 2, 3, 4, 5):
            asked.check(value)
        poison, refused = asked.answers[POISON], asked.answers[2 * POISON]
        assert isinstance(poison, Refused)
        assert isinstance(refused, Refused)
        assert (poison.status, refused.status) == (500, 400)
        assert "ValueError: poison" in poison.message
        assert "Traceback" not in poison.message
        assert (account.success, account.failed, account.rows) == (5, 2, 5)

    run(test, DEADLINE, Gate())


def test_a_batch_without_room_is_halved_and_later_ones_are_smaller() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        for value in range(2, 10):
            asked.ask(value)
        gate.open.set()
        await asked.until(9)
        for value in range(1, 10):
            asked.check(value)
        assert gate.ran[1:] == [(8, 2), (4, 2), (2, 2), (2, 2), (4, 2), (2, 2), (2, 2)]
        gate.ran.clear()
        gate.open.clear()
        asked.ask(10)
        await started(gate, 1)
        for value in range(11, 15):
            asked.ask(value)
        gate.open.set()
        await asked.until(14)
        assert gate.ran == [(1, 2), (2, 2), (2, 2)]

    run(test, DEADLINE, Gate(room=2))


@pytest.mark.parametrize("more", [0, 1])
def test_only_whoever_is_answered_alone_does_not_wait_for_the_engine_to_learn(more: int) -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        books = asked.batcher._scheduler
        known = [books.last_batch]  # at each answer: the last batch that was learned from

        def reply(result: Served | Refused) -> bool:
            known.append(books.last_batch)
            return isinstance(result, Served)

        def ask() -> None:
            job = Job({"x": np.ones((1, 2), np.float32)}, 1, ((2,),), reply)
            asked.batcher.submit(job, None)

        gate.open.clear()
        ask()
        await started(gate, 1)
        for _ in range(more):
            ask()
        gate.open.set()
        async with asyncio.timeout(10):
            while len(known) < 2 + more:
                await asyncio.sleep(0.005)
        learned = [later > before for before, later in pairwise(known)]
        assert learned == [True] * more + [False]  # behind the last one nobody waited
        (instance,) = asked.batcher._instances
        assert books.last_batch == instance.free_since > known[-1]

    run(test, DEADLINE, Gate())


def test_a_full_queue_refuses_and_says_why() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        asked.ask(2, rows=3)
        with pytest.raises(Refused, match="queue full: 3 rows wait, 4 may") as refused:
            asked.ask(3, rows=2)
        assert refused.value.status == 503
        asked.ask(4)
        gate.open.set()
        await asked.until(3)
        assert account.shed == {"queue full": 1}
        assert account.success == 3

    run(test, DEADLINE, Gate(), waiting=4)


def test_a_request_that_nobody_wants_any_more_is_not_run() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        gone = asked.ask(2)
        asked.ask(3)
        asked.batcher.cancel(gone)
        asked.batcher.cancel(gone)
        assert asked.batcher.waiting == 1
        gate.open.set()
        await asked.until(2)
        assert asked.answers.keys() == {1, 3}
        assert gate.ran == [(1, 2), (1, 2)]
        assert account.shed == {"cancelled": 1}
        assert asked.batcher.open == 0

    run(test, DEADLINE, Gate())


def test_what_cannot_be_answered_in_time_is_given_up_before_it_runs() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        asked.ask(2, timeout=20 * MS)
        asked.ask(3, timeout=20 * SECOND)
        await asyncio.sleep(0.05)
        gate.open.set()
        await asked.until(3)
        asked.check(3)
        late = asked.answers[2]
        assert isinstance(late, Refused)
        assert late.status == 503
        assert "given up before it ran: its deadline passed" in late.message
        assert account.shed == {"expired": 1}

    run(test, DEADLINE, Gate(), slo=30 * SECOND)


def test_earlier_deadlines_go_first() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        for value, timeout in ((2, 90 * SECOND), (3, 500 * MS), (4, 700 * MS)):
            asked.ask(value, timeout=timeout)
        gate.open.set()
        await asked.until(4)
        assert list(asked.answers) == [1, 3, 4, 2]

    run(test, DEADLINE._replace(max_batch=1), Gate())


def test_fixed_holds_a_batch_for_its_wait_and_counts_it_as_batch_wait() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(1)
        await asyncio.sleep(0.02)
        asked.ask(2)
        assert not gate.ran
        await asked.until(2)
        assert gate.ran == [(2, 2)]
        first = asked.check(1)
        assert first.batch_wait_ns >= 300 * MS
        assert first.queue_ns == 0
        assert account.closed == {"hold": {2: 1}}

    run(test, Rule("fixed", 8, 300 * MS), Gate())


def test_waiting_for_a_busy_instance_is_queue_and_not_batch_wait() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        asked.ask(2)
        await asyncio.sleep(0.1)
        gate.open.set()
        await asked.until(2)
        second = asked.check(2)
        assert second.queue_ns >= 99 * MS
        assert second.batch_wait_ns == 0
        assert asked.check(1).compute_ns >= 99 * MS
        assert account.engine().queue.maximum == pytest.approx(second.queue_ns, rel=0.001)

    run(test, DEADLINE, Gate())


def test_instances_run_side_by_side() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        for value in (1, 2):
            asked.ask(value)
            await started(gate, value)
        asked.ask(3)
        await asyncio.sleep(0.05)
        assert len(gate.ran) == 2
        gate.open.set()
        await asked.until(3)
        assert asked.check(2).queue_ns == 0

    run(test, DEADLINE, Gate(), instances=2)


def test_an_unbatched_model_gets_each_request_as_it_is() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        for value in (1, 2):
            asked.ask(value, rows=3)
        await asked.until(2)
        assert gate.ran == [(3, 2), (3, 2)]
        asked.check(2, rows=3)

    run(test, Rule("none", 1), Gate(batched=False))


def test_draining_finishes_what_waits_and_takes_nothing_new() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(1)
        await asyncio.sleep(0.02)
        asked.batcher.drain()
        with pytest.raises(Refused, match="shutting down"):
            asked.ask(2)
        await asked.until(1)
        assert account.closed == {"drain": {1: 1}}

    run(test, Rule("fixed", 8, 60 * SECOND), Gate())


def test_a_drain_that_takes_too_long_refuses_what_still_waits() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1)
        await started(gate, 1)
        asked.ask(2)
        asked.batcher.drain()
        asked.batcher.refuse_waiting()
        assert isinstance(asked.answers[2], Refused)
        gate.open.set()
        await asked.until(2)
        asked.check(1)
        assert asked.batcher.open == 0

    run(test, DEADLINE, Gate())


def test_an_output_of_the_wrong_length_is_a_fault_and_nobody_gets_foreign_rows() -> None:
    class Short(Gate):
        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            outputs = super().run(arrays)
            return {"y": outputs["y"][:-1]} if len(outputs["y"]) > 1 else outputs

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(1, rows=2)
        asked.ask(2)
        await asked.until(2)
        fault = asked.answers[1]
        assert isinstance(fault, Refused)
        assert "for 2 rows" in fault.message
        asked.check(2)

    run(test, DEADLINE, Short())


def test_the_books_agree_with_what_was_asked() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        for value in range(1, 201):
            asked.ask(value, rows=1 + value % 3)
            if value % 7 == 0:
                await asyncio.sleep(0.001)
        await asked.until(200)
        statistics = account.engine()
        rows = sum(1 + value % 3 for value in range(1, 201))
        assert account.success == statistics.queue.count == statistics.compute.count == 200
        assert account.rows == rows == sum(n * size.batches for n, size in statistics.sizes.items())
        assert sum(size.requests for size in statistics.sizes.values()) == 200
        batches = sum(size.batches for size in statistics.sizes.values())
        assert batches == account.batches == len(gate.ran) == len(statistics.recent)
        closed = sum(sum(sizes.values()) for sizes in statistics.closed.values())
        assert closed == batches
        assert sum(batch.rows for batch in statistics.recent) == rows
        assert sum(batch.compute_ns for batch in statistics.recent) == statistics.busy_ns
        assert [batch.number for batch in statistics.recent] == list(range(1, batches + 1))

    run(test, DEADLINE, Gate())
