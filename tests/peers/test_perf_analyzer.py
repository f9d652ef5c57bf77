"""NVIDIA's perf_analyzer against `loadbench serve`: no error, the same counts, the same latency."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from servers import Server, serve
from tools import perf_analyzer, run

SETTINGS = {"fake": ("--set", 'engine.fake.a="5 ms"'), "mlp": ("--set", "engine.threads=1")}
CONCURRENCY = (1, 8)


@pytest.fixture(scope="module", params=SETTINGS)
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def served(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp(model), model, *SETTINGS[model]) as server:
        yield server


@pytest.mark.parametrize("mode", [[], ["-a"]], ids=["sync", "async"])
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_runs_without_an_error_and_agrees_on_every_count(
    served: Server, model: str, concurrency: int, mode: list[str], tmp_path: Path
) -> None:
    found = perf_analyzer(
        served, tmp_path, model, "--concurrency-range", str(concurrency), *mode, requests=400
    )
    assert found.requests == found.succeeded == found.inferences == 400
    assert 300 < found.seen <= 400
    assert (found.batches < 400) == (concurrency > 1), found.text


def test_an_open_loop_and_json_tensors_and_whole_batches(
    served: Server, model: str, tmp_path: Path
) -> None:
    variants = [
        ["--request-rate-range", "100", "--request-distribution", "poisson", "-a"],
        ["--input-tensor-format", "json", "--output-tensor-format", "json"],
        ["-b", "4"],
    ]
    found = [perf_analyzer(served, tmp_path, model, *each, requests=200) for each in variants]
    assert [each.succeeded for each in found] == [200] * 3
    assert [each.inferences for each in found] == [200, 200, 800]


# perf_analyzer's keys begin with the names of the tensors, whichever those are
SHARED = ("--shared-memory", "--shared-memory-prefix", "/")
WAYS: dict[str, list[str]] = {
    "sync": ["--concurrency-range", "8"],
    "async": ["--concurrency-range", "8", "-a"],
    "stream": ["--concurrency-range", "8", "-a", "--streaming"],
    "batches": ["-b", "4"],
    "open loop": ["--request-rate-range", "100", "--request-distribution", "poisson", "-a"],
    "system": ["--concurrency-range", "4", "--shared-memory=system"],
    "system, batches": ["-b", "4", "-a", "--shared-memory=system"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_grpc_and_shared_memory_agree_on_every_count(
    both: tuple[str, Server], grpc: bool, way: str, tmp_path: Path
) -> None:
    model, server = both
    if way == "stream" and not grpc:
        pytest.skip("streams are gRPC's")
    found = perf_analyzer(server, tmp_path, model, *WAYS[way], requests=200, grpc=grpc)
    rows = 4 if "batches" in way else 1
    assert found.requests == found.succeeded == 200
    assert found.inferences == 200 * rows
    assert "Server:" in found.text, "it did not take the server's statistics"
    assert "compute infer" in found.text


@pytest.fixture(scope="module", params=SETTINGS)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Server]]:
    """A model over both fronts, with shared memory."""
    model: str = request.param
    fronts = ("--grpc-port", "0", *SHARED)
    with serve(tmp_path_factory.mktemp(model), model, *fronts, *SETTINGS[model]) as server:
        yield model, server


def test_metrics_are_collected(both: tuple[str, Server], tmp_path: Path) -> None:
    model, server = both
    asked = ["--collect-metrics", "--metrics-url", f"{server.url.removeprefix('http://')}/metrics"]
    found = perf_analyzer(server, tmp_path, model, *asked, requests=200)
    assert found.succeeded == 200


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet-tiny", ["--shape", "image:3,32,32"]),
        ("encoder", ["--shape", "input_ids:16", "--shape", "attention_mask:16"]),
    ],
)
def test_models_with_open_dimensions(name: str, shapes: list[str], tmp_path: Path) -> None:
    # Of integers perf_analyzer draws any; zeros are a valid token and a valid mask.
    with serve(tmp_path, name) as server:
        found = perf_analyzer(server, tmp_path, name, *shapes, "--input-data", "zero", requests=50)
        assert found.requests == found.succeeded == 50


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_mean_latency_is_what_loadbench_measures(
    served: Server, model: str, concurrency: int, tmp_path: Path
) -> None:
    """In turns, and pair by pair, so that a change of the machine's pace meets both.

    perf_analyzer's latencies leave out what it does between an answer and the next request: 0.8 ms
    of the 8.06 of a loop of eight on `fake`, which is what loadbench's are, at the same rate. And
    what its threads take of two cores the `mlp` lacks: each tool is right about its own run. So
    loadbench's may be as long as the other's loop, no longer, and are not far below its latencies.
    """
    rows = 32 if (model, concurrency) == ("mlp", 8) else 1
    scenario = f"""
        [target]
        model = "{model}"
        [load]
        arrivals = "closed"
        concurrency = {concurrency}
        warmup = "1s"
        phases = [{{ for = "3s" }}]
        [[request]]
        name = "same"
        rows = {rows}
    """
    arguments = ("--concurrency-range", str(concurrency), "-b", str(rows))
    pairs = []
    for _ in range(5):
        summary = run(served, tmp_path, scenario).summary
        ours = summary["latency_ms"]["mean"]
        # Little's law: no time of the loop is left out of the latencies.
        busy = summary["rate"]["done"] * ours / 1000
        assert busy == pytest.approx(concurrency, rel=0.05)
        theirs = perf_analyzer(served, tmp_path, model, *arguments, requests=summary["done"])
        loop = 1000 * concurrency * rows / theirs.rate
        pairs.append((round(ours, 3), theirs.mean_ms, round(loop, 3)))
    print(f"{model} × {concurrency}: (loadbench, perf_analyzer, its loop) ms: {pairs}")
    assert median(ours / loop for ours, _, loop in pairs) < 1.05
    assert median(ours / theirs for ours, theirs, _ in pairs) > 0.75
