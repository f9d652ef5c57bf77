"""A snapshot whose figures cannot be is damaged for whoever reads it, in the same words."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadbench import runlog
from tests.ended import finished
from tests.foreign import said


@pytest.mark.parametrize(
    "broken",
    [
        {"latency_ms": "x"},
        {"latency_ms": {"p99": "x"}},
        {"latency_ms": {"p50": 1.0, "p99": -5.0}},
        {"rate": {"done": -1}},
        {"rate": None},
        {"asked": -3},
        {"server": "x"},
        {"machine": [1]},
        {"tokens": "x"},
        {"lateness_ms": "x"},
        {"latency_ms": {"p99": 1e308}},
        {"rate": {"done": 1e308}},
    ],
)
def test_a_comparison_refuses_what_a_list_calls_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: dict[str, Any]
) -> None:
    out = ["--out", str(tmp_path)]
    for _ in range(2):
        finished(tmp_path, "steady", 50.0)
    snapshot = runlog.read_snapshot(tmp_path / "0002-steady")
    snapshot["summary"] |= broken
    runlog.write_snapshot(tmp_path / "0002-steady", {**snapshot, "summary": snapshot["summary"]})
    listed = json.loads(said(["list", "--json", *out], capsys)[1].splitlines()[0])
    assert "run.json is damaged: Expected" in listed["state"]
    for sides in (["1", "2"], ["2", "1"]):
        code, text, err = said(["compare", *sides, *out], capsys)
        assert (code, text) == (2, "")
        what, _, where = listed["state"].partition(" - at ")
        assert f"0002-steady: {what} - at " in err
        assert where.partition("[")[0].strip("`") in err
