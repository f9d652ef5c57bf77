"""Engine throughput against the bare model's best batch, in one run and on the same core.

    python tests/benchmarks/engine.py [--model mlp|plain|short|NAME] [--rounds 5] [--seconds 4]

The server has core 0 and one thread, wrk (Debian package `wrk`) has core 1 and posts binary KServe
requests over 1, 32, 64 and 128 connections. Before and after each round the bare model runs alone
on core 0, its inputs in memory: its batch 1 is the bound of a lone request, its batch 32 that of
throughput; the mean of the two is what the round is held against, since machines are noisy.

`mlp` is the zoo's as it is served, its weights packed (`engine.packed`) on both sides; `plain` the
same with the layers as torch runs them, on both sides, too. `short` is made here: about 0.4 ms at
batch 1 and 2 ms at batch 32, so that a request may cost less. All burn the processor in C, without
the interpreter's lock, as models do: a fake that sleeps would leave the core to the front end.

What a request adds is the CPU time of the server's process less that of the bare model for as many
rows in batches of 32 (at one connection: of 1).
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.ask import Asker
from loadbench.targets.inputs import prepare
from loadbench.targetspec import TargetSpec

CONNECTIONS = (1, 32, 64, 128)
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
found = {}
for size in (1, 32):
    rows = {model.inputs[0].name: np.random.rand(size, *shape).astype(np.float32)}
    for _ in range(5): model.run(rows)
    times, cpu = [], []
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        begin, spent = time.perf_counter(), time.process_time()
        model.run(rows)
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - spent)
    found[size] = sorted(times)[len(times) // 2], sorted(cpu)[len(cpu) // 2]
print(json.dumps(found))
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


class Cell(NamedTuple):
    """What one round found at so many connections."""

    rate: float  # requests/s
    p50_ms: float
    share: float  # of the bare model's rate in batches of 32
    cpu_us: float  # of the server for a request
    added_us: float  # of these, beside the bare model's


def bare(arguments: list[Any]) -> dict[int, tuple[float, float]]:
    """Seconds of a batch of 1 and of 32, on core 0, and how many of these of CPU time."""
    command = ["taskset", "-c", "0", sys.executable, "-c", BARE, json.dumps(arguments)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {int(size): (seconds, cpu) for size, (seconds, cpu) in found.items()}


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
    command = ["taskset", "-c", "0", sys.executable, "-m", "loadbench", "serve", *arguments]
    command += ["--port", "0", "--follow-stdin", *(w for s in settings for w in ("--set", s))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            yield server, server.stdout.readline().decode().split()[1]
        finally:
            server.stdin.close()


def one_round(given: argparse.Namespace, folder: Path) -> dict[int, Cell]:
    """The bare model, the server at each number of connections, the bare model again."""
    name, signature, packed = given.model, ((), ()), given.model == "mlp" or "auto"
    if name == "short":
        name, signature = str(folder / "short.pt"), SIGNATURE
    elif name == "plain":
        name, packed = "mlp", False
    options = [w for kind, texts in zip(("--input", "--output"), signature, strict=True)
               for text in texts for w in (kind, text)]  # fmt: skip
    if signature[0]:
        options.append("--trust")
    before = bare([name, *signature, packed])
    found: dict[int, tuple[float, float, float]] = {}
    settings = [*SETTINGS, f"engine.packed={json.dumps(packed)}"]
    with serving([name, *options], settings) as (process, url), Asker(url, "kserve") as asker:
        script = folder / "post.lua"
        script.write_text(lua(one_request(asker.describe(TargetSpec(url=url)))))
        watched = psutil.Process(process.pid)
        for connections in CONNECTIONS:
            begun = watched.cpu_times()
            rate, p50, wrong = wrk(url, script, connections, given.seconds)
            ended = watched.cpu_times()
            if wrong:
                sys.exit(f"{wrong} answers were errors: nothing to compare")
            cpu = ended.user + ended.system - begun.user - begun.system
            found[connections] = rate, p50, cpu / (rate * given.seconds)
    after = bare([name, *signature, packed])
    times = {size: (before[size][0] + after[size][0]) / 2 for size in before}
    spent = {size: (before[size][1] + after[size][1]) / 2 for size in before}
    print(f"bare: batch 1 {times[1] * 1e3:.2f} ms, batch 32 {times[32] * 1e3:.2f} ms "
          f"({32 / before[32][0]:,.0f}/s before, {32 / after[32][0]:,.0f}/s after)")  # fmt: skip
    cells: dict[int, Cell] = {}
    for connections, (rate, p50, cpu) in found.items():
        own = spent[1] if connections == 1 else spent[32] / 32
        share = rate * times[32] / 32
        cells[connections] = Cell(rate, p50, share, cpu * 1e6, (cpu - own) * 1e6)
        lone = f"  {p50 - times[1] * 1e3:+.2f} ms to the bare model" if connections == 1 else ""
        print(f"{connections:4} connections  {rate:7.0f}/s  P50 {p50:6.2f} ms  {share:.2f} of bare "
              f"batch 32  {(cpu - own) * 1e6:5.1f} µs added{lone}")  # fmt: skip
    return cells


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
    for connections in CONNECTIONS:
        cells = [found[connections] for found in rounds]
        shares = [cell.share for cell in cells]
        middle = Cell(*(statistics.median(values) for values in zip(*cells, strict=True)))
        print(f"{connections:4}  {middle.share:.2f} ({min(shares):.2f} to {max(shares):.2f})"
              f"  {middle.rate:.0f}/s  P50 {middle.p50_ms:.2f} ms"
              f"  {middle.added_us:.1f} µs of CPU added to each")  # fmt: skip


def one_request(endpoint: Endpoint) -> bytes:
    """An infer request with random inputs, as the load makes them."""
    pools, _ = prepare(endpoint, [RequestPlan("infer")], seed=1)
    return pools[0][0].data


if __name__ == "__main__":
    main()
