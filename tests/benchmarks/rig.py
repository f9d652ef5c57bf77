"""What the benchmarks of the load share: the C programs, the server on its core, a load process on
another, and the one request that all clients send."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from loadbench.model import Tensor, Window, decode, encode
from loadbench.plan import Endpoint, Finished, Message, Plan, RequestPlan
from loadbench.targets.inputs import prepare
from loadbench.targets.kserve import infer_path
from loadbench.targets.region import Region

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "peers"
SERVER_CORE, CLIENT_CORE = "0", "1"
Popen = subprocess.Popen[bytes]


class Server:
    """The C server, pinned; its CPU time is what `busy` is measured with."""

    def __init__(self, binary: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, str(binary), *arguments], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._stat = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        return cpu(self._stat)

    def answered(self) -> int:
        """How many infer requests, by its own count."""
        with urlopen(f"http://127.0.0.1:{self.port}/v2/models/m/stats") as answer:
            (found,) = json.load(answer)["model_stats"]
        return int(found["inference_count"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def compiled(name: str, *options: str) -> Iterator[Path]:
    """One of the C programs here."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / name
        source = HERE / f"{name}.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-o", binary, source, "-lm", *options], check=True)
        yield binary


@contextmanager
def server() -> Iterator[Server]:
    with compiled("fast_server") as binary:
        found = Server(binary)
        try:
            yield found
        finally:
            found.close()


def endpoint(port: int, image: bool = False, binary: bool = False) -> Endpoint:
    """A tiny request in JSON or with a binary tensor, or one of 3×224×224 bytes."""
    given = Tensor("x", "UINT8", (3, 224, 224)) if image else Tensor("x", "FP32", (4,))
    return Endpoint(
        host="127.0.0.1", port=port, protocol="kserve", model="m", binary=image or binary,
        inputs=(given,), outputs=(Tensor("y", "FP32", (3,)),),
    )  # fmt: skip


def one_request(found: Endpoint) -> tuple[dict[str, str], bytes]:
    """(header fields, body) of what the lane sends, for the other clients. That of shared memory
    names a region which the server does not know: it must be one that does not look."""
    region = Region() if found.shared else None
    ((first, *_),), _ = prepare(found, [RequestPlan("infer")], seed=1, region=region)
    head, _, body = first.data.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    own = ("Host", "Content-Length")  # each client says those itself
    return {name: value for name, value in fields.items() if name not in own}, body


def url(found: Endpoint) -> str:
    return f"http://{found.host}:{found.port}{infer_path(found)}"


@contextmanager
def running(
    command: list[str], environment: dict[str, str] | None = None, core: str = CLIENT_CORE
) -> Iterator[Popen]:
    """A process on the client's core, ended with the block."""
    env = {**os.environ, **(environment or {})}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    pinned = ["taskset", "-c", core, *command]
    with subprocess.Popen(pinned, env=env, stderr=subprocess.DEVNULL, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def loading(plan: Plan) -> Iterator[Popen]:
    """A load process that has been told its plan."""
    with running([sys.executable, "-m", "loadbench.load"]) as load:
        assert load.stdin is not None
        load.stdin.write(encode(plan) + b"\n")
        load.stdin.flush()
        yield load


def run_lane(plan: Plan) -> tuple[list[Window], Finished]:
    """A whole run of a load process."""
    with loading(plan) as load:
        assert load.stdout is not None
        *messages, last = [decode(Message, line) for line in load.stdout]  # type: ignore[arg-type]
    assert isinstance(last, Finished), last
    assert last.reason == "done", last
    return [found for found in messages if isinstance(found, Window)], last


def pinned(command: list[str]) -> tuple[str, float]:
    """(its output, the CPU seconds it took) of a command on the client's core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, *command], capture_output=True, text=True, check=True
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
