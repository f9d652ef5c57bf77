"""Serving on simulated GPUs: out of memory, throttled, beside another process, padded, on several
cards. Every request is accounted, no good row fails, and each gets its own rows back."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from loadbench.engine.backends.fake import FakeModel
from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.device.simulated import Gpu
from loadbench.engine.job import Job, Served
from loadbench.engine.place import Place
from loadbench.engine.room import Room
from loadbench.engine.rule import Rule
from loadbench.engine.service import ServiceTimes
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.simspec import SimSpec
from loadbench.spec import FakeSpec
from tests.served import Engine, request_binary, rows, serving, settings


class Counted(Gpu):
    """Counts the smallest batches that chance gave no memory, whose requests may fail; and what
    ran."""

    least = 1
    unlucky = 0
    most = 0

    @contextmanager
    def batch(self, rows: int) -> Iterator[None]:
        try:
            with super().batch(rows):
                self.most = max(self.most, rows)
                yield
        except MemoryError as error:
            if rows == self.least and "drawn" in str(error):
                self.unlucky += 1
            raise


class Crowd:
    """Requests of unlike numbers of rows, all rows different, and what became of them."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._next = 0
        self.asked = self.right = 0
        self.failed: list[str] = []
        self.late = 0

    def ask(self, number: int, timeout_ns: int | None) -> None:
        x = rows(number, self._next)
        self._next += number * 16
        self.asked += 1
        answered: list[bool] = []

        def reply(result: Served | Refused) -> bool:
            assert not answered, "answered twice"
            answered.append(True)
            if isinstance(result, Served):
                assert np.array_equal(result.outputs["y"], x)
                self.right += 1
                return True
            if result.status == 503:
                self.late += 1
            else:
                self.failed.append(result.message)
            return False

        self._batcher.submit(Job({"x": x}, number, ((16,),), reply), timeout_ns)

    @property
    def answered(self) -> int:
        return self.right + self.late + len(self.failed)


SIZES = ((), (1, 2, 4, 8, 16), (4, 16))
SIM = {"memory": "1 GB", "weights": "100 MB", "batch": "50 MB", "row": "40 MB"}


# not shrunk: what threads do does not come again the same
@hypothesis_settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.integers(1, 6), min_size=20, max_size=120),
    st.sampled_from(SIZES),
    st.sampled_from(["0 %", "20 %"]),
    st.integers(1, 2),
    st.sampled_from([None, 30_000_000]),
    st.integers(0, 99),
    st.integers(1, 2),
)
def test_whatever_a_card_does_everyone_gets_his_own_rows(
    numbers: list[int], sizes: tuple[int, ...], oom: str, cards: int, timeout: int | None,
    seed: int, depth: int,
) -> None:  # fmt: skip
    """The other process comes and goes, and the throttle, ten times in the time of the test; then
    memory for five rows is left, so that nothing may fail but what chance takes."""
    spec = SimSpec.model_validate(
        SIM | {"other": "650 MB for 7 ms every 15 ms", "throttle": "3 for 9 ms every 20 ms",
               "oom": oom, "seed": seed, "depth": depth}
    )  # fmt: skip
    fake = FakeSpec.model_validate({"a": "200 us", "c": "20 us"})
    devices = [Counted(index, spec) for index in range(cards)]
    for card in devices:
        card.least = sizes[0] if sizes else 1
    models = [FakeModel(fake, card) for card in devices]
    places = [Place(card, Room(16, sizes=sizes), ServiceTimes(16, sizes), sizes=sizes)
              for card in devices]  # fmt: skip
    for place in places:
        place.fit({1: 90_000_000, 16: 690_000_000}, {}, free=False)

    async def main() -> tuple[Crowd, Account]:
        account = Account()
        terms = Terms(Rule("deadline", 16), 10_000, 1 << 30, None, places)
        loop = asyncio.get_running_loop()
        batcher = Batcher(models, terms, places[0].service, account, loop)
        batcher.start()
        crowd = Crowd(batcher)
        try:
            for at, number in enumerate(numbers):
                crowd.ask(number, timeout)
                if at % 7 == seed % 7:
                    batcher.survey()
                    await asyncio.sleep(0.001)
            for _ in range(4000):
                if crowd.answered == crowd.asked:
                    break
                batcher.survey()
                await asyncio.sleep(0.005)
            assert batcher.open == 0
        finally:
            assert batcher.stop(10)
        return crowd, account

    crowd, account = asyncio.run(main())
    assert crowd.answered == crowd.asked == len(numbers)
    assert account.success == crowd.right
    assert account.failed == len(crowd.failed)
    assert sum(account.shed.values()) == crowd.late
    assert len(crowd.failed) <= sum(card.unlucky for card in devices)
    assert all("out of memory" in text for text in crowd.failed)
    if timeout is None:
        assert crowd.late == 0
    assert [place.busy for place in places] == [0] * cards
    statistics = account.engine()
    assert statistics.padded_rows == sum(batch.padded for batch in statistics.recent)
    for card in devices:
        assert card.most <= 16
        assert card.memory().used == 100_000_000  # nothing is left behind


