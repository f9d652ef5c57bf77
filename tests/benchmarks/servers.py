"""The engine beside other servers that batch: one MLP, one core for the server, wrk on another.

    python -m tests.benchmarks.servers [--rounds 5] [--seconds 4] [--fresh]

A closed loop of 1, 8, 32, 64 and 128 connections against loadbench as it is, without `engine.hold`,
and with the layers as torch runs them (`plain`: `engine.packed` off); against mosec (bodies in
binary, up to 32 a batch, 5 ms of linger) and Triton with a Python model, all with the same weights,
torch and one thread. Triton runs with the delay that is best for it: each of
DELAYS is tried for a second at every size first. The servers take turns within a round, the bare
model runs before and after it, and what counts is the ratio in the same round. Every cell is
written to a file at once; after an interruption the same call goes on where it stopped.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np

from loadbench.engine.zoo import build
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec
from tests.benchmarks.engine import bare, lua, one_request, wrk
from tests.peers.servers import free_port

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "peers"
STATE = HERE.parents[1] / "results" / "bench-servers.ndjson"
SIZES = (1, 8, 32, 64, 128)
DELAYS = (0, 1, 2, 5)  # ms, of Triton
PACKAGES = str(Path(np.__file__).parents[1])  # where torch is, too
CONFIG = """name: "mlp_%d"
backend: "python"
max_batch_size: 32
input [{ name: "input", data_type: TYPE_FP32, dims: [256] }]
output [{ name: "logits", data_type: TYPE_FP32, dims: [10] }]
instance_group [{ kind: KIND_CPU, count: 1 }]
dynamic_batching { max_queue_delay_microseconds: %d }
parameters { key: "packages" value { string_value: "%s" } }
"""


class Target(NamedTuple):
    """What wrk is pointed at."""

    url: str
    script: Path


def weights(folder: Path) -> Path:
    """The zoo's MLP as arrays: weight, bias, weight, bias, …"""
    module = build("mlp", seed=1).module
    path = folder / "weights.npz"
    np.savez(path, **{name: value.numpy() for name, value in module.state_dict().items()})
    return path


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server on core 0 with a session of its own, ended with all that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command],
            stdin=subprocess.PIPE, stdout=output, stderr=output,
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()


def waited(ready: Callable[[], bool], log: Path) -> None:
    """Until it is up, for at most two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"not up after two minutes:\n{log.read_text()[-2000:]}")


def kserve(url: str, model: str, script: Path) -> Target:
    with Asker(url, "kserve") as asker:
        endpoint = asker.describe(TargetSpec(url=url, model=model))
    script.write_text(lua(one_request(endpoint)))
    return Target(url, script)


def ours(stack: ExitStack, folder: Path, name: str, *settings: str) -> Target:
    port = free_port()
    settings = ("threads=1", "precision=fp32", "max_batch=32", *settings)
    command = [sys.executable, "-m", "loadbench", "serve", "mlp", "--port", str(port)]
    command += ["--follow-stdin", *(w for s in settings for w in ("--set", f"engine.{s}"))]
    log, url = folder / f"{name}.log", f"http://127.0.0.1:{port}"
    stack.enter_context(started(command, log, {}))
    waited(lambda: urlopen(f"{url}/v2/health/ready").status == 200, log)
    return kserve(url, "mlp", folder / f"{name}.lua")


def mosec(stack: ExitStack, folder: Path, body: bytes) -> Target:
    port, log = free_port(), folder / "mosec.log"
    command = [str(PEERS / "servers-venv/bin/python"), str(HERE / "mosec_mlp.py")]
    command += ["--port", str(port), "--address", "127.0.0.1", "--path", str(folder / "mosec")]
    environment = {"MLP_WEIGHTS": str(folder / "weights.npz"), "PACKAGES": PACKAGES}
    stack.enter_context(started(command, log, environment))
    url, script = f"http://127.0.0.1:{port}/inference", folder / "mosec.lua"
    waited(lambda: len(urlopen(Request(url, body)).read()) == 40, log)
    head = b"POST /inference HTTP/1.1\r\nContent-Type: application/octet-stream\r\n\r\n"
    script.write_text(lua(head + body))
    return Target(url, script)


def triton(stack: ExitStack, folder: Path) -> dict[int, Target]:
    """One server with a model for each delay."""
    for delay in DELAYS:
        model = folder / "models" / f"mlp_{delay}"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(CONFIG % (delay, delay * 1000, PACKAGES))
        shutil.copy(HERE / "triton_mlp.py", model / "1" / "model.py")
        shutil.copy(folder / "weights.npz", model / "1")
    home, port, log = PEERS / "triton/pytriton/tritonserver", free_port(), folder / "triton.log"
    command = [
        str(home / "bin/tritonserver"), "--model-repository", str(folder / "models"),
        "--backend-directory", str(home / "backends"), "--http-address", "127.0.0.1",
        "--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false",
    ]  # fmt: skip
    environment = {"PATH": f"{PEERS / 'venv/bin'}:/usr/bin:/bin", "HOME": str(folder)}
    stack.enter_context(started(command, log, environment))
    url = f"http://127.0.0.1:{port}"
    waited(lambda: urlopen(f"{url}/v2/health/ready").status == 200, log)
    return {delay: kserve(url, f"mlp_{delay}", folder / f"{delay}.lua") for delay in DELAYS}


class Book:
    """The cells measured so far, on disk: (round, server, size) → (requests/s, P50 in ms)."""

    def __init__(self, settings: dict[str, Any], fresh: bool) -> None:
        self.cells: dict[str, list[float]] = {}
        STATE.parent.mkdir(exist_ok=True)
        lines = STATE.read_text().splitlines() if STATE.exists() and not fresh else []
        if lines and json.loads(lines[0]) == settings:
            for line in lines[1:]:
                self.cells.update(json.loads(line))
        else:
            STATE.write_text(json.dumps(settings) + "\n")

    def cell(self, name: str, measure: Callable[[], list[float]]) -> list[float]:
        if name not in self.cells:
            self.cells[name] = measure()
            with STATE.open("a") as file:
                file.write(json.dumps({name: self.cells[name]}) + "\n")
        return self.cells[name]


def alone() -> list[float]:
    """ms of the bare model's batch of 1 and of 32, as torch runs it."""
    with bare(["mlp", [], [], False]) as model:
        return [1e3 * model(size).seconds for size in (1, 32)]


