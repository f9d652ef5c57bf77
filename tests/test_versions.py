"""Versions of a model in a real engine: load, swap, canary, shadow, aliases; what may not be."""

import asyncio
import base64
import http.client
import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from loadbench.engine.exchange import Exchange
from loadbench.engine.orders import Offer
from loadbench.engine.repository import Repository
from loadbench.engine.serving import Service
from loadbench.engine.tensors import Refused
from loadbench.spec import EngineSpec
from tests.served import Engine, read_answer, serving, settings
from tests.shelf import adding, repository

LOAD = "/v2/repository/models/adder/load"
UNLOAD = "/v2/repository/models/adder/unload"
TRAFFIC = "/v2/repository/models/adder/traffic"
ASKED = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0] * 4}]}


def version(engine: Engine, path: str = "/v2/models/adder/infer") -> int:
    """Which version answers: it has added its number, and says so."""
    answer = engine.call(path, ASKED)
    assert answer.status == 200, answer.body
    number = round(float(answer.json["outputs"][0]["data"][0]))
    assert answer.json["model_version"] == str(number)
    return number


def index(engine: Engine, name: str = "adder") -> dict[str, tuple[str, str]]:
    """State and reason of each version."""
    rows = engine.call("/v2/repository/index", {}).json
    return {row["version"]: (row["state"], row["reason"]) for row in rows if row["name"] == name}


def roles(engine: Engine) -> dict[str, str]:
    found = engine.call("/v2/models/adder/stats").json["model_stats"]
    return {entry["version"]: entry["loadbench"]["role"] for entry in found}


def counts(engine: Engine, name: str = "adder") -> dict[str, int]:
    """Requests by version."""
    found = engine.call(f"/v2/models/{name}/stats").json["model_stats"]
    return {entry["version"]: entry["inference_stats"]["success"]["count"] for entry in found}


def eventually(condition: Callable[[], bool], within_s: float = 20) -> None:
    end = monotonic() + within_s
    while not condition():
        assert monotonic() < end, "it never came true"
        sleep(0.02)


def load(engine: Engine, **parameters: Any) -> None:
    answer = engine.call(LOAD, {"parameters": parameters})
    assert answer.status == 200, answer.body


def traffic(engine: Engine, **asked: Any) -> dict[str, Any]:
    answer = engine.call(TRAFFIC, asked)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


