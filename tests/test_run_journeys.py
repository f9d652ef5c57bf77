"""`loadbench run FILE.py`: people's Locust files as whole runs, logged, checked and compared."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from loadbench import runlog
from loadbench.model import Mark, Start, Window
from tests.lanes import known_server
from tests.running import adds_up, loadbench, summary
from tests.test_run import running, shown
from tests.test_scenarios_py import SCENARIOS

pytestmark = pytest.mark.long  # a minute and more
ANYWAY = ("--on-no-verdict", "warn")  # the machine of the tests may be busy
USERS = """
from locust import HttpUser, FastHttpUser, LoadTestShape, constant, task
class Visitor({kind}):
    host = "{host}"
    wait_time = constant(0.02)
    @task
    def look(self):
        self.client.get("/look")
"""
SHAPE = """
class Steps(LoadTestShape):
    def tick(self):
        return (3, 100) if self.get_run_time() < 1.5 else None
"""
SCENARIO = """
title = "people"
[load]
arrivals = "journey"
locustfile = "people.py"
users = 3
phases = [{ for = "1s" }]
[checks]
p99 = "< 500 ms"
errors = "< 1 %"
"""


def people(folder: Path, port: int, more: str = "") -> Path:
    file = folder / "people.py"
    file.write_text(USERS.format(kind="FastHttpUser", host=f"http://127.0.0.1:{port}") + more)
    return file


def test_a_file_is_a_scenario_and_the_engine_its_host(tmp_path: Path) -> None:
    """The engine counts what the log has, and its inside view is in the same summary."""
    file = SCENARIOS / "classify.py"
    target = ["--target", "local:fake", "--set", 'engine.fake={a = "2 ms"}']
    users = ["--set", "load.users=8", "--duration", "2s"]
    found = summary(file, *target, *users, *ANYWAY, cwd=tmp_path)
    assert adds_up(found)
    assert found["failed"] == {}
    assert set(found["requests"]) == {
        "POST one sample", "POST eight samples", "GET health", "POST index", "GET metadata",
    }  # fmt: skip
    infers = sum(found["requests"][name]["done"] for name in found["requests"] if "sample" in name)
    assert found["server"]["requests"] == infers > 50
    assert found["latency_ms"]["p50"] % 1 > 0
    assert "closed-loop" in {note["code"] for note in found["notes"]}
    (folder,) = (tmp_path / "results").iterdir()
    records = list(runlog.read(folder))
    assert [record.text for record in records if isinstance(record, Mark)] == ["8 users running"]
    windows = [record for record in records if isinstance(record, Window)]
    assert {window.users for window in windows if window.stage == "load"} - {None} == {8}


def test_the_host_of_the_file_is_used_and_its_shape_ends_the_run(tmp_path: Path) -> None:
    with known_server(service_ms=5) as server:
        found = summary(people(tmp_path, server.port, SHAPE), *ANYWAY, cwd=tmp_path)
    assert adds_up(found)
    assert found["target"] == f"http://127.0.0.1:{server.port}"
    assert found["done"] == server.counts["got"] > 50
    assert found["server"] is None
    assert found["reason"] == "done"
    assert 1 <= found["seconds"] <= 4
    (folder,) = (tmp_path / "results").iterdir()
    start = next(iter(runlog.read(folder)))
    assert isinstance(start, Start)
    assert start.planned_ns is None


def test_a_scenario_with_a_file_needs_trust_and_is_checked_and_compared(tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text(SCENARIO)
    with known_server(service_ms=5) as server:
        people(tmp_path, server.port)
        refused = loadbench("run", scenario, cwd=tmp_path, code=2)
        assert "--trust" in refused.stderr
        assert not (tmp_path / "results").exists()
        found = summary(scenario, "--trust", *ANYWAY, cwd=tmp_path)
        people(tmp_path, server.port, "# another file\n")
        summary(scenario, "--trust", "--set", "load.users=4", *ANYWAY, cwd=tmp_path)
    assert [check["state"] for check in found["checks"]] == ["passed", "passed"]
    compared = json.loads(loadbench("compare", "1", "2", "--anyway", "--json", cwd=tmp_path).stdout)
    differs = {difference["key"] for difference in compared["differences"]}
    assert {"load.users", "locustfile"} <= differs
    assert not compared["comparable"]


def test_it_is_stopped_gently_and_killed_and_adds_up(tmp_path: Path) -> None:
    with known_server(service_ms=50) as server:
        file = people(tmp_path, server.port)
        for signals in (1, 2):
            with running(tmp_path, file, "--set", "load.users=5") as (process, folder):
                for _ in range(signals):
                    process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
                found = shown(folder)
            assert found["reason"] == "stopped"
            assert adds_up(found)
            assert found["done"] > 50
        with running(tmp_path, file) as (process, folder):
            process.kill()
        assert adds_up(shown(folder))


BAD: dict[str, tuple[str, list[str], str]] = {
    "syntax": ("def f(:\n", [], "people.py: line 1: SyntaxError"),
    "no host": (USERS.format(kind="HttpUser", host=""), [], "give --target URL"),
    "rate": (USERS, ["--rate", "5"], "a journey has users, no rate"),
    "key": (USERS, ["--set", "load.user=5"], "did you mean 'users'"),
    "class": (USERS.format(kind="HttpUser", host="x"), ["--set", "load.user_classes=No"], "No"),
    "calibrate": (USERS, ["--set", "load.calibrate=3s"], "only rates are calibrated"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    code, arguments, words = BAD[name]
    (tmp_path / "people.py").write_text(code)
    done: Any = loadbench("run", "people.py", *arguments, cwd=tmp_path, code=2)
    assert words in done.stderr
    assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"people.py"}


def test_a_server_that_is_down_is_said_before_anything_runs(tmp_path: Path) -> None:
    people(tmp_path, 9)
    done = loadbench("run", "people.py", "--target", "http://127.0.0.1:9", cwd=tmp_path, code=3)
    assert "127.0.0.1:9" in done.stderr


def test_its_shape_is_told(tmp_path: Path) -> None:
    people(tmp_path, 9)
    done = loadbench("shape", "people.py", "--set", "load.users=30", cwd=tmp_path)
    assert "30 users of people.py" in done.stdout
