"""Engine throughput against the bare model's best batch, in one run and on the same core.

    python tests/benchmarks/engine.py [--model mlp] [--rounds 5] [--seconds 4]

The server has core 0 and one thread, wrk (Debian package `wrk`) has core 1 and posts binary KServe
requests over 1, 32, 64 and 128 connections. Before each round the bare model runs alone on core
0: its batch 1 is the bound of a lone request, its batch 32 that of throughput. What counts is
the ratio in the same round; machines are noisy.
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
from pathlib import Path

from loadbench.plan import Endpoint, RequestPlan
from loadbench.spec import TargetSpec
from loadbench.targets.ask import Asker
from loadbench.targets.inputs import prepare

CONNECTIONS = (1, 32, 64, 128)
BARE = """
import json, sys, time
import numpy as np
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
model = open_model(sys.argv[1], EngineSpec(threads=1, precision="fp32"))
shape = [d if d > 0 else 64 for d in model.inputs[0].shape]
found = {}
for size in (1, 32):
    rows = {model.inputs[0].name: np.random.rand(size, *shape).astype(np.float32)}
    for _ in range(5): model.run(rows)
    times = []
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        begin = time.perf_counter(); model.run(rows); times.append(time.perf_counter() - begin)
    found[size] = sorted(times)[len(times) // 2]
print(json.dumps(found))
"""


def bare(model: str) -> dict[int, float]:
    """Seconds of a batch of 1 and of 32, on core 0."""
    command = ["taskset", "-c", "0", sys.executable, "-c", BARE, model]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {int(size): seconds for size, seconds in found.items()}


def wrk(url: str, script: Path, connections: int, seconds: int) -> tuple[float, float, int]:
    """(requests/s, P50 in ms, answers that were no 2xx) from core 1."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    text = subprocess.run(
        [*command, "--latency", "-s", str(script), url], capture_output=True, text=True, check=True
    ).stdout
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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="mlp")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    given = arguments.parse_args()
    if not shutil.which("wrk") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("needs wrk (Debian: apt-get install wrk) and two cores")
    settings = ["engine.threads=1", "engine.precision=fp32", "engine.max_batch=32"]
    command = ["taskset", "-c", "0", sys.executable, "-m", "loadbench", "serve", given.model]
    command += ["--port", "0", "--follow-stdin", *(w for s in settings for w in ("--set", s))]
    rows: dict[int, list[tuple[float, float, float]]] = {n: [] for n in CONNECTIONS}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        url = server.stdout.readline().decode().split()[1]
        with Asker(url, "kserve") as asker, tempfile.TemporaryDirectory() as folder:
            endpoint = asker.describe(TargetSpec(url=url))
            script = Path(folder) / "post.lua"
            script.write_text(lua(one_request(endpoint)))
            for _ in range(given.rounds):
                times = bare(given.model)
                for connections in CONNECTIONS:
                    rate, p50, wrong = wrk(url, script, connections, given.seconds)
                    if wrong:
                        sys.exit(f"{wrong} answers were errors: nothing to compare")
                    rows[connections].append((rate, p50, rate * times[32] / 32))
                    alone = p50 / (times[1] * 1e3)
                    print(f"{connections:4} connections  {rate:7.0f}/s  P50 {p50:6.2f} ms", end="")
                    print(f"  {rate * times[32] / 32:.2f} of bare batch 32", end="")
                    print(f"  {alone:.2f} x bare lone request" if connections == 1 else "")
        server.stdin.close()
    print(
        f"\nmedian of {given.rounds} rounds (min to max): share of the bare model's batch-32 rate"
    )
    for connections, found in rows.items():
        shares = [share for _, _, share in found]
        middle = statistics.median(shares)
        print(f"{connections:4}  {middle:.2f} ({min(shares):.2f} to {max(shares):.2f})", end="")
        print(f"  {statistics.median(rate for rate, _, _ in found):.0f}/s", end="")
        print(f"  P50 {statistics.median(p50 for _, p50, _ in found):.2f} ms")


def one_request(endpoint: Endpoint) -> bytes:
    """An infer request with random inputs, as the load makes them."""
    pools, _ = prepare(endpoint, [RequestPlan("infer")], seed=1)
    return pools[0][0].data


if __name__ == "__main__":
    main()