def infer(engine: Engine, x: Any) -> int:
    """Asks and checks one request; its status."""
    body, headers = request_binary(x)
    answer = engine.call("/v2/models/fake/infer", body, **headers)
    if answer.status == 200:
        assert answer.tail == x.tobytes()
    return answer.status


def ground(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.stats()["loadbench"]["grounds"][0]
    return found


def eventually(found: Callable[[], bool]) -> None:
    """Waits for a condition that may take a while on a busy machine."""
    until = time.monotonic() + 30
    while not found():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_engine_on_a_simulated_card_gives_way_to_another_process_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves all the while; what limits it, and what disturbs it, is told."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    options = settings(
        "device=sim", "fake.a=1 ms", "sim.memory=2 GB", "sim.row=20 MB",
        "sim.other=1100 MB for 1500 ms every 4 s", "sim.throttle=2 for 1500 ms every 4 s",
    )  # fmt: skip
    bounds: list[tuple[int, str]] = []
    stop = threading.Event()
    with serving("fake", *options) as engine, ThreadPoolExecutor(4) as pool:

        def ask(first: int) -> set[int]:
            asked = set()
            while not stop.is_set():
                asked.add(infer(engine, rows(5, first)))
            return asked

        asking = [pool.submit(ask, 1000 * number) for number in range(4)]
        try:
            for limit, bound in ((32, "max_batch"), (13, "memory"), (32, "max_batch")):
                eventually(lambda want=limit: ground(engine)["limit"] == want)  # type: ignore[misc]
                now = ground(engine)
                bounds.append((now["limit"], now["bound"]))
                if bound == "memory":
                    assert now["throttle"] == ["thermal (simulated)"]
                    assert (now["slowdown"], len(now["others"])) == (2.0, 1)
        finally:
            stop.set()
        assert [found.result(30) for found in asking] == [{200}] * 4
        assert bounds == [(32, "max_batch"), (13, "memory"), (32, "max_batch")]
        health = engine.call("/health").json
        assert health["devices"][0]["device"] == "sim:0"
        assert engine.stop() == 0


def test_a_request_that_fits_nowhere_fails_alone_and_says_why() -> None:
    """Chance takes the memory of every third batch: requests of one row fail with it, and what was
    with them in a batch does not."""
    options = settings("device=sim", "fake.a=1 ms", "sim.oom=30 %", "max_batch=8", "sim.seed=5")
    with serving("fake", *options) as engine, ThreadPoolExecutor(16) as pool:
        asked = list(pool.map(lambda at: infer(engine, rows(1, 16 * at)), range(300)))
        stats = engine.stats()
        assert set(asked) == {200, 500}
        assert stats["inference_stats"]["success"]["count"] == asked.count(200)
        assert stats["loadbench"]["failed"] == asked.count(500)
        assert ground(engine)["bound"] == "oom"
        while True:  # 30 % each
            body, headers = request_binary(rows(1))
            answer = engine.call("/v2/models/fake/infer", body, **headers)
            if answer.status == 500:
                break
        assert "out of memory: sim:0 has no room" in answer.json["error"]


