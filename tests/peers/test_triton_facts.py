"""What loadbench takes for granted of a real Triton, checked against one.

`matmul` takes 2 ms a batch, holds requests up to 5 ms for company, and takes 8 rows at most.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from servers import Server
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

MS = 1_000_000


def statistics(server: Server) -> dict[str, Any]:
    answer = server.ask("/v2/models/matmul/stats")
    found: dict[str, Any] = json.loads(answer.body)["model_stats"][0]
    return found


def infer(server: Server, rows: int) -> None:
    """One request of so many rows, on a connection of its own."""
    x = np.arange(rows * 64, dtype=np.float32).reshape(rows, 64)
    tensor = InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    client = InferenceServerClient(f"127.0.0.1:{server.port}")
    try:
        result = client.infer("matmul", [tensor])
    finally:
        client.close()
    i, j = np.indices((64, 64))
    np.testing.assert_allclose(result.as_numpy("y"), x @ ((i + 2 * j) % 7 - 3), rtol=1e-4)


def test_idle_statistics_are_zero_and_list_no_batches(real_triton: Server) -> None:
    found = statistics(real_triton)
    assert found["version"] == "1"
    assert found["inference_count"] == found["execution_count"] == 0
    assert found["inference_stats"]["queue"] == {"count": 0, "ns": 0}
    assert found["batch_stats"] == []


def test_requests_rows_and_batches_are_counted_apart(real_triton: Server) -> None:
    rows = [1, 2] * 30
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda count: infer(real_triton, count), rows))
    found = statistics(real_triton)
    parts, batches = found["inference_stats"], found["batch_stats"]

    assert found["inference_count"] == sum(rows)
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert parts[part]["count"] == len(rows), part
    sizes = {batch["batch_size"]: batch["compute_infer"] for batch in batches}
    assert sum(size * part["count"] for size, part in sizes.items()) == sum(rows)
    assert sum(part["count"] for part in sizes.values()) == found["execution_count"]
    assert max(sizes) > 2, "no request was ever batched with another"
    # Per batch in batch_stats, per request in inference_stats: there each has its batch's time.
    assert all(part["ns"] >= 2 * MS * part["count"] for part in sizes.values())
    assert parts["compute_infer"]["ns"] >= 2 * MS * len(rows)
    assert parts["compute_infer"]["ns"] > sum(part["ns"] for part in sizes.values())


def test_a_lone_requests_wait_for_company_is_queue_time(real_triton: Server) -> None:
    for _ in range(5):
        infer(real_triton, 1)
    parts = statistics(real_triton)["inference_stats"]
    whole = sum(
        parts[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output")
    )
    assert parts["queue"]["ns"] >= 5 * 5 * MS
    assert whole <= parts["success"]["ns"]


def test_a_refused_request_is_in_no_count(real_triton: Server) -> None:
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        infer(real_triton, 9)
    found = statistics(real_triton)
    assert found["inference_stats"]["success"]["count"] == 0
    assert found["inference_stats"]["fail"]["count"] == 0


def test_only_the_config_tells_a_batch_axis_from_an_open_dimension(real_triton: Server) -> None:
    def get(path: str) -> Any:
        return json.loads(real_triton.ask(path).body)

    assert get("/v2/models/matmul")["inputs"][0]["shape"] == [-1, 64]
    assert get("/v2/models/matmul/config")["max_batch_size"] == 8
    assert get("/v2/models/echo")["inputs"][0]["shape"] == [-1]
    assert get("/v2/models/echo/config")["max_batch_size"] == 0
