"""Engine throughput against the bare model's best batch, in one run and on the same core.

    python tests/benchmarks/engine.py [--model mlp|plain|short|NAME] [--rounds 5] [--seconds 4]

The server has core 0 and one thread, wrk (Debian package `wrk`) has core 1 and posts binary KServe
requests over 1, 32, 64 and 128 connections. Before and after each two seconds of it the bare model
runs alone on core 0, its inputs in memory: its batch 1 (the median) is the bound of a lone request
(P50), its batch 32 (as many as ran in that time) that of throughput. Machines are noisy, so a spell
is held against the mean of the two beside it, and a round is told by the median of its spells. The
connections begin and end within a spell, with batches that are not full: that costs up to a
hundredth of a second of it, which is not given back.

`mlp` is the zoo's as it is served, its weights packed (`engine.packed`) on both sides; `plain` the
same with the layers as torch runs them, on both sides, too. `short` is made here: about 0.4 ms at
batch 1 and 2 ms at batch 32, so that a request may cost less. All burn the processor in C, without
the interpreter's lock, as models do: a fake that sleeps would leave the core to the front end.

Beside it stands the least that a server in Python can cost (`least.py`), turn by turn with the
engine: the engine's own cost is what it adds to that.

What a request adds is the CPU time of the server's process less that of the bare model for as many
rows in batches of 32 (at one connection: of 1).
"""

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.ask import Asker
from loadbench.targets.inputs import prepare
from loadbench.targetspec import TargetSpec

CONNECTIONS = (1, 32, 64, 128)
SPELL = 2  # seconds
SETTINGS = ["engine.threads=1", "engine.precision=fp32", "engine.max_batch=32"]
SIGNATURE = ["input:FP32:-1,256"], ["logits:FP32:-1,10"]
BARE = """
import json, sys, time
import numpy as np
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
name, inputs, outputs, packed = json.loads(sys.argv[1])
given = EngineSpec(
    threads=1, precision="fp32", packed=packed, inputs=tuple(inputs), outputs=tuple(outputs)
)
model = open_model(name, given, trust=bool(inputs))
shape = [d if d > 0 else 64 for d in model.inputs[0].shape]
for line in sys.stdin:
    size, seconds = int(line.split()[0]), float(line.split()[1])
    rows = {model.inputs[0].name: np.random.rand(size, *shape).astype(np.float32)}
    for _ in range(5): model.run(rows)
    times, cpu = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin, spent = time.perf_counter(), time.process_time()
        model.run(rows)
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - spent)
    middle = len(times) // 2
    print(sorted(times)[middle], sum(times) / len(times), sorted(cpu)[middle], flush=True)
"""
SHORT = """
import sys, warnings
import torch
from torch import nn
warnings.simplefilter("ignore")  # TorchScript is called deprecated
torch.manual_seed(1)
class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.v = nn.Parameter(torch.randn(1024, 1024) / 32)
        self.g = nn.Parameter(torch.ones(1024, 1))
    def forward(self, x):  # weights normed at each call: what a batch costs whatever its rows
        return nn.functional.linear(x, self.v * (self.g / self.v.norm(dim=1, keepdim=True)))
layers = nn.Linear(256, 1024), nn.ReLU(), Normed(), nn.ReLU(), Normed(), nn.ReLU()
model = nn.Sequential(*layers, nn.Linear(1024, 10)).eval()
torch.jit.trace(model, torch.rand(2, 256)).save(sys.argv[1])
"""


class Taken(NamedTuple):
    """Of a batch of the bare model, in seconds."""

    median: float
    mean: float
    cpu: float  # the median


class Cell(NamedTuple):
    """What one round found at so many connections, medians of its spells."""

    rate: float  # requests/s
    p50_ms: float
    share: float  # of the bare model's rate in batches of 32
    cpu_us: float  # of the server for a request
    added_us: float  # of these, beside the bare model's
    late_ms: float  # P50 above the bare model's batch of 1