def test_batches_are_padded_to_the_sizes_asked_for_and_nobody_sees_it() -> None:
    options = settings("device=sim", "fake.a=20 ms", "buckets=[4,8]", "max_batch=32")
    with serving("fake", *options) as engine, ThreadPoolExecutor(8) as pool:
        assert set(engine.stats()["loadbench"]["warm_ns"]) == {"4", "8"}
        assert engine.stats()["loadbench"]["max_batch"] == 8
        asked = list(pool.map(lambda at: infer(engine, rows(1 + at % 3, 48 * at)), range(60)))
        assert set(asked) == {200}
        found = engine.stats()["loadbench"]
        for batch in found["recent"]:
            assert batch["rows"] + batch["padded"] in (4, 8)
        assert found["padded_rows"] == sum(batch["padded"] for batch in found["recent"]) > 0
        assert sum(batch["rows"] for batch in found["recent"]) == 120


def test_instances_on_several_cards_share_the_work() -> None:
    options = settings("device=sim:0,sim:1", "sim.cards=2", "fake.a=30 ms", "max_batch=1")
    with serving("fake", *options) as engine, ThreadPoolExecutor(2) as pool:
        begun = time.monotonic_ns()
        assert set(pool.map(lambda at: infer(engine, rows(1, at)), range(20))) == {200}
        found = engine.stats()["loadbench"]
        assert found["instances"] == 2
        assert [ground["device"] for ground in found["grounds"]] == ["sim:0", "sim:1"]
        assert found["busy_ns"] > 1.2 * (time.monotonic_ns() - begun)  # most of it side by side


def test_a_second_engine_on_a_card_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    options = settings("device=sim", "fake.a=0 ms", "max_batch=1")

    def notes(engine: Engine) -> list[str]:
        return [note["code"] for note in engine.call("/health").json["notes"]]

    with serving("fake", *options) as first, serving("fake", *options) as second:
        assert (notes(first), notes(second)) == ([], ["other-engine"])
        assert f"process {first.process.pid}" in json.dumps(second.call("/health").json)
    with serving("fake", *options) as third:
        assert notes(third) == []


def test_mistakes_in_the_settings_are_one_error() -> None:
    for pairs, word in (
        (("device=sim:3",), "there is no sim:3"),
        (("device=sim", "sim.weights=9 GB"), "does not fit into the memory"),
        (("device=sim", "sim.other=nonsense"), "write it like"),
        (("device=cuda:0,sim:1",), "device"),
    ):
        with pytest.raises(AssertionError) as caught, serving("fake", *settings(*pairs)):
            pass
        assert word in str(caught.value)
        assert not re.search("Traceback", str(caught.value))


def test_each_version_holds_its_own_weights_and_the_next_needs_no_more() -> None:
    chosen = settings("device=sim", "fake.a=0 ms", "max_batch=2", "sim.memory=1 GB")
    with serving("fake", *chosen, *settings("sim.weights=250 MB")) as engine:
        for version in ("2", "3"):  # beside one another: each is a canary of the first
            asked = {"parameters": {"version": version, "canary": 0.1}}
            loaded = engine.call("/v2/repository/models/fake/load", asked)
            assert loaded.status == 200, loaded.json
            kept = {"aliases": {f"keep{version}": version}}
            assert engine.call("/v2/repository/models/fake/traffic", kept).status == 200
        told = engine.call("/v2/models/fake/stats").json["model_stats"]
        memory = [entry["memory_usage"] for entry in told if entry["version"] in "123"]
        assert [used[0]["byte_size"] for used in memory] == [250_000_000] * 3
        asked = {"parameters": {"version": "4", "canary": 0.1}}
        refused = engine.call("/v2/repository/models/fake/load", asked)
        assert "needs about 0.4 GB, and 0.2 GB are free" in refused.json["error"]
