"""Requests per second of the lane from one core, beside wrk and Locust's FastHttpUser.

    python tests/benchmarks/lane.py [--rounds 5] [--seconds 5] [--connections 16 64]

All send the same tiny KServe request to the same C server (compiled here), the server on core 0
and the client on core 1; the lane runs as `loadbench run` runs it, with answers checked, stamps and
histograms on. Rounds are interleaved. A row counts only while the server's core was under 90 %
busy. Then an open loop, Poisson at 20,000/s: how late the lane sends.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from loadbench.histogram import Histogram
from loadbench.model import Tensor, Window, decode, encode
from loadbench.plan import Endpoint, Finished, Message, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.targets.inputs import prepare
from loadbench.targets.kserve import infer_path
from loadbench.units import SECOND

HERE = Path(__file__).parent
SERVER_CORE, CLIENT_CORE = "0", "1"
LOCUSTFILE = """
from locust import FastHttpUser, constant, task
class Fast(FastHttpUser):
    wait_time = constant(0)
    @task
    def infer(self):
        self.client.post({path!r}, data={body!r}, headers={headers!r})
"""


class Row(NamedTuple):
    """What one client reached in one round."""

    rate: float
    per_cpu_second: float
    server_busy: float


class Server:
    """The C server, pinned; its CPU time is what `busy` is measured with."""

    def __init__(self, binary: Path) -> None:
        self._process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, str(binary)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._stat = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        times = self._stat.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "server"
        subprocess.run(["gcc", "-O2", "-o", binary, HERE / "fast_server.c"], check=True)
        found = Server(binary)
        try:
            yield found
        finally:
            found.close()


def endpoint(port: int) -> Endpoint:
    return Endpoint(
        host="127.0.0.1", port=port, protocol="kserve", model="m", binary=False,
        inputs=(Tensor("x", "FP32", (4,)),), outputs=(Tensor("y", "FP32", (3,)),),
    )  # fmt: skip


def run_lane(plan: Plan) -> tuple[list[Window], Finished]:
    """A load process on the client's core."""
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "loadbench.load"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as load:
        load.stdin.write(encode(plan) + b"\n")
        load.stdin.flush()
        *messages, last = [decode(Message, line) for line in load.stdout]
    assert isinstance(last, Finished), last
    assert last.reason == "done", last
    return [found for found in messages if isinstance(found, Window)], last


def lane(port: int, connections: int, seconds: int) -> tuple[float, float]:
    """(requests per second, CPU seconds per second)"""
    plan = Plan(
        endpoint=endpoint(port),
        requests=(RequestPlan("infer"),),
        arrivals="closed",
        phases=(Phase(0, 0, seconds * SECOND),),
        concurrency=connections,
        warmup_ns=SECOND,
    )
    windows, last = run_lane(plan)
    assert not any(window.failed for window in windows)
    done = sum(window.done for window in windows if window.stage == "load")
    return done / seconds, last.cpu_ns / SECOND / (seconds + 1)


def wrk(port: int, connections: int, seconds: int) -> tuple[float, float]:
    head, body = one_request(port)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in head.items())
        script.write(f"wrk.method = 'POST'\nwrk.body = '{body}'\n{headers}")
        script.flush()
        arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", script.name]
        out, cpu = pinned([*arguments, f"http://127.0.0.1:{port}{path(port)}"])
    assert "Non-2xx" not in out, out
    assert "Socket errors" not in out, out
    found = re.search(r"Requests/sec:\s+([0-9.]+)", out)
    assert found, out
    return float(found[1]), cpu / seconds


def fast_http_user(port: int, connections: int, seconds: int) -> tuple[float, float]:
    head, body = one_request(port)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fast.py"
        file.write_text(LOCUSTFILE.format(path=path(port), body=body.encode(), headers=head))
        arguments = ["-m", "locust", "-f", str(file), "--headless", "--only-summary", "--json"]
        users = ["-u", str(connections), "-r", str(connections), "-t", f"{seconds}s"]
        where = ["--host", f"http://127.0.0.1:{port}", "--reset-stats"]
        out, cpu = pinned([sys.executable, *arguments, *users, *where])
    (entry,) = json.loads(out)
    length = entry["last_request_timestamp"] - entry["start_time"]
    assert entry["num_failures"] == 0
    return entry["num_requests"] / length, cpu / seconds


def pinned(command: list[str]) -> tuple[str, float]:
    """(its output, the CPU seconds it took) of a command on the client's core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, *command], capture_output=True, text=True, check=True
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_request(port: int) -> tuple[dict[str, str], str]:
    """(header fields, body) of what the lane sends, for the other clients."""
    ((first, *_),), _ = prepare(endpoint(port), [RequestPlan("infer")], seed=1)
    return {"Content-Type": "application/json"}, first.data.decode().partition("\r\n\r\n")[2]


def path(port: int) -> str:
    return infer_path(endpoint(port))


CLIENTS = {"lane": lane, "wrk": wrk, "FastHttpUser": fast_http_user}


def measure(found: Server, name: str, connections: int, seconds: int) -> Row:
    cpu = found.cpu()
    rate, client = CLIENTS[name](found.port, connections, seconds)
    busy = (found.cpu() - cpu) / (seconds + (name == "lane"))  # the lane warms up for a second
    return Row(rate, rate / client, busy)


def compare(found: Server, rounds: int, seconds: int, connections: int) -> None:
    rows: dict[str, list[Row]] = {name: [] for name in CLIENTS}
    for number in range(rounds):
        for name in CLIENTS if number % 2 == 0 else reversed(CLIENTS):
            rows[name].append(measure(found, name, connections, seconds))
    print(f"{connections} connections, {rounds} interleaved rounds of {seconds} s")
    base = statistics.median(row.rate for row in rows["wrk"])
    for name, mine in rows.items():
        rates = sorted(row.rate for row in mine)
        busy = max(row.server_busy for row in mine)
        print(
            f"  {name:14}{statistics.median(rates):>10,.0f}/s  ({rates[0]:,.0f}–{rates[-1]:,.0f})"
            f"  {statistics.median(rates) / base:5.2f} × wrk"
            f"  {statistics.median(row.per_cpu_second for row in mine):>10,.0f} per CPU s"
            f"  server {busy:.0%} busy{'' if busy < 0.9 else ': does not count'}"
        )


def lateness(found: Server, rate: float, seconds: int) -> None:
    plan = Plan(
        endpoint=endpoint(found.port),
        requests=(RequestPlan("infer"),),
        arrivals="poisson",
        phases=(Phase(rate, rate, seconds * SECOND),),
        warmup_ns=SECOND,
    )
    windows, _ = run_lane(plan)
    late = Histogram.merged(window.lateness for window in windows if window.stage == "load")
    p50, p99, top = (f"{(late.quantile(q) or 0) / 1000:,.0f}" for q in (0.5, 0.99, 1.0))
    sent = sum(window.sent for window in windows if window.stage != "warmup")
    print(f"open loop, Poisson {rate:,.0f}/s, {sent:,} sent: late by {p50} / {p99} / {top} µs "
          "(P50 / P99 / most)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    given = parser.parse_args()
    with server() as found:
        for connections in given.connections:
            compare(found, given.rounds, given.seconds, connections)
        lateness(found, 20_000, given.seconds)


if __name__ == "__main__":
    main()
