"""A scenario in Locust's own web UI, over its HTTP interface; and under its master and workers."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lanes import Known, known_server
from tests.served import serving
from tests.test_scenarios_py import SCENARIOS

pytestmark = pytest.mark.long

BRIEF = """
[target]
url = "http://127.0.0.1:1"
protocol = "http"
[load]
arrivals = "constant"
warmup = "200 ms"
phases = [{{ rate = {rate}, for = "{length}" }}]
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Web:
    """The web UI of a Locust that runs lane.py."""

    def __init__(self, folder: Path, server: Known) -> None:
        self._port, self._server, self._folder = free_port(), server, folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(SCENARIOS / "lane.py"), "--host", self.host,
             "--web-host", "127.0.0.1", "--web-port", str(self._port)],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.wait(lambda: self._answers())

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def _answers(self) -> bool:
        try:
            self.call("/stats/requests")
        except urllib.error.URLError:
            return False
        return True

    def call(self, path: str, form: dict[str, Any] | None = None) -> Any:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        url = f"http://127.0.0.1:{self._port}{path}"
        with urllib.request.urlopen(url, data, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body.startswith(b"{") else body.decode()

    def scenario(self, rate: int, length: str) -> str:
        path = self._folder / f"{rate}-{length}.toml"
        path.write_text(BRIEF.format(rate=rate, length=length))
        return str(path)

    def start(self, scenario: str, users: int = 1) -> None:
        form = {"user_count": users, "spawn_rate": 5, "host": self.host, "scenario": scenario}
        assert self.call("/swarm", form)["success"]

    def total(self) -> int:
        """Requests in the statistics, which the UI keeps for up to two seconds."""
        found = self.call("/stats/requests")["stats"][-1]
        assert found["name"] == "Aggregated"
        return int(found["num_requests"])

    def state(self) -> str:
        return str(self.call("/stats/requests")["state"])

    def is_over(self, requests: int) -> bool:
        return self.total() == requests and self.state() == "stopped"

    def wait(self, true: Callable[[], bool], limit_s: float = 30) -> None:
        end = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < end, "it did not happen in time"
            assert self.process.poll() is None
            time.sleep(0.1)


@contextmanager
def web(folder: Path) -> Iterator[tuple[Web, Known]]:
    with known_server(service_ms=2) as server:
        found = Web(folder, server)
        try:
            yield found, server
        finally:
            found.process.terminate()
            found.process.wait(10)


def test_start_stop_and_start_again_in_the_web_ui(tmp_path: Path) -> None:
    with web(tmp_path) as (ui, _):
        for number in (150, 160):
            ui.start(ui.scenario(number, "1s"))
            ui.wait(partial(ui.is_over, number))
        (entry, _) = ui.call("/stats/requests")["stats"]
        assert (entry["name"], entry["method"], entry["num_failures"]) == ("infer", "GET", 0)
        files = len(os.listdir(f"/proc/{ui.process.pid}/fd"))

        long = ui.scenario(100, "60s")
        ui.start(long)
        ui.wait(lambda: ui.total() >= 200)
        ui.start(long, users=5)
        ui.wait(lambda: ui.total() >= 400)
        assert ui.state() == "running"
        assert ui.call("/stats/requests")["user_count"] == 1, "one user offers all"
        reached = ui.total()
        ui.call("/stats/reset", {})
        ui.wait(lambda: 0 < ui.total() < reached)
        assert ui.call("/stop", {})["success"]
        ui.wait(lambda: ui.state() == "stopped")

        ui.start("steddy")
        ui.wait(lambda: bool(ui.call("/exceptions")["exceptions"]))
        assert "no scenario 'steddy'" in ui.call("/exceptions")["exceptions"][0]["msg"]
        assert any("did you mean 'steady'" in line for line in ui.call("/logs")["master"])
        ui.start(ui.scenario(170, "1s"))
        ui.wait(lambda: ui.is_over(170))
        assert len(os.listdir(f"/proc/{ui.process.pid}/fd")) <= files + 2, "connections are closed"


def test_failures_are_in_the_web_ui(tmp_path: Path) -> None:
    with known_server(misbehave="busy", every=2) as server:
        ui = Web(tmp_path, server)
        try:
            ui.start(ui.scenario(100, "1s"))
            ui.wait(lambda: ui.total() == 100)
            found = ui.call("/stats/requests")
            assert [(error["error"], error["occurrences"]) for error in found["errors"]] == [
                ("http_503", 50)
            ]
            assert found["fail_ratio"] == 0.5
        finally:
            ui.process.terminate()
            ui.process.wait(10)


def test_under_a_master_one_worker_offers_the_load_and_its_end_is_the_tests(
    tmp_path: Path,
) -> None:
    scenario = tmp_path / "brief.toml"
    scenario.write_text(BRIEF.format(rate=100, length="1s").replace('protocol = "http"', ""))
    port = str(free_port())
    command = [sys.executable, "-m", "locust", "-f", str(SCENARIOS / "lane.py")]
    where = ["--master-port", port, "--master-host", "127.0.0.1"]
    with serving("fake", "--set", "engine.fake.a=2 ms") as engine:
        master = subprocess.Popen(
            [*command, "--master", "--headless", "--expect-workers", "2", "--json", "-u", "2",
             "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
             "--scenario", str(scenario), "--host", f"http://127.0.0.1:{engine.port}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        workers = [
            subprocess.Popen([*command, "--worker", *where], stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        try:
            told, _ = master.communicate(timeout=60)
            codes = [worker.wait(20) for worker in workers]
        finally:
            for process in (master, *workers):
                process.kill()
        count = engine.stats()["inference_stats"]["success"]["count"]
    assert (master.returncode, codes) == (0, [0, 0])
    (entry,) = json.loads(told)
    assert entry["num_requests"] == 100
    assert count == 120, "with its warm-up"