class Loader:
    """Clients that ask without a pause, and what they were answered."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.answered: Counter[tuple[int, str]] = Counter()  # status, version
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._engine.port, timeout=20)
        while not self._stop.is_set():
            connection.request("POST", "/v2/models/adder/infer", json.dumps(ASKED))
            answer = connection.getresponse()
            body = json.loads(answer.read())
            told = body.get("model_version", body)
            if answer.status == 200:
                assert body["outputs"][0]["data"] == [float(told)] * 4
            self.answered[answer.status, str(told)] += 1
        connection.close()

    def versions(self) -> set[str]:
        return {told for _, told in self.answered}


@contextmanager
def asking(engine: Engine) -> Iterator[Loader]:
    found = Loader(engine)
    for thread in found._threads:
        thread.start()
    try:
        yield found
    finally:
        found._stop.set()
        for thread in found._threads:
            thread.join()


def test_versions_take_over_under_load_without_one_failed_request(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1)
    with serving(str(folder)) as engine, asking(engine) as asked:
        for number in (2, 3, 4):
            adding(folder / "adder" / str(number) / "model.onnx", number)
            load(engine)
            assert version(engine) == number  # from the moment that the call is answered
        eventually(lambda: "4" in asked.versions())
        asked._stop.set()
        eventually(lambda: index(engine)["3"] == ("UNAVAILABLE", "unloaded"))
        assert engine.call("/v2/models/adder").json["versions"] == ["4"]
        assert engine.call("/v2/models/adder/versions/1/infer", ASKED).status == 404
        assert index(engine)["4"] == ("READY", "")
    assert {status for status, _ in asked.answered} == {200}
    assert asked.versions() >= {"1", "4"}


def test_what_waits_for_the_old_version_is_answered_by_it() -> None:
    tensor = {"name": "x", "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/fake/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving("fake", *settings("fake.a=100 ms", "max_batch=1")) as engine, ExitStack() as held:
        clients = [held.enter_context(engine.connect()) for _ in range(12)]  # over a second's work
        for client in clients:
            client.sendall(head.encode() + body)
        eventually(lambda: engine.call("/health").json["open"] == 12)
        config = json.dumps({"parameters": {"fake.a": {"string_value": "0 ms"}}})
        asked = {"parameters": {"version": "2", "config": config}}
        assert engine.call("/v2/repository/models/fake/load", asked).status == 200
        assert engine.stats("fake/versions/2")["loadbench"]["role"] == "current"
        streams = [held.enter_context(client.makefile("rb")) for client in clients]
        answers = [read_answer(stream) for stream in streams]
        assert [(found.status, found.json["model_version"]) for found in answers] == [
            (200, "1")
        ] * 12


def test_a_load_that_fails_leaves_the_old_version_and_says_why(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1)
    with serving(str(folder)) as engine:
        (folder / "adder" / "2").mkdir()
        (folder / "adder" / "2" / "model.onnx").write_bytes(b"\x08 no model")
        answer = engine.call(LOAD, {})
        assert answer.status == 400
        assert "failed to load 'adder'" in answer.json["error"]
        state, reason = index(engine)["2"]
        assert state == "UNAVAILABLE"
        assert "model.onnx" in reason
        assert version(engine) == 1
        adding(folder / "adder" / "2" / "model.onnx", 2)
        load(engine)
        assert version(engine) == 2


def test_a_version_loaded_anew_goes_on_counting(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1)
    with serving(str(folder)) as engine:
        version(engine)
        load(engine)  # nothing changed: nothing is loaded
        adding(folder / "adder" / "1" / "model.onnx", 5)
        load(engine)
        answer = engine.call("/v2/models/adder/infer", ASKED).json
        assert (answer["model_version"], answer["outputs"][0]["data"][0]) == ("1", 5.0)
        eventually(lambda: counts(engine) == {"1": 2})


def test_unloading_ends_readiness_and_loading_brings_it_back(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1)
    with serving("fake", str(folder)) as engine:
        assert engine.call(UNLOAD, {"parameters": {"unload_dependents": True}}).status == 200
        assert engine.call("/v2/models/adder/ready").status == 503
        assert engine.call("/v2/health/ready").status == 200  # there is another model
        assert engine.call("/v2/repository/models/fake/unload", b"").status == 200
        assert engine.call("/v2/health/ready").status == 503
        assert engine.call("/v2/models/adder/infer", ASKED).status == 404
        load(engine)
        assert engine.call("/v2/models/adder/ready").status == 200
        assert version(engine) == 1
        ready = engine.call("/v2/repository/index", {"ready": True}).json
        assert [(row["name"], row["version"]) for row in ready] == [("adder", "1")]


def test_a_canary_gets_its_share_and_is_countable(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1, 2)
    with serving(str(folder), *settings("canary=25 %", "seed=7")) as engine:
        assert roles(engine) == {"1": "current", "2": "canary"}
        seen = Counter(version(engine) for _ in range(80))
        assert version(engine, "/v2/models/adder/versions/2/infer") == 2  # named: no draw
        assert 5 <= seen[2] <= 40
        assert counts(engine) == {"1": seen[1], "2": seen[2] + 1}
        assert traffic(engine, canary="2", share=1.0)["versions"][1]["share"] == 1.0
        assert {version(engine) for _ in range(10)} == {2}
        assert traffic(engine, canary=None)["versions"][1]["role"] == "loaded"
        assert {version(engine) for _ in range(10)} == {1}
        traffic(engine, version="2")
        assert version(engine) == 2
        eventually(lambda: index(engine)["1"] == ("UNAVAILABLE", "unloaded"))
    with serving(str(folder), *settings("canary=25 %", "seed=7")) as engine:
        assert Counter(version(engine) for _ in range(80)) == seen  # the same seed, the same draws


def test_a_canary_that_fails_is_rolled_back_and_it_is_told() -> None:
    faulty = json.dumps({"parameters": {"fake.errors": {"string_value": "50 %"}}})
    with serving("fake", *settings("fake.a=0 ms", "max_batch=8")) as engine:
        body = {"parameters": {"version": "2", "config": faulty, "canary": 0.5}}
        assert engine.call("/v2/repository/models/fake/load", body).status == 200
        tensor = {"name": "x", "shape": [1, 16], "datatype": "FP32", "data": [0.0] * 16}
        for _ in range(300):
            engine.call("/v2/models/fake/infer", {"inputs": [tensor]})
        eventually(lambda: "rolled back" in index(engine, "fake")["2"][1])
        assert index(engine, "fake")["2"][0] == "READY"
        for _ in range(30):
            assert engine.call("/v2/models/fake/infer", {"inputs": [tensor]}).status == 200
        old, new = engine.call("/v2/models/fake/stats").json["model_stats"]
        assert (old["loadbench"]["role"], new["loadbench"]["role"]) == ("current", "loaded")
        assert "rolled back" in new["loadbench"]["reason"]
        assert new["loadbench"]["remarks"][0]["code"] == "rolled-back"
        assert any(note["code"] == "rolled-back" for note in engine.call("/health").json["notes"])


def test_a_shadow_answers_nobody_and_is_compared(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1, 3)
    with serving(str(folder), *settings("shadow=true")) as engine:
        assert {version(engine) for _ in range(20)} == {1}

        def shadow() -> dict[str, Any]:
            found = engine.call("/v2/models/adder/stats").json["model_stats"][1]["loadbench"]
            assert found["role"] == "shadow"
            told: dict[str, Any] = found["shadow"]
            return told

        eventually(lambda: shadow().get("compared", 0) + shadow().get("dropped", 0) == 20)
        told = shadow()
        assert told["absolute"] == 2.0  # 3 − 1
        assert told["relative"] == 2.0
        assert told.get("changed", 0) == 0  # the largest of four equal values is the same
        assert {"latency", "beside"} <= told.keys()
        traffic(engine, version="3")
        assert version(engine) == 3
        assert counts(engine)["3"] == 1  # what the shadow did was nobody's request


def test_aliases_lead_to_versions(tmp_path: Path) -> None:
    folder = repository(tmp_path, 1, 2, 3)
    (folder / "adder" / "config.json").write_text('{"version_policy": {"all": {}}}')
    with serving(str(folder)) as engine:
        traffic(engine, version="2", aliases={"old": "1"})
        found = {name: version(engine, f"/v2/models/adder/versions/{name}/infer")
                 for name in ("stable", "latest", "old", "3")}  # fmt: skip
        assert found == {"stable": 2, "latest": 3, "old": 1, "3": 3}
        assert engine.call("/v2/models/adder/versions/old").json["versions"] == ["1", "2", "3"]
        assert engine.call("/v2/models/adder/versions/old/ready").status == 200
        traffic(engine, aliases={"old": None})
        assert engine.call("/v2/models/adder/versions/old/infer", ASKED).status == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v2/repository/models/..%2F..%2Fetc/load", {}, 404, "there is no"),
        ("/v2/repository/models/../load", {}, 404, "there is no"),
        ("/v2/repository/models/outside/load", {}, 404, "no model 'outside' below"),
        ("/v2/repository/models/linked/load", {}, 404, "no model 'linked' below"),
        ("/v2/repository/models/inner/load", {}, 400, "leads out of the model repository"),
        ("/v2/repository/models/resnet-tiny/load", {}, 404, "below what the engine was started"),
        (LOAD, {"parameters": {"version": "../1"}}, 400, "is no version"),
        (LOAD, {"parameters": {"version": "7"}}, 400, "there is no version 7"),
        (LOAD, {"parameters": {"path": "/etc"}}, 400, "unknown parameter 'path'"),
        (LOAD, {"parameters": {"config": "{"}}, 400, "config is not JSON"),
        (LOAD, {"parameters": {"config": '{"parameters": {"factory": "os:system"}}'}}, 400, "code"),
        (LOAD, {"parameters": {"config": '{"max_batch_size": -1}'}}, 400, "max_batch"),
        (LOAD, {"parameters": {"canary": 2}}, 400, "is no share"),
        (LOAD, {"parameters": {"file:1/model.onnx": ""}}, 403, "--trust"),
        (LOAD, b"[]", 400, "not an object"),
        (UNLOAD, {"parameters": {"version": "9"}}, 404, "no version '9'"),
        (TRAFFIC, {"version": "9"}, 404, "no version '9'"),
        (TRAFFIC, {"canary": "1"}, 400, "not another version"),
        (TRAFFIC, {"aliases": {"../x": "1"}}, 400, "no alias"),
    ],
)
def test_nothing_leads_out_of_the_folders(
    fenced: Engine, path: str, body: Any, status: int, message: str
) -> None:
    answer = fenced.call(path, body)
    assert answer.status == status
    assert message in answer.json["error"]
    assert version(fenced) == 1


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine beside whose folder lies another one, with links into it."""
    folder = tmp_path_factory.mktemp("models")
    repository(folder / "in", 1)
    repository(folder / "out", 1, name="outside")
    with serving(str(folder / "in")) as engine:
        os.symlink(folder / "out" / "outside", folder / "in" / "linked")
        (folder / "in" / "inner" / "1").mkdir(parents=True)
        target = folder / "out" / "outside" / "1" / "model.onnx"
        os.symlink(target, folder / "in" / "inner" / "1" / "model.onnx")
        yield engine


