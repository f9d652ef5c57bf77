"""Calls that change models and cross each other or cannot be done: nothing is done by halves."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadbench.engine.orders import Offer
from loadbench.engine.repository import Repository
from loadbench.engine.tensors import Refused
from loadbench.engine.versions import RETIRED
from loadbench.spec import EngineSpec
from tests.served import read_answer, serving, settings
from tests.shelf import adding, repository
from tests.test_versions import LOAD, TRAFFIC, UNLOAD, eventually, index, load, traffic, version


def test_a_trial_that_cannot_begin_is_an_error_at_the_start_and_links_are_no_matter(
    tmp_path: Path,
) -> None:
    folder = repository(tmp_path, 1)
    (folder / "adder" / "1" / ".#model.onnx").symlink_to("an editor's lock, which leads nowhere")
    adding(folder / "adder" / "2" / "model.onnx", 2, width=5)
    with pytest.raises(AssertionError, match="loadbench: adder: the inputs of version 2 are other"):
        serving(str(folder), *settings("canary=10 %")).__enter__()


def test_a_traffic_call_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    with serving(str(repository(tmp_path, 1, 2)), *settings("shadow=true")) as engine:
        before = traffic(engine, shadow="2")
        for asked in (
            {"version": "2", "canary": "99"}, {"version": "2", "aliases": {"a": "1", "b": "99"}},
            {"share": 0.5}, {"aliases": {f"a{number}": "1" for number in range(33)}},
        ):  # fmt: skip
            assert engine.call(TRAFFIC, asked).status in (400, 404)
            assert engine.call(TRAFFIC).json == before
        swapped = traffic(engine, version="2", canary="1", share=0.5)["versions"]
        assert [found["role"] for found in swapped] == ["canary", "current"]
        assert {version(engine) for _ in range(40)} == {1, 2}


def test_a_load_that_is_overtaken_by_an_unload_does_not_say_that_it_serves(tmp_path: Path) -> None:
    slow = json.dumps({"parameters": {"fake.a": {"string_value": "300 ms"}}})
    with serving("fake", str(repository(tmp_path, 1)), *settings("max_batch=2")) as engine:
        first = {"parameters": {"version": "2", "config": slow}}
        with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
            ahead = pool.submit(engine.call, "/v2/repository/models/fake/load", first)
            eventually(lambda: ("LOADING", "") in index(engine, "fake").values())
            for path in (LOAD, UNLOAD):  # nothing is to be loaded, but that has its turn
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
                connection.sendall(head.encode())
            assert ahead.result().status == 200
            with connection.makefile("rb") as stream:
                assert [read_answer(stream).status for _ in range(2)] == [503, 200]
        assert engine.call("/v2/models/adder/ready").status == 503
        load(engine)
        assert version(engine) == 1


def test_versions_long_gone_are_forgotten() -> None:
    with serving("fake", *settings("fake.a=0 ms", "max_batch=1")) as engine:
        for number in range(2, RETIRED + 6):
            body = {"parameters": {"version": str(number)}}
            assert engine.call("/v2/repository/models/fake/load", body).status == 200
        eventually(lambda: len(index(engine, "fake")) == RETIRED + 1)


def test_what_is_loaded_when_the_engine_already_drains_takes_nothing() -> None:
    async def drained() -> tuple[Refused | None, int]:
        loop = asyncio.get_running_loop()
        models = Repository(Offer(("fake",), EngineSpec(max_batch=1), False), loop)
        models.open_all()
        models.start()
        answered: asyncio.Future[Refused | None] = loop.create_future()
        models.load("fake", {"version": "2"}, answered.set_result)
        models.drain()
        fault = await answered
        assert models.stop(5)
        return fault, len([*models.endpoints()])

    fault, endpoints = asyncio.run(drained())
    assert fault is not None
    assert fault.status == 503
    assert endpoints == 1