def measured(target: Target, size: int, seconds: int) -> list[float]:
    rate, p50, wrong = wrk(target.url, target.script, size, seconds)
    if wrong:
        sys.exit(f"{wrong} answers of {target.url} were errors: nothing to compare")
    return [rate, p50]


def best_delays(book: Book, delays: dict[int, Target]) -> dict[int, int]:
    """Triton's best delay for each size."""
    found = {}
    for size in SIZES:
        rates = {
            delay: book.cell(f"try {delay} {size}", partial(measured, target, size, 1))[0]
            for delay, target in delays.items()
        }
        found[size] = max(rates, key=rates.__getitem__)
    return found


def present(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Every server that can be run here, up; what is missing is said."""
    servers: dict[str, Any] = {
        "ours": ours(stack, folder, "ours"),
        "no hold": ours(stack, folder, "unheld", "hold=false"),
        "plain": ours(stack, folder, "plain", "packed=false"),
    }
    row = np.random.default_rng(1).standard_normal(256, np.float32).tobytes()
    if (PEERS / "servers-venv/.installed").exists():
        servers["mosec"] = mosec(stack, folder, row)
    else:
        print("without mosec: make bench-servers puts it into peers/servers-venv")
    if (PEERS / "triton").is_dir():
        servers["triton"] = triton(stack, folder)
    else:
        print("without Triton: tests/peers/setup.sh puts it into peers/triton")
    return servers


def report(book: Book, servers: list[str], rounds: int, delays: dict[int, int]) -> None:
    base = [book.cells[f"{n} {when}"] for n in range(rounds) for when in ("before", "after")]
    one, full = (statistics.median(pair[index] for pair in base) for index in (0, 1))
    print(f"\nbare: {one:.2f} ms at batch 1, {32e3 / full:.0f}/s at batch 32")
    print(f"medians of {rounds} rounds (least to most); x: requests/s and P50 of ours by theirs")
    for size in SIZES:
        for name in servers:
            cells = [book.cells[f"{n} {name} {size}"] for n in range(rounds)]
            rate, p50 = (statistics.median(cell[index] for cell in cells) for index in (0, 1))
            line = f"{size:4}  {name:8} {rate:6.0f}/s  P50 {p50:6.2f} ms  "
            line += f"{rate * full / 32e3:.2f} of bare"
            for mine in ("ours", "plain"):
                if name not in (mine, "ours") and (name, mine) != ("no hold", "plain"):
                    line += f"  {mine} {_ratios(book, (mine, name), size, rounds)}"
            if name == "triton":
                line += f"  {delays[size]} ms"
            if size == 1:
                line += f"  {p50 - one:+.2f} ms to bare batch 1"
            print(line)


def _ratios(book: Book, names: tuple[str, str], size: int, rounds: int) -> str:
    """Requests/s and P50 of the first by the second, in the same rounds."""
    found = []
    for index, what in enumerate(("x", "P50 x")):
        pairs = [[book.cells[f"{n} {name} {size}"][index] for name in names] for n in range(rounds)]
        each = [mine / theirs for mine, theirs in pairs]
        found.append(f"{what}{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
    return "  ".join(found)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--fresh", action="store_true", help="forget an interrupted run")
    given = arguments.parse_args()
    if not shutil.which("wrk") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs wrk (Debian: apt-get install wrk) and two cores")
    book = Book({"rounds": given.rounds, "seconds": given.seconds}, given.fresh)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        weights(folder)
        servers = present(folder, stack)
        delays = best_delays(book, servers["triton"]) if "triton" in servers else {}
        for number in range(given.rounds):
            book.cell(f"{number} before", alone)
            for size in SIZES:
                for server, found in servers.items():
                    target = found[delays[size]] if server == "triton" else found
                    cell = book.cell(
                        f"{number} {server} {size}", partial(measured, target, size, given.seconds)
                    )
                    print(f"{number} {size:4} {server:8} {cell[0]:6.0f}/s  P50 {cell[1]:.2f} ms")
            book.cell(f"{number} after", alone)
    report(book, list(servers), given.rounds, delays)
    STATE.unlink()


if __name__ == "__main__":
    main()
