"""Exports against what they are for: a real MLflow, and the table of a real perf_analyzer."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import LOADBENCH, PEERS, ROOT, serve
from tools import perf_analyzer

RECORDED = max((ROOT / "tests" / "data" / "snapshots").glob("*/*"))
MLFLOW = PEERS / "mlflow-venv" / "bin" / "mlflow"
PORT = 18700
PATIENCE_S = 120


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    if not MLFLOW.exists():
        pytest.skip("peers/mlflow-venv is missing: make peers sets it up")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(PORT)]
    command += ["--workers", "1", "--backend-store-uri", store]
    url = f"http://127.0.0.1:{PORT}"
    with (
        open(tmp_path / "log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path) as server,
    ):
        try:
            for _ in range(PATIENCE_S):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(1)
            yield url
        finally:
            server.terminate()


def test_a_real_mlflow_has_the_run(mlflow: str) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow}
    command = [str(LOADBENCH), "export", str(RECORDED), "--as", "mlflow"]
    text = subprocess.check_output(command, text=True, env=environment)
    number = text.split()[-1]
    run = get(f"{mlflow}/api/2.0/mlflow/runs/get?run_id={number}")["run"]
    summary = json.loads((RECORDED / "run.json").read_text())["summary"]
    assert (run["info"]["status"], run["info"]["run_name"]) == ("FINISHED", summary["run"])
    metrics = {one["key"]: one["value"] for one in run["data"]["metrics"]}
    assert metrics["done"] == summary["done"]
    assert metrics["latency_p99_ms"] == pytest.approx(summary["latency_ms"]["p99"])
    history = f"{mlflow}/api/2.0/mlflow/metrics/get-history?run_id={number}&metric_key=second_done"
    seconds = get(history)["metrics"]
    assert sum(one["value"] for one in seconds) == summary["done"]
    assert [one["step"] for one in seconds] == sorted(one["step"] for one in seconds)


def test_the_table_has_the_heads_of_perf_analyzers_own(tmp_path: Path) -> None:
    with serve(tmp_path, "fake") as server:
        perf_analyzer(server, tmp_path, "fake", "--request-rate-range", "50", requests=100)
    theirs = (tmp_path / "perf_analyzer.csv").read_text().splitlines()[0]
    ours = subprocess.check_output(
        [str(LOADBENCH), "export", str(RECORDED), "--as", "perf-analyzer-csv"], text=True
    ).splitlines()[0]
    ours, bands, _ = ours.partition(",p50 low")  # behind its heads are some of our own
    assert bands
    # with --verbose-csv it has some more at the end, of its own client
    assert theirs.startswith(f"{ours},Avg latency")
