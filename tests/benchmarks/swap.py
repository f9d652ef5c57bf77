"""P99 while new versions are loaded, warmed up and swapped in, against before and after.

    python -m tests.benchmarks.swap [--rounds 5] [--seconds 8] [--model mlp|onnx|NAME]
                                    [--only one|spare]

The load has core 1 and sends Poisson arrivals at 30 % of what the model alone can do one by one.
The engine has core 0 (`one core`) or both (`a spare core`: the load takes little of its own).
Meanwhile one version after the other is loaded without a pause, so that every request of that time
meets a load, a warm-up or a swap. No request may fail.

Two cores share caches and the way to memory. So beside `a spare core` stands what the machine
itself makes of two models that run side by side: one in a bare loop on core 0, of single rows,
while another process runs the same model on core 1, in the sizes of a warm-up.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from loadbench.histogram import Histogram
from loadbench.plan import Endpoint, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec
from loadbench.units import MS, SECOND
from tests.benchmarks.rig import CLIENT_CORE, SERVER_CORE, run_lane

SHARE = 0.3
BARE = """
import json, sys, time
import numpy as np
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
name, sizes, seconds = json.loads(sys.argv[1])
model = open_model(name, EngineSpec(threads=1), trust=False)
shape = [d if d > 0 else 64 for d in model.inputs[0].shape]
rows = [{model.inputs[0].name: np.ones((n, *shape), np.float32)} for n in sizes]
for given in rows: model.run(given)
print("ready", flush=True)
times, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    for given in rows:
        begun = time.perf_counter()
        model.run(given)
        times.append(time.perf_counter() - begun)