def test_files_in_a_call_are_taken_from_whom_is_trusted(tmp_path: Path) -> None:
    data = base64.b64encode(adding(tmp_path / "given.onnx", 1).read_bytes()).decode()
    with serving("fake", "--trust") as engine:
        wrong = {"parameters": {"file:../1/model.onnx": data}}
        assert engine.call(LOAD, wrong).status == 400
        load(engine, **{"config": "{}", "file:1/model.onnx": data})
        assert version(engine) == 1


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # as it is meant
def test_files_of_a_call_wait_with_it_for_their_turn(tmp_path: Path) -> None:
    """Each call's files take the place of those before: not of those that are yet to be opened."""

    async def ask() -> None:
        for number in (1, 2, 3):  # while the first is opened the next two wait
            data = base64.b64encode(adding(tmp_path / "given.onnx", number).read_bytes()).decode()
            models.load("adder", {f"file:{number}/model.onnx": data}, told.append)
        while len(told) < 3:
            await asyncio.sleep(0.01)

    told: list[Refused | None] = []
    with asyncio.Runner() as runner:
        models = Repository(Offer(("fake",), EngineSpec(threads=1), True), runner.get_loop())
        runner.run(asyncio.wait_for(ask(), 60))
        assert told == [None] * 3
        assert models.find("adder").signature.version == "3"
        models.stop(5)
    for thread in threading.enumerate():  # the last files go with its last breath
        if thread.name == "loader":
            thread.join(20)


