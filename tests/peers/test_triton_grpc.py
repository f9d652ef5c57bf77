"""`loadbench run` against a real Triton over gRPC: exact counts, and its inside view."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest
from servers import Server
from test_triton import OPEN, PARTS, closed, scenario, seen, sent_in_all
from tools import perf_analyzer, run, statistics


def test_an_open_loop_is_counted_alike_on_both_sides(real_triton: Server, tmp_path: Path) -> None:
    found = run(real_triton, tmp_path, scenario(OPEN), grpc=True)
    theirs = statistics(real_triton, "matmul")
    parts, windows = theirs["inference_stats"], seen(found)
    sent = sent_in_all(found)
    assert theirs["inference_count"] == parts["success"]["count"] == sent > 1000
    assert parts["fail"]["count"] == 0
    assert found.summary["failed"] == {}
    assert sum(server["requests"] for server in windows) == sent
    assert sum(server["queue"]["total_ns"] for server in windows) == parts["queue"]["ns"]
    assert sum(server["compute"]["total_ns"] for server in windows) == sum(
        parts[part]["ns"] for part in PARTS
    )
    assert found.summary["server"]["source"] == "kserve statistics"


def test_an_unbatched_model_of_many_datatypes(real_triton: Server, tmp_path: Path) -> None:
    request = '[[request]]\nname = "all"\nshapes = { texts = [3], flags = [5], half = [2, 4] }'
    found = run(real_triton, tmp_path, scenario(OPEN, "echo", request), grpc=True)
    assert found.summary["failed"] == {}
    assert statistics(real_triton, "echo")["inference_count"] == sent_in_all(found) > 1000


def test_what_triton_refuses_is_told(real_triton: Server, tmp_path: Path) -> None:
    """More rows than a batch may have."""
    many = '[[request]]\nname = "many"\nrows = 9'
    found: dict[str, Any] = run(
        real_triton, tmp_path, scenario(OPEN, request=many), grpc=True
    ).summary
    assert set(found["failed"]) == {"grpc_INVALID_ARGUMENT"}
    assert "batch-size must be <= 8" in found["examples"]["grpc_INVALID_ARGUMENT"]["reason"]


def test_mean_latency_is_what_perf_analyzer_measures(real_triton: Server, tmp_path: Path) -> None:
    """In turns, and pair by pair, so that a change of the machine's pace meets both."""
    pairs = []
    for _ in range(3):
        summary = run(real_triton, tmp_path, closed(1), grpc=True).summary
        ours = summary["latency_ms"]["mean"]
        theirs = perf_analyzer(real_triton, tmp_path, "matmul", requests=summary["done"], grpc=True)
        pairs.append((round(ours, 3), theirs.mean_ms))
    print(f"Triton over gRPC: (loadbench, perf_analyzer) ms: {pairs}")
    assert median(ours / theirs for ours, theirs in pairs) == pytest.approx(1, abs=0.10)
