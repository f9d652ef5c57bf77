"""The load generators that are compared, each as a process on the client's core that keeps so many
connections busy with the same request. What is there to judge them by is the server's own count."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from loadbench.model import Window, decode, encode
from loadbench.plan import Command, Endpoint, Finished, Message, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.units import SECOND
from tests.benchmarks.rig import HERE, PEERS, Popen, loading, one_request, running, url

LOCUSTFILE = """
from locust import FastHttpUser, constant, task
class Fast(FastHttpUser):
    wait_time = constant(0)
    @task
    def infer(self):
        self.client.post({path!r}, data={body!r}, headers={headers!r})
"""
# the same, asking of an answer what the lane asks of it
CHECKING = """
from locust import FastHttpUser, constant, task
class Fast(FastHttpUser):
    wait_time = constant(0)
    @task
    def infer(self):
        with self.client.post({path!r}, data={body!r}, headers={headers!r},
                              catch_response=True) as answer:
            if answer.status_code != 200:
                return
            outputs = [(found["name"], found["datatype"], found["shape"], len(found["data"]))
                       for found in answer.json()["outputs"]]
            if outputs != {outputs!r}:
                answer.failure("not what was asked for")
"""
AIOHTTP = PEERS / "bench-venv" / "bin" / "python"
PERF_ANALYZER = PEERS / "perf_analyzer"


class Job:
    """What a client is to do: for so many seconds keep the connections to an endpoint busy."""

    def __init__(self, endpoint: Endpoint, connections: int, seconds: float, folder: Path) -> None:
        self.endpoint = endpoint
        self.connections = connections
        self.seconds = seconds
        self.folder = folder
        self.url = url(endpoint)
        self.head, self.body = one_request(endpoint)


@contextmanager
def lane(job: Job, pool: int | None = 1) -> Iterator[Popen]:
    """As in every run: under Locust, answers checked, stamps and histograms on. One body over and
    over, as the others send it."""
    plan = Plan(
        endpoint=job.endpoint,
        requests=(RequestPlan("infer", pool=pool),),
        arrivals="closed",
        phases=(Phase(0, 0, 3600 * SECOND),),
        concurrency=job.connections,
    )
    with loading(plan) as process:
        yield process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(Command("stop")) + b"\n")
        process.stdin.flush()
        messages = [decode(Message, line) for line in process.stdout]  # type: ignore[arg-type]
    assert isinstance(messages[-1], Finished), messages[-1]
    assert not any(isinstance(found, Window) and found.failed for found in messages)


def lane_pool(job: Job) -> AbstractContextManager[Popen]:
    """With the pool of distinct bodies that users get, which no cache of the processor holds."""
    return lane(job, None)


@contextmanager
def wrk(job: Job) -> Iterator[Popen]:
    script = job.folder / "request.lua"
    fields = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in job.head.items())
    body = "".join(f"\\{byte:03d}" for byte in job.body)
    script.write_text(f'wrk.method = "POST"\nwrk.body = "{body}"\n{fields}')
    arguments = ["-t1", f"-c{job.connections}", f"-d{job.seconds:.0f}", "-s", str(script), job.url]
    with running(["wrk", *arguments]) as process:
        yield process
        out = process.communicate()[0].decode()
    assert "Requests/sec" in out, out
    assert "Non-2xx" not in out, out
    assert "Socket errors" not in out, out


@contextmanager
def fast_http_user(job: Job, text: str = LOCUSTFILE) -> Iterator[Popen]:
    file = job.folder / "fast.py"
    host, path = re.fullmatch("(http://[^/]+)(.*)", job.url).groups()  # type: ignore[union-attr]
    outputs = [
        (found.name, found.datatype, [1, *found.shape], math.prod(found.shape))
        for found in job.endpoint.outputs
    ]
    file.write_text(text.format(path=path, body=job.body, headers=job.head, outputs=outputs))
    arguments = ["-m", "locust", "-f", str(file), "--headless", "--only-summary", "--json"]
    number = str(job.connections)
    users = ["-u", number, "-r", number, "-t", f"{job.seconds:.0f}s", "--host", host]
    with running([sys.executable, *arguments, *users]) as process:
        yield process
        (entry,) = json.loads(process.communicate()[0])
    assert entry["num_failures"] == 0


@contextmanager
def perf_analyzer(job: Job, *options: str) -> Iterator[Popen]:
    """Synchronous, its faster way here. It is ended when it has been measured, as its own windows
    of time, which `options` can ask for, can wait forever on a server that answers at once."""
    command = [str(PERF_ANALYZER), "-m", job.endpoint.model, "-u", job.url.split("/")[2]]
    if job.endpoint.shared:
        command += ["--shared-memory", "system"]
    if not job.endpoint.binary:
        command += ["--input-tensor-format", "json", "--output-tensor-format", "json"]
    command += ["--concurrency-range", str(job.connections)]
    command += options or ["--request-count", "100000000"]
    with running(command, {"LD_LIBRARY_PATH": str(PEERS / "lib")}) as process:
        yield process


@contextmanager
def aiohttp(job: Job) -> Iterator[Popen]:
    body = job.folder / "body"
    body.write_bytes(job.body)
    arguments = [job.url, str(job.connections), str(job.seconds), str(body), json.dumps(job.head)]
    with running([str(AIOHTTP), str(HERE / "aiohttp_client.py"), *arguments]) as process:
        yield process
        assert process.communicate()[0].strip() == b"0"


Client = Callable[[Job], AbstractContextManager[Popen]]
KINDS: dict[str, dict[str, Client]] = {
    "closed": {
        "lane": lane,
        "wrk": wrk,
        "aiohttp + uvloop": aiohttp,
        "perf_analyzer": perf_analyzer,
        "Locust FastHttpUser": fast_http_user,
        "Locust FastHttpUser, checking": partial(fast_http_user, text=CHECKING),
    },
    "binary": {"lane": lane, "wrk": wrk, "perf_analyzer": perf_analyzer},
    "images": {"lane": lane, "wrk": wrk, "lane, distinct bodies": lane_pool},
}


def missing(name: str) -> str:
    """Why a client cannot be compared with; empty if it can."""
    if name == "wrk" and not shutil.which("wrk"):
        return "wrk is not installed (Debian: apt-get install wrk)"
    if name == "perf_analyzer" and not PERF_ANALYZER.exists():
        return "peers/perf_analyzer is not there (make peers)"
    if name == "aiohttp + uvloop":
        if not AIOHTTP.exists():
            return "peers/bench-venv is not there (make bench)"
        found = subprocess.run([AIOHTTP, "-c", "import aiohttp, uvloop"], capture_output=True)
        return "" if found.returncode == 0 else "peers/bench-venv has no aiohttp or uvloop"
    return ""
