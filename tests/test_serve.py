"""`loadbench serve` from the outside: calls of the protocol, statistics, start and end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench.arrivals import MAGIC, OUTCOMES, RECORD
from loadbench.inside import EngineStatistics
from loadbench.model import decode
from loadbench.ride import read
from tests.served import (
    Engine,
    read_answer,
    request_binary,
    request_json,
    rows,
    serving,
    settings,
    whole,
)

INFER = "/v2/models/fake/infer"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake", *settings("fake.a=1 ms", "max_batch=8")) as found:
        yield found


def test_health_and_metadata(engine: Engine) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/fake/ready",
                 "/v2/models/fake/versions/1/ready"):  # fmt: skip
        assert engine.call(path).status == 200
    server = engine.call("/v2").json
    assert server["name"] == "loadbench"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= {*server["extensions"]}
    metadata = {
        "name": "fake",
        "versions": ["1"],
        "platform": "fake",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 16]}],
    }
    assert engine.call("/v2/models/fake").json == metadata
    assert engine.call("/v2/models/fake/versions/1").json == metadata
    assert engine.call("/v2/models/f%61ke?x=1").json == metadata


def test_the_configuration_is_what_clients_read(engine: Engine) -> None:
    config = engine.call("/v2/models/fake/config").json
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [16]
    assert config["output"][0]["name"] == "y"
    assert "dynamic_batching" in config
    assert config["model_transaction_policy"] == {"decoupled": False}


def test_health_for_people(engine: Engine) -> None:
    engine.call(INFER, request_json(rows(1)))
    health = engine.call("/health").json
    assert (health["status"], health["model"], health["device"]) == ("ok", "fake", "cpu")
    assert abs(health["last_inference"] - time.time()) < 60
    assert health["uptime"] > 0
    assert health["memory"] == {"CPU": 0}


def test_the_repository_has_one_model(engine: Engine) -> None:
    expected = [{"name": "fake", "version": "1", "state": "READY", "reason": ""}]
    assert engine.call("/v2/repository/index", b"").json == expected
    assert engine.call("/v2/repository/index", {"ready": True}).json == expected
    assert engine.call("/v2/repository/index", b"{").status == 400


@pytest.mark.parametrize("path", [INFER, "/v2/models/fake/versions/1/infer", INFER + "?a=b"])
def test_infer_in_json_and_binary_gives_each_its_rows(engine: Engine, path: str) -> None:
    x = rows(3, first=7)
    plain = engine.call(path, request_json(x, id="a/7")).json
    assert (plain["id"], plain["model_name"], plain["model_version"]) == ("a/7", "fake", "1")
    assert plain["outputs"][0]["shape"] == [3, 16]
    assert plain["outputs"][0]["data"] == x.ravel().tolist()
    body, headers = request_binary(x)
    binary = engine.call(path, body, **headers)
    assert binary.json["outputs"][0]["parameters"] == {"binary_data_size": x.nbytes}
    assert binary.tail == x.tobytes()
    raw = engine.call(path, x[:1].tobytes(), Inference_Header_Content_Length="0")
    assert raw.tail == x[:1].tobytes()


def test_every_answer_says_where_its_time_went(engine: Engine) -> None:
    answer = engine.call(INFER, request_json(rows(2)))
    timing = answer.headers["server-timing"]
    parts = dict(part.split(";") for part in timing.split(", "))
    assert parts.keys() >= {"queue", "batch", "compute", "size"}
    ride = read(timing.encode())
    assert ride is not None
    assert (ride.number > 0, ride.closed) == (True, "idle")
    assert float(parts["queue"].removeprefix("dur=")) >= 0
    assert float(parts["compute"].removeprefix("dur=")) >= 1.0
    assert parts["size"] == "desc=2"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v2/models/other", None, 404, "there is no model 'other'"),
        ("/v2/models/other/infer", b"{}", 404, "there is no model 'other'"),
        ("/v2/models/fake/versions/2/infer", b"{}", 404, "no version '2'"),
        ("/v2/models/fake/versions/2", None, 404, "no version '2'"),
        ("/nothing", None, 404, "there is no /nothing"),
        ("/v2/models/fake/nothing", None, 404, "there is no"),
        (INFER, None, 405, "takes POST, not GET"),
        ("/v2", b"{}", 405, "takes GET, not POST"),
        (INFER, b"{]", 400, "not an inference request"),
        (INFER, request_json(rows(129)), 400, "over the engine's limit of 128 (max_batch is 8)"),
    ],
)
def test_what_is_wrong_is_said(
    engine: Engine, path: str, body: Any, status: int, message: str
) -> None:
    answer = engine.call(path, body)
    assert answer.status == status
    assert message in answer.json["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999", "5"])
def test_a_wrong_header_length_is_a_400(engine: Engine, length: str) -> None:
    answer = engine.call(INFER, b"{}", Inference_Header_Content_Length=length)
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in answer.json["error"]


def test_statistics_add_up_to_what_was_sent() -> None:
    with serving("fake", *settings("fake.a=2 ms", "max_batch=8")) as engine:
        calls = [(number, 1 + number % 3) for number in range(120)]

        def send(call: tuple[int, int]) -> None:
            x = rows(call[1], first=call[0])
            body, headers = request_binary(x)
            assert engine.call(INFER, body, **headers).tail == x.tobytes()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(send, calls))
        for _ in range(5):
            assert engine.call(INFER, b"nonsense").status == 400
        stats = engine.stats()
        raw = engine.call("/v2/models/stats").json["model_stats"][0]
    total = sum(number for _, number in calls)
    inner = stats["inference_stats"]
    assert stats["inference_count"] == total
    assert inner["success"]["count"] == 120
    assert inner["fail"]["count"] == 0
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert inner[part]["count"] == 120
    parts = sum(inner[part]["ns"] for part in ("queue", "compute_input", "compute_infer"))
    assert 120 * 2_000_000 <= parts <= inner["success"]["ns"]
    sizes = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in stats["batch_stats"]}
    assert sum(sizes.values()) == stats["execution_count"] < 120
    assert sum(size * count for size, count in sizes.items()) == total
    ours = decode(EngineStatistics, json.dumps(raw["loadbench"]))
    assert ours.compute.count == ours.queue.count == ours.batch_wait.count == 120
    assert {size: found.batches for size, found in ours.sizes.items()} == sizes
    assert sum(sum(closed.values()) for closed in ours.closed.values()) == sum(sizes.values())
    assert (ours.failed, ours.shed, ours.waiting) == (0, {}, 0)
    assert (ours.compute.quantile(0) or 0) >= 2_000_000


def test_all_keys_that_perf_analyzer_demands_are_there(engine: Engine) -> None:
    stats = engine.stats()
    assert stats.keys() >= {
        "name", "version", "last_inference", "inference_count", "execution_count",
        "inference_stats", "response_stats", "batch_stats", "memory_usage", "loadbench",
    }  # fmt: skip
    assert int(stats["version"]) == 1
    assert stats["inference_stats"].keys() == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
        "cache_hit", "cache_miss",
    }  # fmt: skip
    assert stats["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 0}]
    assert engine.call("/v2/models/fake/versions/1/stats").json["model_stats"][0]["name"] == "fake"


def test_a_full_queue_and_a_missed_timeout_are_503_with_the_reason() -> None:
    options = settings("fake.a=300 ms", "max_batch=1", "queue=2")
    with serving("fake", *options) as engine, ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.call, INFER, request_json(rows(1)))
        wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 0 and busy(engine))
        late = pool.submit(
            engine.call, INFER, request_json(rows(1), parameters={"timeout": 50_000})
        )
        wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 1)
        second = pool.submit(engine.call, INFER, request_json(rows(1)))
        wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 2)
        refused = engine.call(INFER, request_json(rows(1)))
        assert refused.status == 503
        assert refused.json["error"] == "queue full: 2 rows wait, 2 may"
        assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status == second.result().status == 200
        assert late.result().status == 503
        assert "given up before it ran" in late.result().json["error"]
        stats = engine.stats()
    assert stats["inference_stats"]["success"]["count"] == 2
    assert stats["inference_stats"]["fail"]["count"] == 2
    assert stats["loadbench"]["shed"] == {"queue full": 1, "expired": 1}


def busy(engine: Engine) -> bool:
    """Whether a request has been taken in and not answered: it is the only one."""
    health = engine.call("/health").json
    return bool(health["open"] == 1)


def wait_for(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("did not come true")


def test_a_disconnected_client_is_not_served() -> None:
    body, headers = request_binary(rows(1))
    message = whole(body, int(headers["Inference_Header_Content_Length"]))
    with serving("fake", *settings("fake.a=300 ms", "max_batch=1")) as engine:
        with engine.connect() as stays, engine.connect() as goes:
            stays.sendall(message)
            wait_for(lambda: busy(engine))
            goes.sendall(message)
            wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 1)
            goes.close()
            wait_for(lambda: engine.stats()["loadbench"].get("shed", {}) == {"cancelled": 1})
            assert b"200 OK" in stays.recv(4096)
        assert engine.stats()["execution_count"] == 1


def test_sigterm_finishes_what_was_taken_and_refuses_the_rest() -> None:
    body, headers = request_binary(rows(1))
    message = whole(body, int(headers["Inference_Header_Content_Length"]))
    with serving("fake", *settings("fake.a=400 ms", "max_batch=1")) as engine:
        with engine.connect() as connection, engine.connect() as other:
            connection.sendall(message + message)
            wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 1)
            engine.process.send_signal(signal.SIGTERM)
            wait_for(lambda: engine.call("/v2/health/ready").status == 503)
            assert engine.call("/v2/health/live").status == 200
            other.sendall(message)
            assert b"503 Service Unavailable" in other.recv(4096)
            with connection.makefile("rb") as stream:
                answers = stream.read()
            assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert engine.process.wait(3) == 0


def test_ctrl_c_ends_an_idle_engine_at_once() -> None:
    with serving() as engine, engine.connect():
        begun = time.monotonic()
        assert engine.stop(signal.SIGINT) == 0
        assert time.monotonic() - begun < 3


def test_arrivals_are_written_as_the_batcher_saw_them(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.bin"
    with serving("fake", *settings("fake.a=1 ms"), "--arrivals", str(path)) as engine:
        before = time.monotonic_ns()
        for number in (1, 2, 3):
            engine.call(INFER, request_json(rows(number)))
        engine.call(INFER, b"nonsense")
        assert engine.stop() == 0
    raw = path.read_bytes()
    assert raw[:8] == MAGIC
    start = int.from_bytes(raw[8:16], "little")
    found = np.frombuffer(raw[16:], RECORD)
    assert RECORD.itemsize == 16
    assert found["rows"].tolist() == found["batch"].tolist() == [1, 2, 3]
    assert [OUTCOMES[code] for code in found["outcome"]] == ["done"] * 3
    assert (np.diff(found["arrived_ns"].astype(np.int64)) > 0).all()
    assert start + int(found["arrived_ns"][0]) > before
    assert ((found["took_us"] >= 1000) & (found["took_us"] < 1_000_000)).all()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "loadbench", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonesuch"], 2, "there is no model 'nonesuch'"),
        (["fake", "--set", "engine.max_bacth=3"], 2, "did you mean 'max_batch'?"),
        (["fake", "--set", "engine.max_batch=0"], 2, "engine.max_batch"),
        (["fake", "--set", "load.seed=1"], 2, "settings of the engine only"),
        (["fake", "--set", "engine.fake.a=5"], 2, "without a unit"),
        (["fake", "--set", "novalue"], 2, "is not key=value"),
        (["fake", "--host", "192.0.2.1"], 3, "cannot listen on 192.0.2.1"),
        (["fake", "--port", "0", "--arrivals", "/nonexistent/a.bin"], 3, "cannot write"),
    ],
)
def test_bad_input_is_one_message_and_an_exit_code(
    arguments: list[str], code: int, message: str
) -> None:
    ended = run(*arguments)
    assert ended.returncode == code
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("fake", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 3
    assert "cannot listen on 127.0.0.1" in ended.stderr
    assert "--port" in ended.stderr


def test_nothing_is_left_behind() -> None:
    with serving("fake", "--follow-stdin", stdin=subprocess.PIPE) as engine:
        number = engine.process.pid
        assert engine.process.stdin is not None
        engine.process.stdin.close()
        assert engine.process.wait(2) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
        with pytest.raises(ConnectionRefusedError):
            engine.connect()


def test_many_clients_at_once_get_their_own_rows(engine: Engine) -> None:
    """Rows are told apart by what is in them, whatever batch they rode in."""
    wrong: list[int] = []

    def client(first: int) -> None:
        with engine.connect() as connection, connection.makefile("rb") as stream:
            for number in range(30):
                x = rows(1 + number % 4, first=first + number * 64)
                body, headers = request_binary(x)
                connection.sendall(whole(body, int(headers["Inference_Header_Content_Length"])))
                if read_answer(stream).tail != x.tobytes():
                    wrong.append(first)

    threads = [threading.Thread(target=client, args=(at * 10_000,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
