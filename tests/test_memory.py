"""Memory that a server forgets, and how it takes it when it is given it again: at once, not at all,
late, or never."""

import json
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadbench.load.memory import Memory
from loadbench.plan import Endpoint
from tests.running import LOADBENCH, summary
from tests.test_shared_target import FOLDER, left

MODEL = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}
DONE = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1]}]}
LATE_S = 6.0  # longer than anybody waits for it


class Forgetful(ThreadingHTTPServer):
    """Speaks KServe v2 with shared memory. It forgets a region after ten answers, `times` times;
    `takes` says how it takes it then."""

    daemon_threads = True

    def __init__(self, takes: Sequence[str], times: int, held_s: float, last_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.takes = ["take", *takes]
        self.times = times
        self.held_s = held_s  # so long it has what it refuses for the memory
        self.last_s = last_s  # so long it takes to give memory back
        self.known: set[str] = set()
        self.names: list[str] = []  # of all that it was given
        self.asked: list[float] = []  # when it was given memory
        self.held: list[bytes] = []  # what was in it
        self.answered = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def register(self, name: str, key: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            how = self.takes[min(len(self.asked), len(self.takes) - 1)]
            self.asked.append(time.monotonic())
            if name in self.known:
                return 400, {"error": f"shared memory region '{name}' already in manager"}
        if how == "refuse":
            return 400, {"error": "not today"}
        self.names.append(name)
        self.held.append((FOLDER / key.lstrip("/")).read_bytes())
        if how in ("late", "never"):
            time.sleep(LATE_S if how == "late" else 60)
        with self.lock:
            self.known.add(name)
        return 200, {}

    def infer(self, name: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.answered += 1
            if self.times and self.answered % 10 == 0 and name in self.known:
                self.times -= 1
                self.known.clear()
            known = name in self.known
        if known:
            return 200, DONE
        time.sleep(self.held_s)
        return 400, {"error": f"Unable to find shared memory region: '{name}'"}


class _Handler(BaseHTTPRequestHandler):
    server: Forgetful
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told: Any = {
            "/v2": {"name": "s", "extensions": ["binary_tensor_data", "system_shared_memory"]},
            "/v2/health/ready": {},
            "/v2/models/m": MODEL,
        }.get(self.path)
        self._say(200 if told is not None else 404, told or {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked, where = json.loads(body or b"{}"), self.path.split("/")
        if self.path.endswith("/register"):
            self._say(*self.server.register(where[-2], asked["key"]))
        elif self.path.endswith("/infer"):
            parameters = asked["inputs"][0]["parameters"]
            self._say(*self.server.infer(parameters["shared_memory_region"]))
        elif self.path.endswith("/unregister"):
            gone, _, _ = select.select([self.connection], [], [], self.server.last_s)
            if not gone:  # of whoever hangs up before the answer nothing is done
                self.server.known.discard(where[-2])
                self._say(200, {})
        else:
            self._say(404, {})

    def _say(self, status: int, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def forgetful(
    *takes: str, times: int = 1, held_s: float = 0.0, last_s: float = 0.0
) -> Iterator[Forgetful]:
    with Forgetful(takes or ("take",), times, held_s, last_s) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def written(folder: Path, server: Forgetful, seconds: int) -> Path:
    path = folder / "s.toml"
    path.write_text(
        f'[target]\nurl = "{server.url}"\nmodel = "m"\nshared_memory = true\n[load]\n'
        f'arrivals = "constant"\nwarmup = "0s"\nphases = [{{ rate = 40, for = "{seconds}s" }}]\n'
    )
    return path


def ran(folder: Path, server: Forgetful, seconds: int, *more: str) -> dict[str, str]:
    """What is said of the memory after a run, by its codes."""
    before = left()
    told = summary(written(folder, server, seconds), *more, cwd=folder, code=None)
    assert list(told["failed"]) == ["no_region"]
    assert left() == before
    found = [note for note in told["notes"] if note["code"].startswith("memory-")]
    said = {note["code"]: note["text"] for note in found}
    assert len(said) == len(found)
    return said


@pytest.mark.long
def test_each_time_that_it_is_forgotten_it_is_given_again_as_it_was(tmp_path: Path) -> None:
    with forgetful(times=2) as server:
        said = ran(tmp_path, server, 5)
    assert "registered again, 2 times" in said.pop("memory-again")
    assert said == {}
    assert len(server.held) == 3
    assert len(set(server.held)) == 1
    assert any(server.held[0])


@pytest.mark.long
def test_a_server_that_refuses_it_for_good_is_asked_less_and_less(tmp_path: Path) -> None:
    with forgetful("refuse") as server:
        said = ran(tmp_path, server, 7)
    assert list(said) == ["memory-lost"]
    assert "not today" in said["memory-lost"]
    assert 3 <= len(server.asked) - 1 <= 4  # after 0, 1, 3 and perhaps 7 seconds


@pytest.mark.long
def test_a_server_that_has_taken_it_too_late_is_not_said_to_have_refused_it(tmp_path: Path) -> None:
    """Nobody waited for its word, and it has it all the same."""
    with forgetful("late") as server:
        said = ran(tmp_path, server, 10)
    assert "memory-lost" not in said
    assert server.known == set()  # given back


@pytest.mark.long
def test_refusals_from_before_it_was_registered_again_say_nothing(tmp_path: Path) -> None:
    with forgetful(held_s=2.5) as server:
        said = ran(tmp_path, server, 8)
    assert list(said) == ["memory-again"]
    assert "times" not in said["memory-again"]
    assert len(server.asked) == 2


def test_a_run_that_ends_amid_a_registration_says_so_and_leaves_no_name(tmp_path: Path) -> None:
    with forgetful("never") as server:
        said = ran(tmp_path, server, 2)
    assert "not have it again at the end" in said["memory-lost"]


def test_a_run_that_is_stopped_amid_a_registration_leaves_no_name(tmp_path: Path) -> None:
    before = left()
    with forgetful("never") as server:
        command = [*LOADBENCH, "run", str(written(tmp_path, server, 30))]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as run:
            while len(server.held) < 2 and run.poll() is None:
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            time.sleep(0.5)
            run.send_signal(signal.SIGINT)
            run.wait(20)
    assert left() == before


@pytest.mark.long
def test_workers_say_the_same_once(tmp_path: Path) -> None:
    """Each has memory of its own."""
    with forgetful() as server:
        said = ran(tmp_path, server, 4, "--workers", "2")
    assert list(said) == ["memory-again"]
    assert "worker 1 (" in said["memory-again"]
    assert "worker 2 (" in said["memory-again"]


def test_nothing_that_goes_wrong_amid_a_registration_is_the_last_attempt() -> None:
    """Not even what nobody has thought of."""
    memory = Memory(Endpoint(host="127.0.0.1", port=1, protocol="kserve"))
    memory.region.forget()  # its file is closed
    keeping = gevent.spawn(memory.keep)
    try:
        told, until = "", time.monotonic() + 10
        while "closed file" not in told and time.monotonic() < until:
            memory.forgotten(time.monotonic_ns())
            gevent.sleep(0.1)
            told = " ".join(note.text for note in memory.notes())
        assert "closed file" in told
        assert not keeping.dead
    finally:
        keeping.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_load_that_is_killed_as_it_gets_ready_leaves_no_name(
    number: signal.Signals, tmp_path: Path
) -> None:
    code = (
        "from loadbench.targets.region import Region\nimport time\n"
        "region = Region()\nregion.keep(b'abc')\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    before = left()
    command = [LOADBENCH[0], "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
    assert left() == before
