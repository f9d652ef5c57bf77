"""`loadbench run` against a real Triton: exact counts, and its inside view from its statistics."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from servers import Server
from tools import Run, perf_analyzer, run, statistics

PARTS = ("compute_input", "compute_infer", "compute_output")


def scenario(load: str, model: str = "matmul", request: str = "") -> str:
    return f"""
        [target]
        model = "{model}"
        [load]
        warmup = "1s"
        {load}
        {request}
    """


OPEN = 'arrivals = "poisson"\nphases = [{ rate = 300, for = "4s" }]'


def sent_in_all(found: Run) -> int:
    """In all windows, warm-up and its tail included."""
    return sum(window.get("sent", 0) + window.get("tail_sent", 0) for window in found.windows)


def seen(found: Run) -> list[dict[str, Any]]:
    """What the windows say of the inside of the server."""
    return [window["server"] for window in found.windows if "server" in window]


def test_an_open_loop_is_counted_alike_on_both_sides(real_triton: Server, tmp_path: Path) -> None:
    found = run(real_triton, tmp_path, scenario(OPEN))
    theirs = statistics(real_triton, "matmul")
    sent = sent_in_all(found)
    assert theirs["inference_count"] == theirs["inference_stats"]["success"]["count"] == sent
    assert theirs["inference_stats"]["fail"]["count"] == 0

    summary = found.summary
    assert summary["asked"] == summary["sent"] == summary["done"] > 1000
    assert sent > summary["sent"], "the warm-up is in the log, and outside the summary"
    assert summary["failed"] == {}


def test_the_inside_view_is_tritons_own(real_triton: Server, tmp_path: Path) -> None:
    found = run(real_triton, tmp_path, scenario(OPEN))
    theirs = statistics(real_triton, "matmul")
    parts, windows = theirs["inference_stats"], seen(found)

    assert sum(server["requests"] for server in windows) == parts["success"]["count"]
    assert sum(server["batches"] for server in windows) == theirs["execution_count"]
    assert sum(server["queue"]["total_ns"] for server in windows) == parts["queue"]["ns"]
    assert sum(server["compute"]["total_ns"] for server in windows) == sum(
        parts[part]["ns"] for part in PARTS
    )
    sizes: dict[int, int] = {}
    for server in windows:
        for size, batch in server.get("sizes", {}).items():
            sizes[int(size)] = sizes.get(int(size), 0) + batch["batches"]
    assert sizes == {
        batch["batch_size"]: batch["compute_infer"]["count"] for batch in theirs["batch_stats"]
    }
    assert max(sizes) > 1

    inside = found.summary["server"]
    assert inside["source"] == "kserve statistics"
    assert inside["batch_wait_ms"] is None, "Triton does not tell it"
    assert inside["queue_ms"]["mean"] > 0
    assert inside["compute_ms"]["mean"] >= 2
    assert 1 < inside["batch"]["mean"] <= 8
    outside = found.summary["latency_ms"]["mean"]
    assert outside > 0.95 * (inside["queue_ms"]["mean"] + inside["compute_ms"]["mean"])


def test_rows_are_not_requests(real_triton: Server, tmp_path: Path) -> None:
    four = '[[request]]\nname = "four"\nrows = 4'
    found = run(real_triton, tmp_path, scenario(OPEN, request=four))
    theirs = statistics(real_triton, "matmul")
    assert theirs["inference_count"] == 4 * sent_in_all(found)
    assert theirs["inference_stats"]["success"]["count"] == sent_in_all(found)
    assert found.summary["server"]["rows"] == 4 * found.summary["server"]["requests"]
    assert set(found.summary["server"]["batch"]["sizes"]) == {"4", "8"}


def test_an_unbatched_model_of_many_datatypes(real_triton: Server, tmp_path: Path) -> None:
    request = '[[request]]\nname = "all"\nshapes = { texts = [3], flags = [5], half = [2, 4] }'
    found = run(real_triton, tmp_path, scenario(OPEN, "echo", request))
    theirs = statistics(real_triton, "echo")
    assert found.summary["failed"] == {}
    assert theirs["inference_count"] == sent_in_all(found) > 1000


def closed(concurrency: int) -> str:
    load = f'arrivals = "closed"\nconcurrency = {concurrency}\nphases = [{{ for = "3s" }}]'
    return scenario(load)


def test_mean_latency_is_what_perf_analyzer_measures(real_triton: Server, tmp_path: Path) -> None:
    """In turns, and pair by pair, so that a change of the machine's pace meets both."""
    pairs = []
    for _ in range(3):
        summary = run(real_triton, tmp_path, closed(1)).summary
        ours = summary["latency_ms"]["mean"]
        theirs = perf_analyzer(real_triton, tmp_path, "matmul", requests=summary["done"])
        pairs.append((round(ours, 3), theirs.mean_ms))
    print(f"Triton: (loadbench, perf_analyzer) ms: {pairs}")
    assert median(ours / theirs for ours, theirs in pairs) == pytest.approx(1, abs=0.10)


def test_a_closed_loop_keeps_as_many_requests_open_as_it_says(
    real_triton: Server, tmp_path: Path
) -> None:
    """Little's law, and Triton's own word: eight at once fill its batches of eight."""
    found = run(real_triton, tmp_path, closed(8))
    summary = found.summary
    open_requests = summary["rate"]["done"] * summary["latency_ms"]["mean"] / 1000
    assert open_requests == pytest.approx(8, rel=0.05)
    assert summary["server"]["batch"]["mean"] > 7
    assert statistics(real_triton, "matmul")["inference_count"] == sent_in_all(found)
