"""Requests of more rows than a batch holds: run in parts, answered whole, or not at all."""

from asyncio import sleep
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadbench.engine.endpoint import Endpoint
from loadbench.engine.job import Job, Served
from loadbench.engine.policy import Rule
from loadbench.engine.protocol import Contract
from loadbench.engine.split import Whole
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from tests.batching import POISON, Asked, Gate, run, started
from tests.served import request_binary, request_json, rows, serving, settings

RULE = Rule("deadline", 8)
Answers = list[Served | Refused]


class Large:
    """Asks an endpoint for requests whose row i is all `first + i`."""

    def __init__(self, asked: Asked, gate: Gate) -> None:
        contract = Contract.of(gate, RULE.max_batch, 64)
        self.endpoint = Endpoint(gate, contract, asked.batcher, None, {})
        self.answers: Answers = []

    def ask(self, number: int, first: float = 1, bad: int | None = None) -> Job | Whole:
        x = np.repeat(np.arange(first, first + number, dtype=np.float32)[:, None], 2, axis=1)
        if bad is not None:
            x[bad] = POISON
        return self.endpoint.ask(Job({"x": x}, number, ((2,),), self._answered), None)

    def _answered(self, result: Served | Refused) -> bool:
        self.answers.append(result)
        return isinstance(result, Served)

    def doubled(self, number: int, first: float = 1) -> None:
        """The last answer must be these rows, in their order."""
        served = self.answers[-1]
        assert isinstance(served, Served)
        expected = 2 * np.arange(first, first + number, dtype=np.float32)
        assert served.outputs["y"][:, 0].tolist() == expected.tolist()


class OneByOne(Gate):
    """Lets one batch through each time it is opened."""

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return super().run(arrays)
        finally:
            self.open.clear()


async def settled(asked: Asked) -> None:
    """Waits until nothing is open any more."""
    for _ in range(2000):
        if not asked.batcher.open:
            return
        await sleep(0.005)
    raise AssertionError("requests are left open")


def test_the_parts_are_batches_of_their_own_and_the_answer_is_one() -> None:
    async def ask(asked: Asked, gate: Gate, account: Account) -> None:
        large = Large(asked, gate)
        large.ask(20)
        asked.ask(500, rows=3)  # rides with the last part, of four rows
        await settled(asked)
        assert [shape[0] for shape in gate.ran] == [8, 8, 7]
        large.doubled(20)
        asked.check(500, rows=3)
        assert len(large.answers) == 1
        served = large.answers[0]
        assert isinstance(served, Served)
        assert served.size == 8
        assert account.rows == 23

    run(ask, RULE, Gate())


def test_one_bad_row_fails_the_whole_and_what_still_waits_is_not_run() -> None:
    async def ask(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        large = Large(asked, gate)
        large.ask(40, bad=3)  # in the first part of five
        await started(gate, 1)
        gate.open.set()
        await started(gate, 2)  # the second part was on its way already
        while not large.answers:
            await sleep(0.005)
        (refused,) = large.answers
        assert isinstance(refused, Refused)
        assert "poison" in refused.message
        gate.open.set()
        await settled(asked)
        assert len(large.answers) == len(gate.ran) - 1 == 1
        assert (account.failed, account.success, account.shed) == (1, 1, {"cancelled": 3})
        assert account.wasted_rows == 8

    run(ask, RULE, OneByOne())


def test_a_client_that_is_gone_frees_the_places_of_all_parts() -> None:
    async def ask(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        large = Large(asked, gate)
        whole = large.ask(40)
        await started(gate, 1)
        large.endpoint.withdraw(whole)
        assert asked.batcher.waiting == 0
        gate.open.set()
        await settled(asked)
        assert not large.answers
        assert account.shed == {"cancelled": 4}
        assert account.wasted_rows == 8  # of the part that ran already

    run(ask, RULE, Gate())


def test_without_room_for_all_of_it_nothing_of_it_stays() -> None:
    async def ask(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(500)
        await started(gate, 1)
        large = Large(asked, gate)
        with pytest.raises(Refused, match="queue full") as caught:
            large.ask(40)
        assert caught.value.cause == "full"
        assert asked.batcher.waiting == 0
        gate.open.set()
        await settled(asked)
        assert not large.answers
        assert len(gate.ran) == 1

    run(ask, RULE, Gate(), waiting=20)


def test_a_server_answers_large_requests_and_says_where_they_end() -> None:
    with serving("fake", *settings("max_batch=8", "fake.a=1 ms", "max_request_rows=40")) as engine:
        body, headers = request_binary(rows(33))
        answer = engine.call("/v2/models/fake/infer", body, **headers)
        assert answer.tail == rows(33).tobytes()
        assert engine.call("/v2/models/fake/config").json["max_batch_size"] == 8
        statistics = engine.call("/v2/models/fake/stats").json["model_stats"][0]
        assert (statistics["inference_count"], statistics["execution_count"]) == (33, 5)
        refused = engine.call("/v2/models/fake/infer", request_json(rows(41)))
        assert refused.status == 400
        assert "limit of 40" in refused.json["error"]
        assert "engine.max_request_rows" in refused.json["error"]
