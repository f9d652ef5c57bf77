"""A batcher with real threads and an event loop, and a model that runs when it is let."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.job import Job, Served
from loadbench.engine.policy import Rule
from loadbench.engine.service import ServiceTimes
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor

POISON = -1.0


class Gate:
    """A model that doubles its rows, when it is let; a poisoned row makes it fail."""

    name = "gate"
    version = "1"
    platform = "test"
    inputs: tuple[Tensor, ...] = (Tensor("x", "FP32", (-1,)),)
    outputs: tuple[Tensor, ...] = (Tensor("y", "FP32", (-1,)),)
    max_batch: int | None = None
    device = "cpu"
    precision = "fp32"
    notes: tuple[Note, ...] = ()

    def __init__(self, room: int = 1 << 30, batched: bool = True) -> None:
        self.metadata: dict[str, Any] = {}
        self.batched = batched
        self.room = room
        self.open = threading.Event()
        self.open.set()
        self.ran: list[tuple[int, ...]] = []

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = arrays["x"]
        self.ran.append(x.shape)
        assert self.open.wait(10)
        if len(x) > self.room:
            raise MemoryError(f"no room for {len(x)}")
        if (x == POISON).any():
            raise ValueError("poison")
        if (x == 2 * POISON).any():
            raise SpecError("the model takes no such number")
        return {"y": x * 2}

    def memory(self) -> dict[str, int]:
        return {"CPU": 0}


class Asked:
    """Requests to a batcher and their answers, in order."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.answers: dict[float, Served | Refused] = {}

    def ask(self, value: float, rows: int = 1, width: int = 2, timeout: int | None = None) -> Job:
        """A request whose values are all `value`."""

        def reply(result: Served | Refused) -> bool:
            assert value not in self.answers, "answered twice"
            self.answers[value] = result
            return isinstance(result, Served)

        x = np.full((rows, width), value, np.float32)
        job = Job({"x": x}, rows, ((width,),), reply)
        job.size_bytes = x.nbytes
        self.batcher.submit(job, timeout)
        return job

    async def until(self, number: int) -> None:
        """Waits for so many answers."""
        for _ in range(2000):
            if len(self.answers) >= number:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{len(self.answers)} answers instead of {number}")

    def check(self, value: float, rows: int = 1) -> Served:
        """The answer must be this request's own rows, doubled."""
        served = self.answers[value]
        assert isinstance(served, Served)
        assert served.outputs["y"].shape[0] == rows
        assert (served.outputs["y"] == 2 * value).all()
        return served


async def started(gate: Gate, number: int) -> None:
    """Waits until so many batches have reached the model."""
    for _ in range(2000):
        if len(gate.ran) >= number:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(gate.ran)} batches instead of {number}")


Test = Callable[[Asked, Gate, Account], Coroutine[Any, Any, None]]


def run(
    test: Test, rule: Rule, gate: Gate, slo: int | None = None, waiting: int = 1000,
    instances: int = 1,
) -> None:  # fmt: skip
    """Runs a test against a batcher of its own."""

    async def main() -> None:
        account = Account()
        terms = Terms(rule, waiting, 1 << 20, slo)
        batcher = Batcher(
            [gate] * instances,
            terms,
            ServiceTimes(rule.max_batch),
            account,
            asyncio.get_running_loop(),
        )
        batcher.start()
        try:
            await test(Asked(batcher), gate, account)
        finally:
            gate.open.set()
            assert batcher.stop(5)

    asyncio.run(main())


DEADLINE = Rule("deadline", 8)