times.sort()
print(json.dumps([times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3]))
"""
WIDTHS = (256, 2048, 2048, 2048, 10)


class Part(NamedTuple):
    """One stretch of load."""

    p50_ms: float
    p99_ms: float
    done: int
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--only", choices=("one", "spare"), default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        onnx = asked.model == "onnx"
        what = str(onnx_models(Path(folder) / "models")) if onnx else asked.model
        for title, cores in (
            ("one core", SERVER_CORE),
            ("a spare core", f"{SERVER_CORE},{CLIENT_CORE}"),
        ):
            if asked.only and asked.only not in title:
                continue
            factors = []
            for number in range(asked.rounds):
                with engine(what, cores) as url:
                    factors.append(measure(title, url, asked.seconds, number))
            print(f"{title}: P99 × {statistics.median(factors):.2f} "
                  f"({min(factors):.2f}–{max(factors):.2f})")  # fmt: skip
            if cores != SERVER_CORE and not onnx:
                print(machine(asked.model, asked.seconds), flush=True)


def machine(model: str, seconds: int) -> str:
    """How much longer a bare single row takes while the other core warms up the same model."""
    alone = json.loads(finished(bare(model, (1,), seconds, SERVER_CORE)))
    other = bare(model, (1, 2, 4, 8, 16, 32), 600, CLIENT_CORE)
    try:
        beside = json.loads(finished(bare(model, (1,), seconds, SERVER_CORE)))
    finally:
        other.kill()
        other.wait()
    p50, p99 = (b / a for a, b in zip(alone, beside, strict=True))
    return (
        f"the machine itself, a bare loop beside another: P50 {alone[0]:.2f} → {beside[0]:.2f} ms "
        f"(× {p50:.2f}), P99 {alone[1]:.2f} → {beside[1]:.2f} ms (× {p99:.2f})"
    )


def bare(model: str, sizes: tuple[int, ...], seconds: int, core: str) -> "subprocess.Popen[str]":
    """A loop over the bare model on a core of its own, which has begun."""
    asked = json.dumps([model, sizes, seconds])
    command = ["taskset", "-c", core, sys.executable, "-c", BARE, asked]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finished(process: "subprocess.Popen[str]") -> str:
    """What it came to."""
    return process.communicate()[0]


def measure(title: str, url: str, seconds: int, seed: int) -> float:
    """The factor of one round."""
    with Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url))
        reading = asker.statistics(found)
    assert reading is not None
    assert reading.engine is not None
    rate = SHARE * SECOND / reading.engine.warm_ns[1]
    before = stretch(found, rate, seconds, seed)
    with loading(url, found.model) as loads:
        during = stretch(found, rate, seconds, seed + 100)
    after = stretch(found, rate, seconds, seed + 200)
    failed = before.failed + during.failed + after.failed
    factor = during.p99_ms / statistics.mean((before.p99_ms, after.p99_ms))
    print(
        f"{title}, {rate:.0f}/s: P99 {before.p99_ms:.2f} · {during.p99_ms:.2f} · "
        f"{after.p99_ms:.2f} ms (× {factor:.2f}), P50 {before.p50_ms:.2f} · {during.p50_ms:.2f} · "
        f"{after.p50_ms:.2f} ms, {during.done} answers, {len(loads)} versions, "
        f"{statistics.median(loads):.2f} s each, {failed} failed",
        flush=True,
    )
    assert not failed, "requests failed"
    assert loads, "nothing was loaded"
    return factor


def stretch(endpoint: Endpoint, rate: float, seconds: int, seed: int) -> Part:
    """Some seconds of load; each in a run of its own."""
    phases = (Phase(rate, rate, seconds * SECOND),)
    requests = (RequestPlan("infer"),)
    windows, _ = run_lane(Plan(endpoint, requests, "poisson", phases, seed, warmup_ns=SECOND))
    latency = Histogram.merged(window.latency for window in windows if window.stage != "warmup")
    told = [(latency.quantile(share) or 0) / MS for share in (0.5, 0.99)]
    done, failed = (sum(found) for found in zip(*counts(windows), strict=True))
    return Part(told[0], told[1], done, failed)


def counts(windows: list[Any]) -> Iterator[tuple[int, int]]:
    for window in windows:
        for request in window.requests.values():
            yield request.done, sum(request.failed.values())


@contextmanager
def loading(url: str, model: str) -> Iterator[list[float]]:
    """Loads one version after the other; how long (s) each took."""
    took: list[float] = []
    stop = threading.Event()

    def work() -> None:
        number = 2
        while not stop.is_set():
            began = time.monotonic()
            config = json.dumps({"parameters": {"seed": {"string_value": str(number)}}})
            parameters: dict[str, Any] = {"version": str(number), "config": config}
            call(url, f"/v2/repository/models/{model}/load", {"parameters": parameters})
            took.append(time.monotonic() - began)
            number = number + 1 if model == "mlp" else 5 - number

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def call(url: str, path: str, body: dict[str, Any]) -> None:
    request = Request(url + path, json.dumps(body).encode(), method="POST")
    with urlopen(request, timeout=60) as answer:
        assert answer.status == 200


@contextmanager
def engine(what: str, cores: str) -> Iterator[str]:
    """An engine on these cores with one thread for the model."""
    command = ["taskset", "-c", cores, sys.executable, "-m", "loadbench", "serve", what]
    command += ["--port", "0", "--set", "engine.threads=1", "--set", "engine.max_batch=32"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def onnx_models(folder: Path) -> Path:
    """A model repository with three versions of a perceptron."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    for version in ("1", "2", "3"):
        random = np.random.default_rng(int(version))
        nodes, weights, last = [], [], "input"
        for index, (rows, columns) in enumerate(pairwise(WIDTHS)):
            matrix = random.standard_normal((rows, columns)).astype(np.float32) / rows**0.5
            weights.append(numpy_helper.from_array(matrix, f"w{index}"))
            nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"y{index}"]))
            last = f"y{index}"
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", WIDTHS[0]])]
        outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", WIDTHS[-1]])]
        graph = helper.make_graph(nodes, "perceptron", inputs, outputs, weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 9
        (folder / "perceptron" / version).mkdir(parents=True)
        onnx.save(made, folder / "perceptron" / version / "model.onnx")
    return folder


if __name__ == "__main__":
    main()