@contextmanager
def bare(arguments: list[Any]) -> Iterator[Callable[[int], Taken]]:
    """The model on core 0; a call runs it in batches of so many rows for half a second."""
    command = ["taskset", "-c", "0", sys.executable, "-c", BARE, json.dumps(arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

        def measured(size: int) -> Taken:
            print(size, 0.5, file=process.stdin, flush=True)
            return Taken(*map(float, process.stdout.readline().split()))

        yield measured
        process.stdin.close()


def wrk(url: str, script: Path | None, connections: int, seconds: int) -> tuple[float, float, int]:
    """(requests/s, P50 in ms, answers that were no 2xx) from core 1."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-s", str(script)] if script is not None else []
    text = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    return rate, float(value) * scale, int(wrong[1]) if wrong else 0


def lua(request: bytes) -> str:
    """A wrk script that posts this request's path, headers and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    lines = [f'wrk.method = "POST"; wrk.path = "{first.split()[1]}"']
    for header in headers:
        name, _, value = header.partition(": ")
        if name.lower() not in ("host", "content-length"):
            lines.append(f'wrk.headers["{name}"] = "{value}"')
    escaped = "".join(f"\\{byte:03d}" for byte in body)
    return "\n".join([*lines, f'wrk.body = "{escaped}"'])


@contextmanager
def serving(arguments: list[str], settings: list[str]) -> Iterator[tuple[Any, str]]:
    """An engine on core 0: its process and its URL."""
    command = ["-m", "loadbench", "serve", *arguments, "--port", "0", "--follow-stdin"]
    with server([*command, *(w for s in settings for w in ("--set", s))]) as found:
        yield found


@contextmanager
def server(arguments: list[str]) -> Iterator[tuple[Any, str]]:
    """What Python runs on core 0 until its stdin is closed: its process and its URL."""
    command = ["taskset", "-c", "0", sys.executable, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process, process.stdout.readline().decode().split()[1]
        finally:
            process.stdin.close()


def one_round(given: argparse.Namespace, folder: Path) -> dict[tuple[str, int], Cell]:
    """Both servers at each number of connections, the bare model before and after each spell."""
    name, signature, packed = given.model, ((), ()), given.model == "mlp" or "auto"
    if name == "short":
        name, signature = str(folder / "short.pt"), SIGNATURE
    elif name == "plain":
        name, packed = "mlp", False
    options = [w for kind, texts in zip(("--input", "--output"), signature, strict=True)
               for text in texts for w in (kind, text)]  # fmt: skip
    if signature[0]:
        options.append("--trust")
    model = [name, *signature, packed]
    settings = [*SETTINGS, f"engine.packed={json.dumps(packed)}"]
    found: dict[tuple[str, int], Cell] = {}
    with (
        bare(model) as alone,
        serving([name, *options], settings) as engine,
        server(["-m", "tests.benchmarks.least", json.dumps(model)]) as least,
        Asker(engine[1], "kserve") as asker,
    ):
        script = folder / "post.lua"
        script.write_text(lua(one_request(asker.describe(TargetSpec(url=engine[1])))))
        for connections in CONNECTIONS:
            sizes = (1, 32) if connections == 1 else (32,)
            before = {size: alone(size) for size in sizes}
            cells: dict[str, list[Cell]] = {"engine": [], "least": []}
            rates = [32 / before[32].mean]
            for _ in range(max(1, given.seconds // SPELL)):
                for which, (process, url) in (("engine", engine), ("least", least)):
                    watched = psutil.Process(process.pid)
                    begun = watched.cpu_times()
                    rate, p50, wrong = wrk(url, script, connections, SPELL)
                    ended = watched.cpu_times()
                    if wrong:
                        sys.exit(f"{wrong} answers were errors: nothing to compare")
                    cpu = ended.user + ended.system - begun.user - begun.system
                    cpu /= rate * SPELL
                    after = {size: alone(size) for size in sizes}
                    cells[which].append(_cell(rate, p50, cpu, before, after))
                    rates.append(32 / after[32].mean)
                    before = after
            print(f"bare batch 32: {min(rates):,.0f} to {max(rates):,.0f}/s")
            for which, each in cells.items():
                found[which, connections] = middle = _middle(each)
                print(_line(which, connections, middle), flush=True)
    return found


def _cell(
    rate: float, p50: float, cpu: float, before: dict[int, Taken], after: dict[int, Taken]
) -> Cell:
    beside = {size: zip(one, after[size], strict=True) for size, one in before.items()}
    mean = {size: Taken(*map(statistics.mean, pairs)) for size, pairs in beside.items()}
    lone = mean.get(1)
    own = lone.cpu if lone else mean[32].cpu / 32
    late = p50 - lone.median * 1e3 if lone else math.nan
    return Cell(rate, p50, rate * mean[32].mean / 32, cpu * 1e6, (cpu - own) * 1e6, late)


def _middle(cells: list[Cell]) -> Cell:
    return Cell(*(statistics.median(values) for values in zip(*cells, strict=True)))


def _line(which: str, connections: int, cell: Cell) -> str:
    lone = f"  {cell.late_ms:+.2f} ms to the bare model" if connections == 1 else ""
    return (f"{connections:4} {which:6}  {cell.rate:7.0f}/s  P50 {cell.p50_ms:6.2f} ms  "
            f"{cell.share:.2f} of bare batch 32  {cell.added_us:5.1f} µs added{lone}")  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="mlp")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    given = arguments.parse_args()
    if not shutil.which("wrk") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs wrk (Debian: apt-get install wrk) and two cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.model == "short":
            subprocess.run([sys.executable, "-c", SHORT, str(folder / "short.pt")], check=True)
        rounds = [one_round(given, folder) for _ in range(given.rounds)]
    print(f"\n{given.model}, medians of {given.rounds} rounds (min to max): "
          "share of the bare model's batch-32 rate")  # fmt: skip
    for key in rounds[0]:
        cells = [found[key] for found in rounds]
        shares = [cell.share for cell in cells]
        print(f"{_line(*key, _middle(cells))}  ({min(shares):.2f} to {max(shares):.2f})")


def one_request(endpoint: Endpoint) -> bytes:
    """An infer request with random inputs, as the load makes them."""
    pools, _ = prepare(endpoint, [RequestPlan("infer")], seed=1)
    return pools[0][0].data


if __name__ == "__main__":
    main()