def test_where_others_reach_the_engine_calls_change_nothing() -> None:
    settings = EngineSpec(max_batch=1)
    with asyncio.Runner() as runner:
        models = Repository(Offer(("fake",), settings, False), runner.get_loop())
        models.open_all()
        service = Service(models, may_load=False)
        for what in ("load", "unload", "traffic"):
            call = service.endpoint(f"/v2/repository/models/fake/{what}".encode())
            assert call is not None
            with pytest.raises(Refused, match="--allow-loading") as refused:
                call.infer(Exchange(Nobody()), b"{}", 0)
            assert refused.value.status == 403
        assert models.find("fake").signature.version == "1"


def test_a_web_page_changes_nothing(tmp_path: Path) -> None:
    with serving(str(repository(tmp_path, 1))) as engine:
        with socket.create_connection(("127.0.0.1", engine.port), timeout=20) as connection:
            head = f"POST {UNLOAD} HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n"
            for _ in range(2):  # on the same connection: a head that is known is no other one
                connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
                assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")
        assert version(engine) == 1


def test_a_stop_during_a_load_ends_at_once(tmp_path: Path) -> None:
    slow = json.dumps({"parameters": {"fake.a": {"string_value": "500 ms"}}})  # in its warm-up
    with serving("fake", *settings("fake.a=0 ms", "max_batch=2")) as engine:
        body = json.dumps({"parameters": {"version": "2", "config": slow}}).encode()
        with engine.connect() as connection:
            path = "/v2/repository/models/fake/load"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            eventually(lambda: ("LOADING", "") in index(engine, "fake").values())
            assert engine.stop() == 0
        assert engine.process.stderr is not None
        assert "Traceback" not in engine.process.stderr.read()


class Nobody:
    """No client: it is refused before anything is sent."""

    client = None

    def flush(self) -> None: ...
    def send(self, exchange: Exchange, data: bytes) -> None: ...


def test_two_versions_of_a_zoo_model_by_their_seeds() -> None:
    tensor = {"name": "input", "shape": [1, 256], "datatype": "FP32", "data": [0.5] * 256}
    with serving("small=mlp", *settings("max_batch=2", "precision=fp32")) as engine:
        first = engine.call("/v2/models/small/infer", {"inputs": [tensor]}).json
        config = json.dumps({"parameters": {"seed": {"string_value": "2"}}})
        body = {"parameters": {"version": "2", "config": config}}
        assert engine.call("/v2/repository/models/small/load", body).status == 200
        second = engine.call("/v2/models/small/infer", {"inputs": [tensor]}).json
        assert (first["model_version"], second["model_version"]) == ("1", "2")
        assert first["outputs"][0]["data"] != second["outputs"][0]["data"]
