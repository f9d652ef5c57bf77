"""An instance's thread outlives whatever goes wrong in it: everyone is answered, the next too."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays
from loadbench.engine.job import Job
from loadbench.engine.mishaps import Mishaps
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from tests.batching import DEADLINE, POISON, Asked, Gate, run
from tests.served import request_json, serving, settings
from tests.test_execution import FAILS


def test_a_log_that_nobody_reads_costs_nobody_an_answer() -> None:
    chosen = settings("postprocess=tests.test_execution:gated", "watch.slow=0.001 ms")
    reader, writer = os.pipe()
    try:
        with serving("fake", *chosen, stderr=writer) as engine:
            os.close(writer)
            os.close(reader)

            def ask(value: float) -> int:
                body = request_json(np.full((1, 16), value))
                return engine.call("/v2/models/fake/infer", body).status

            assert [ask(value) for value in (2, FAILS, 4)] == [200, 500, 200]
            health = engine.call("/health").json
            assert (health["open"], health["requests"]["done"]) == (0, 2)
    finally:
        for file in (reader, writer):
            try:
                os.close(file)
            except OSError:
                continue


def test_parts_of_a_request_whose_answers_do_not_fit_together_are_an_error() -> None:
    class Ragged(Gate):
        """As wide as the largest value of a batch."""

        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            rows = len(super().run(arrays)["y"])
            return {"y": np.zeros((rows, int(arrays["x"].max())), np.float32)}

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        job = Job(
            {"x": np.array([[1], [1], [2], [2]], np.float32)},
            4,
            ((1,),),
            told.append,  # type: ignore[arg-type]
        )
        asked.batcher.submit(job, None)
        asked.ask(5, rows=2, width=1)
        await asked.until(1)
        assert isinstance(told[0], Refused)
        assert told[0].status == 500
        assert "'y' has rows of different shapes" in told[0].message
        assert asked.batcher.open == 0

    told: list[Any] = []
    run(test, DEADLINE, Ragged(room=2))


class Hasty(Gate):
    """Launches; what it launched cannot be asked whether it has ended, or tells no times."""

    def __init__(self, mute: bool) -> None:
        super().__init__()
        self.launcher = self
        self.mute = mute

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> "Flying":
        x = np.zeros(shapes["x"], np.float32)
        fill({"x": x})
        return Flying(self, x)


class Flying:
    gap_ns = 0

    def __init__(self, gate: Hasty, x: NDArray[Any]) -> None:
        self._gate = gate
        self._x = x

    def done(self) -> bool:
        if self._gate.mute:
            return True
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def wait(self) -> dict[str, NDArray[Any]]:
        return {"y": 2 * self._x}

    @property
    def compute_ns(self) -> int:
        if self._gate.mute:
            self._gate.mute = False
            raise RuntimeError("CUDA error: misaligned address")
        return 1000


def test_a_device_that_cannot_be_asked_ends_no_thread() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        for value in (1, 2, 3):
            asked.ask(value)
            await asked.until(value)
            asked.check(value)

    run(test, DEADLINE, Hasty(mute=False))


def test_a_fault_beside_the_model_is_the_batchs_and_the_next_one_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(POISON)
        await asked.until(1)
        fault = asked.answers[POISON]
        assert isinstance(fault, Refused)
        assert fault.message == said
        asked.ask(2)
        await asked.until(2)
        asked.check(2)
        assert (asked.batcher.open, account.failed, account.success) == (0, 1, 1)
        assert asked.batcher.places[0].busy == 0

    said = "the engine failed: RuntimeError: CUDA error: misaligned address"
    run(test, DEADLINE, Hasty(mute=True))
    assert said in capsys.readouterr().err

    tell, left = Mishaps.tell, [1]

    def once(self: Mishaps, jobs: Sequence[Job], fault: Refused, error: Exception | None) -> None:
        if left:
            raise KeyError(left.pop())
        tell(self, jobs, fault, error)

    monkeypatch.setattr(Mishaps, "tell", once)
    said = "the engine failed: KeyError: 1"
    run(test, DEADLINE, Gate())
    assert said in capsys.readouterr().err


class Panic(BaseException):
    """As pyo3 raises when code in Rust gives up."""


ENDING = [Panic("called `Option::unwrap()`"), SystemExit(2), asyncio.CancelledError()]


class Falling(Gate):
    """Raises for poisoned rows at one place. It launches if that is a place of those that do."""

    def __init__(self, where: str, raised: BaseException) -> None:
        super().__init__()
        self.where, self.raised = where, raised
        self.launcher = self if where in ("launch", "wait", "compute_ns") else None

    def fall(self, where: str, x: NDArray[Any]) -> None:
        if where == self.where and (x == POISON).any():
            raise self.raised

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.fall("run", arrays["x"])
        return super().run(arrays)

    def launch(
        self, shapes: Mapping[str, tuple[int, ...]], fill: Callable[[Arrays], object]
    ) -> "Flown":
        x = np.zeros(shapes["x"], np.float32)
        fill({"x": x})
        self.fall("launch", x)
        return Flown(self, x)


class Flown:
    gap_ns = 0

    def __init__(self, gate: Falling, x: NDArray[Any]) -> None:
        self._gate, self._x = gate, x

    def done(self) -> bool:
        return True

    def wait(self) -> dict[str, NDArray[Any]]:
        self._gate.fall("wait", self._x)
        return {"y": 2 * self._x}

    @property
    def compute_ns(self) -> int:
        self._gate.fall("compute_ns", self._x)
        return 1000


@pytest.mark.parametrize("raised", ENDING, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize("where", ["run", "launch", "wait", "compute_ns", "tell"])
def test_whatever_is_raised_is_the_batchs_and_ends_no_thread(
    raised: BaseException, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(POISON)
        await asked.until(1)
        fault = asked.answers[POISON]
        assert isinstance(fault, Refused)
        who = "engine" if where in ("compute_ns", "tell") else "model"
        assert fault.message == f"the {who} failed: {type(raised).__name__}: {raised}"
        asked.ask(2)
        await asked.until(2)
        asked.check(2)
        assert (asked.batcher.open, account.failed, account.success) == (0, 1, 1)

    tell, left = Mishaps.tell, [raised] if where == "tell" else []

    def once(self: Mishaps, jobs: Sequence[Job], fault: Refused, error: Any) -> None:
        if left:
            raise left.pop()
        tell(self, jobs, fault, error)

    monkeypatch.setattr(Mishaps, "tell", once)
    run(test, DEADLINE, Falling(where, raised))
