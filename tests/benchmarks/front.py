"""What a request costs on its way through the engine, without a model: over HTTP and in Python.

    python tests/benchmarks/front.py [--only http|python] [--rounds 5] [--seconds 3]

Over HTTP: the fake engine without any service time, asked for one row of 256 FP32 numbers in
binary, decoded, batched and answered in full, against uvicorn[standard] with one worker, an ASGI
app of two messages and a body of 13 bytes (`make bench` installs it into peers/bench-venv). Each
has core 0 in turn, wrk (Debian package `wrk`) core 1; the rates are wrk's, the CPU time of a
request that of the server's process.

In Python: the same requests through a connection whose socket does nothing, and the batcher
without its threads. What is left is what the engine's own code costs: for each request, and for
each batch to be decided (32 requests wait).
"""

import argparse
import gc
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from engine import lua, one_request, serving, wrk

from loadbench.engine.crowd import Crowd
from loadbench.engine.http import Connection, Limits
from loadbench.engine.orders import Offer
from loadbench.engine.repository import Repository
from loadbench.engine.serving import Service
from loadbench.spec import EngineSpec
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec

CONNECTIONS = (64, 128)
WIDTH = 256
UVICORN = Path(__file__).parents[2] / "peers" / "bench-venv" / "bin" / "python"
APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
"""


def measured(
    process: Any, url: str, script: Path | None, seconds: int
) -> list[tuple[float, float]]:
    """(requests/s, µs of the server's CPU for one) by connections."""
    found = []
    process = psutil.Process(process.pid)
    for connections in CONNECTIONS:
        before = process.cpu_times()
        rate, _, wrong = wrk(url, script, connections, seconds)
        after = process.cpu_times()
        if wrong:
            sys.exit(f"{wrong} answers were errors: nothing to compare")
        spent = after.user + after.system - before.user - before.system
        found.append((rate, spent / (rate * seconds) * 1e6))
    return found


def fake(folder: Path, seconds: int) -> list[tuple[float, float]]:
    settings = ["engine.fake.a=0 ms", f"engine.fake.width={WIDTH}", "engine.max_batch=32"]
    with serving(["fake"], settings) as (process, url), Asker(url, "kserve") as asker:
        script = folder / "post.lua"
        script.write_text(lua(one_request(asker.describe(TargetSpec(url=url)))))
        return measured(process, url, script, seconds)


def uvicorn(folder: Path, seconds: int) -> list[tuple[float, float]]:
    (folder / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # a socket handed over (--fd) would be used with Nagle's delay
    command = ["taskset", "-c", "0", str(UVICORN), "-m", "uvicorn", "app:app", "--no-access-log"]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    with subprocess.Popen([*command, "--log-level", "error"], cwd=folder) as process:
        try:
            wait(process, port)
            return measured(process, f"http://127.0.0.1:{port}/", None, seconds)
        finally:
            process.terminate()


def wait(process: Any, port: int) -> None:
    """Until someone listens."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    sys.exit("uvicorn does not start")


def over_http(rounds: int, seconds: int) -> None:
    """Both in turns."""
    if not shutil.which("wrk") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs wrk (Debian: apt-get install wrk) and two cores")
    found: dict[str, list[list[tuple[float, float]]]] = {"fake": [], "uvicorn": []}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            found["fake"].append(fake(Path(name), seconds))
            if UVICORN.exists():
                found["uvicorn"].append(uvicorn(Path(name), seconds))
    if not found["uvicorn"]:
        print("peers/bench-venv is not there (make bench): no uvicorn to compare with")
    for at, connections in enumerate(CONNECTIONS):
        print(f"{connections} connections, medians of {rounds} rounds")
        for server_name, cells in found.items():
            if not cells:
                continue
            rates = sorted(cell[at][0] for cell in cells)
            cpu = statistics.median(cell[at][1] for cell in cells)
            print(f"  {server_name:8} {statistics.median(rates):8,.0f}/s "
                  f"({rates[0]:,.0f} to {rates[-1]:,.0f})  {cpu:5.1f} µs of CPU")  # fmt: skip
        if found["uvicorn"]:
            pairs = zip(found["fake"], found["uvicorn"], strict=True)
            ratios = sorted(ours[at][0] / theirs[at][0] for ours, theirs in pairs)
            print(f"  {statistics.median(ratios):.2f} x uvicorn "
                  f"({ratios[0]:.2f} to {ratios[-1]:.2f})")  # fmt: skip


class Wire:
    """A socket that takes everything and sends nothing."""

    def write(self, data: bytes) -> None:
        self.sent = len(data)

    def is_closing(self) -> bool:
        return False


class Rounds:
    """An event loop that is driven by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        self.due.append((call, arguments))

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, call: Callable[..., object], *arguments: object) -> None: ...

    def run(self) -> None:
        due, self.due = self.due, []
        for call, arguments in due:
            call(*arguments)


def in_python(rounds: int) -> None:
    """Batches of 32 through everything but the sockets and the threads."""
    settings = EngineSpec.model_validate({"fake": {"a": "0 ms", "width": WIDTH}, "max_batch": 32})
    loop: Any = Rounds()
    repository = Repository(Offer(("fake",), settings, trust=False), loop)
    repository.open_all()
    service = Service(repository)
    (endpoint,) = repository.endpoints()
    batcher = endpoint.batcher
    instance = batcher._instances[0]
    instance.free_since = batcher._free_from = time.monotonic_ns()
    batcher._idle.append(instance)  # and no thread is started
    request = example()
    connections = []
    for _ in range(32):
        connections.append(Connection(service, Limits(), Crowd()))
        connections[-1].connection_made(Wire())  # type: ignore[arg-type]
    instance = batcher._instances[0]
    request_ns, decision_ns = [], []
    gc.freeze()
    for _ in range(1000 * rounds):
        begun = time.perf_counter_ns()
        for connection in connections:
            connection.data_received(request)
        received = time.perf_counter_ns()
        loop.run()  # the look at what waits
        decided = time.perf_counter_ns()
        instance.inbox.put(None)
        instance.work(batcher)  # this batch, here and now
        loop.run()  # the answers
        request_ns.append((time.perf_counter_ns() - begun) / 32)
        decision_ns.append(decided - received)
    print("in Python, medians:")
    print(f"  {statistics.median(request_ns) / 1e3:.1f} µs a request")
    print(f"  {statistics.median(decision_ns) / 1e3:.1f} µs to decide a batch of 32")


def example() -> bytes:
    """The request as wrk sends it."""
    header = (b'{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","parameters":'
              b'{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}'
              % (WIDTH, 4 * WIDTH))  # fmt: skip
    head = (b"POST /v2/models/fake/infer HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
            b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
            % (len(header), len(header) + 4 * WIDTH))  # fmt: skip
    return head + header + bytes(4 * WIDTH)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", choices=("http", "python"))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    given = arguments.parse_args()
    if given.only != "python":
        over_http(given.rounds, given.seconds)
    if given.only != "http":
        in_python(given.rounds)


if __name__ == "__main__":
    main()
