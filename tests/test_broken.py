"""A device that has failed for good: a stand-in raises what a broken CUDA context raises."""

import asyncio
import json
from typing import Any

import pytest
import torch

from loadbench.engine.device.broken import fault_of
from loadbench.engine.device.seam import Memory, State
from loadbench.engine.orders import Offer
from loadbench.engine.place import Place
from loadbench.engine.repository import Repository
from loadbench.engine.room import Footprint, Room
from loadbench.engine.rpc import bridge
from loadbench.engine.service import ServiceTimes
from loadbench.engine.serving import Service
from loadbench.engine.tensors import Refused
from loadbench.engine.watch import Watcher
from loadbench.errors import LoadbenchError
from loadbench.spec import EngineSpec
from tests.served import request_json, rows

SAID = "CUDA error: device-side assert triggered"


class AcceleratorError(RuntimeError):
    """Called as torch's."""


class Failing:
    """The fake model on a card that fails while `error` is set."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, arrays: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.inner.run(arrays)


def test_readiness_turns_with_what_the_device_does() -> None:
    with asyncio.Runner() as runner:
        repository = Repository(Offer(("fake",), EngineSpec(), False), runner.get_loop())
        repository.open_all()
        (endpoint,) = repository.endpoints()
        made: list[Failing] = []
        endpoint.batcher.replace(lambda found: made.append(Failing(found)) or made[-1])  # type: ignore[func-returns-value]
        repository.start()
        service = Service(repository)

        def ask(error: Exception | None) -> int:
            made[0].error = error
            body = json.dumps(request_json(rows(1))).encode()
            try:
                runner.run(bridge.post(service, b"/v2/models/fake/infer", body))
            except Refused as fault:
                return fault.status
            return 200

        def told() -> tuple[list[bytes], dict[str, Any]]:
            paths = (b"/v2/health/ready", b"/v2/models/fake/ready", b"/v2/health/live")
            return (
                [service.answer(b"GET", path, b"")[9:12] for path in paths],
                bridge.get(service, b"/health"),
            )

        broken = AcceleratorError(f"{SAID}\nCompile with TORCH_USE_CUDA_DSA")
        outcomes = [broken, broken, None, broken, broken, ValueError("its own"), SPACE, SPACE]
        assert [ask(error) for error in outcomes] == [500, 500, 200, 500, 500, 500, 500, 500]
        states, health = told()
        assert states == [b"200"] * 3
        assert (health["status"], health["reason"]) == ("ok", "")
        assert ask(broken) == 500
        states, health = told()
        assert states == [b"503", b"503", b"200"]
        assert (health["status"], health["reason"]) == ("broken", SAID)
        assert ask(None) == 200
        assert told()[0] == [b"200"] * 3
        repository.stop(5)


def unloaded(runner: asyncio.Runner, repository: Repository, name: str) -> list[Refused | None]:
    """What whoever asked for it is answered."""
    told: list[Refused | None] = []

    async def unload() -> None:
        repository.unload(name, "", told.append)
        for _ in range(500):
            if told:
                return
            await asyncio.sleep(0.01)

    runner.run(unload())
    return told


def test_a_version_leaves_a_device_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: torch.Tensor) -> torch.Tensor:
        raise AcceleratorError(SAID)

    with asyncio.Runner() as runner:
        models = ("a=resnet-tiny", "b=resnet-tiny", "fake")  # they have buffers
        repository = Repository(Offer(models, SMALL, False), runner.get_loop())
        repository.open_all()
        repository.start()
        last = repository.find("fake").batcher
        monkeypatch.setattr(torch.Tensor, "cpu", fails)
        assert unloaded(runner, repository, "a") == [None]
        assert {row.name: row.state for row in repository.index()} == {
            "a": "UNAVAILABLE", "b": "READY", "fake": "READY",
        }  # fmt: skip
        assert repository.stop(5)
        assert not any(found.thread and found.thread.is_alive() for found in last._instances)


def test_what_fails_when_a_version_leaves_keeps_nobody_waiting() -> None:
    def fails() -> None:
        raise KeyError("of the end")

    with asyncio.Runner() as runner:
        repository = Repository(Offer(("fake",), EngineSpec(), False), runner.get_loop())
        repository.open_all()
        repository.start()
        found = repository.find("fake")
        assert found.watcher is not None
        found.watcher.stop()  # its thread would outlive the loop to which it tells
        found.watcher = Watcher([], print, fails)
        assert unloaded(runner, repository, "fake") == [None]
        assert [row.state for row in repository.index()] == ["UNAVAILABLE"]


SMALL = EngineSpec(max_batch=2, threads=1, precision="fp32", packed=False)
SPACE = AcceleratorError("CUDA error: out of memory")


def circular() -> Exception:
    error = ValueError("its own")
    error.__cause__ = error
    return error


def wrapped(cause: Exception) -> Exception:
    try:
        raise LoadbenchError("of a plugin") from cause
    except LoadbenchError as error:
        return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, ""),
        (ValueError("its own"), ""),
        (SPACE, ""),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), ""),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), "CUBLAS_STATUS_EXECUTION"),
        (RuntimeError("CUDA failure 700: an illegal memory access"), "CUDA failure 700"),
        (RuntimeError("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED"), "CUBLAS failure 13"),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), ""),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "CUDNN_STATUS_EXECUTION"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), ""),  # that may be the input's
        (AcceleratorError(""), "AcceleratorError"),
        (wrapped(AcceleratorError(SAID)), SAID),
        (circular(), ""),
    ],
)  # fmt: skip
def test_whose_fault_an_error_is(error: Exception | None, said: str) -> None:
    found = fault_of(error)
    assert said in found
    assert bool(found) == bool(said)


class Card:
    """A device that cannot be read any more."""

    name, uuid = "cuda:0", ""

    def title(self) -> str:
        return ""

    def memory(self) -> Memory:
        raise AcceleratorError(SAID)

    def state(self) -> State:
        return State()

    def begin_peak(self) -> None: ...
    def peak(self) -> int | None: ...


def test_a_device_that_cannot_be_read_is_as_broken() -> None:
    place = Place(Card(), Room(8), ServiceTimes(8))
    place.footprint = Footprint(0, 1)
    for _ in range(3):
        assert not place.verdict.broken
        place.apply(place.look())
    assert place.verdict.broken == SAID
