"""The servers under test and the plainest of clients: real processes on loopback.

The tests and record.py use what is here; what the servers answer is for those to judge.
"""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = ROOT / "peers"
LOADBENCH = ROOT / ".venv" / "bin" / "loadbench"
START_SECONDS = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Server(NamedTuple):
    """A server that is up. `log` is what it has written so far."""

    port: int
    log: Path
    grpc_port: int = 0  # 0: none
    metrics_port: int = 0  # where it has one for them alone

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """GET, or POST of `body`; the answer as it came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@contextmanager
def triton(folder: Path, port: int = 0, *options: str) -> Iterator[Server]:
    """The real Triton, on a free port unless one is given, with the models of this folder and a
    cache for those that want one, and with options of its own; its log goes to `folder`."""
    home = PEERS / "triton" / "pytriton" / "tritonserver"
    port, grpc_port = port or free_port(), free_port()
    command = [
        str(home / "bin" / "tritonserver"),
        *("--model-repository", str(HERE / "models")),
        *("--backend-directory", str(home / "backends")),
        *("--http-address", "127.0.0.1", "--http-port", str(port)),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port)),
        *("--allow-metrics", "false", "--exit-timeout-secs", "1"),
        *("--cache-directory", str(home / "caches"), "--cache-config", "local,size=1048576"),
        *options,
    ]
    # The Python backend's interpreter ignores PYTHONPATH; it takes numpy from the environment
    # whose python3 is the first on the PATH.
    environment = {"PATH": f"{PEERS / 'venv' / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    log = folder / "triton.log"
    with running(command, log, environment) as process:
        server = Server(port, log, grpc_port)
        wait(process, log, lambda: _is_ready(server))
        yield server


@contextmanager
def serve(folder: Path, model: str, *arguments: str) -> Iterator[Server]:
    """`loadbench serve MODEL` on a free port, warm; its output goes to `folder`."""
    log = folder / "serve.log"
    command = [str(LOADBENCH), "serve", model, "--port", "0", *arguments]
    with running(command, log, dict(os.environ)) as process:
        wait(process, log, lambda: _ready_line(log) is not None)
        line = _ready_line(log)
        assert line is not None
        _, url, _ = line.split(maxsplit=2)
        yield Server(int(url.rpartition(":")[2]), log, _grpc_port(log))


@contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str], folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is ended, kindly and then not, with all that it started, when the block is left.
    Its stdin stays open until then: loadbench's children exit when theirs closes."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait(process: subprocess.Popen[bytes], log: Path, is_up: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not is_up():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}:\n{log.read_text()}")
        if time.monotonic() > end:
            raise RuntimeError(f"not up after {START_SECONDS:.0f} s:\n{log.read_text()}")
        time.sleep(0.1)


def _is_ready(server: Server) -> bool:
    try:
        return server.ask("/v2/health/ready").status == 200
    except ConnectionRefusedError:
        return False


def _ready_line(log: Path) -> str | None:
    lines = log.read_text().splitlines(keepends=True)
    return next((line for line in lines if line.startswith("ready ") and line[-1] == "\n"), None)


def _grpc_port(log: Path) -> int:
    """Where gRPC is, which is said before the engine is ready; 0: nowhere."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("gRPC on ")]
    return int(lines[0].rpartition(":")[2]) if lines else 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
