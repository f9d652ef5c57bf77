"""Sequences of a stateful model: a server that sees every request, over HTTP and over gRPC."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.inputs import prepare
from loadbench.targets.messages import message
from loadbench.targets.sequence import HIGHEST, LOWEST, MARK, written
from loadbench.units import SECOND
from tests.answering import Answering, Handler, serve
from tests.lanes import Done, drive, plan
from tests.rpc_server import answer, endpoint, serving
from tests.running import loadbench

ANSWER = {"model_name": "m", "outputs": [
    {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]},
]}  # fmt: skip


class Step(NamedTuple):
    """What one request said of its sequence."""

    number: int
    start: bool
    end: bool


class Watcher:
    """Sees requests in the order in which they are answered; refuses every `every`th, 0: none."""

    def __init__(self, every: int = 0) -> None:
        self.lock = threading.Lock()
        self.steps: list[Step] = []
        self.refused: list[Step] = []
        self.under_way: set[int] = set()
        self.together: list[int] = []  # sequences with two requests at once
        self._every = every

    def came(self, parameters: dict[str, Any]) -> bool:
        """Whether it is to be answered well."""
        step = Step(*(parameters[f"sequence_{name}"] for name in ("id", "start", "end")))
        with self.lock:
            if step.number in self.under_way:
                self.together.append(step.number)
            self.under_way.add(step.number)
            self.steps.append(step)
            if self._every and len(self.steps) % self._every == 0:
                self.refused.append(step)
                return False
            return True

    def left(self, parameters: dict[str, Any]) -> None:
        with self.lock:
            self.under_way.discard(parameters["sequence_id"])

    def sequences(self) -> dict[int, list[Step]]:
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.number, []).append(step)
        return found

    def check(self, lengths: tuple[int, int], still_open: int) -> None:
        """Each began with its first, in order, and ended with its last; but for those that were
        refused, and as many as may have been open in the end."""
        broken = {step.number for step in self.refused}
        unended = 0
        for number, steps in self.sequences().items():
            assert LOWEST <= number <= HIGHEST
            assert [step.start for step in steps] == [True, *[False] * (len(steps) - 1)]
            assert not any(step.end for step in steps[:-1])
            assert len(steps) <= lengths[1]
            if steps[-1].end:
                assert len(steps) >= lengths[0]
            elif number not in broken:
                unended += 1
        assert unended <= still_open
        assert self.together == []


@contextmanager
def http_server(watcher: Watcher) -> Iterator[Endpoint]:
    class Watched(Handler):
        def do_POST(self) -> None:
            asked = json.loads(self.body())
            good = watcher.came(asked["parameters"])
            watcher.left(asked["parameters"])
            self.tell(200 if good else 500, ANSWER if good else {"error": "no"})

    with serve(Answering(Watched)) as server:
        yield Endpoint(
            host="127.0.0.1", port=server.server_port, protocol="kserve", model="m",
            inputs=(Tensor("x", "FP32", (4,)),), outputs=(Tensor("y", "FP32", (3,)),), binary=False,
        )  # fmt: skip


@contextmanager
def rpc_server(watcher: Watcher) -> Iterator[Endpoint]:
    def infer(data: bytes, context: Any) -> bytes:
        asked = message("inference.ModelInferRequest").FromString(data)
        said = {
            name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in asked.parameters.items()
        }
        good = watcher.came(said)
        watcher.left(said)
        if not good:
            context.abort(grpc.StatusCode.INTERNAL, "no")
        return answer()

    with serving(infer) as server:
        yield endpoint(server.port)


SERVERS = {"http": http_server, "grpc": rpc_server}


def load(where: Endpoint, **changed: Any) -> Done:
    kind = RequestPlan("infer", sequence="uniform(3, 6)")
    found = drive(plan(where.port, endpoint=where, requests=(kind,), **changed))
    found.check()
    return found


@pytest.mark.parametrize("protocol", SERVERS)
def test_each_sequence_comes_whole_and_in_order(protocol: str) -> None:
    watcher = Watcher()
    with SERVERS[protocol](watcher) as where:
        found = load(where, arrivals="closed", concurrency=4, seconds=1.0, warmup_ns=SECOND // 4)
    assert found.failed == {}
    assert len(watcher.sequences()) > 10
    watcher.check((3, 6), still_open=4)
    assert {len(steps) for steps in watcher.sequences().values() if steps[-1].end} == {3, 4, 5, 6}


@pytest.mark.parametrize("protocol", SERVERS)
def test_in_an_open_loop_sequences_have_their_turns(protocol: str) -> None:
    watcher = Watcher()
    with SERVERS[protocol](watcher) as where:
        found = load(where, rate=200, seconds=1.0, connections=5)
    assert found.failed == {}
    watcher.check((3, 6), still_open=5)


@pytest.mark.parametrize("connections", [1, 3])
def test_sequences_of_several_replicas_end_before_their_connections(connections: int) -> None:
    one, two = Watcher(), Watcher()
    with http_server(one) as first, http_server(two) as second:
        found = load(first, replicas=(second,), rate=200, seconds=1.0, connections=connections)
    assert found.failed == {}
    for watcher in (one, two):
        watcher.check((3, 6), still_open=connections)
        assert len(watcher.sequences()) > 2


@pytest.mark.parametrize("protocol", SERVERS)
def test_one_that_has_failed_is_broken_and_the_next_begins(protocol: str) -> None:
    watcher = Watcher(every=7)
    with SERVERS[protocol](watcher) as where:
        found = load(where, rate=200, seconds=1.0, connections=3)
    assert sum(found.failed.values()) == len(watcher.refused) > 10
    for step in watcher.refused:
        assert watcher.sequences()[step.number][-1] == step
    watcher.check((3, 6), still_open=3)


def test_a_sequence_of_one_begins_and_ends_itself() -> None:
    watcher = Watcher()
    with http_server(watcher) as where:
        kind = RequestPlan("infer", sequence="1")
        drive(plan(where.port, endpoint=where, requests=(kind,), rate=100, seconds=0.3))
    assert watcher.steps
    assert all(step.start and step.end for step in watcher.steps)


def test_numbers_take_the_same_room_whatever_they_are() -> None:
    rpc = Endpoint("h", 1, "grpc")
    for number in (LOWEST, MARK, HIGHEST):
        assert len(written(rpc, number)) == 8
        assert len(written(Endpoint("h", 1, "kserve"), number)) == 16


@pytest.mark.parametrize(
    ("protocol", "kinds", "said"),
    [
        ("http", [RequestPlan("a", sequence="3")], "of KServe"),
        ("kserve", [RequestPlan("a", sequence="3"), RequestPlan("b")], "one kind of request"),
        ("kserve", [RequestPlan("a", sequence="3", parameters={"sequence_id": 4})], "sets"),
    ],
)
def test_what_cannot_be_a_sequence_is_said(
    protocol: Any, kinds: list[RequestPlan], said: str
) -> None:
    where = Endpoint("h", 1, protocol, inputs=(Tensor("x", "FP32", (4,)),))
    with pytest.raises(SpecError, match=said):
        prepare(where, kinds, 1)


def test_a_length_that_is_none_is_said_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[request]]\nname = "a"\nsequence = "often"\n')
    found = loadbench("run", path, "--dry-run", cwd=tmp_path, code=2)
    assert "sequence" in found.stderr
    assert "often" in found.stderr
