"""Two snapshots side by side."""

import copy
from typing import Any

import pytest

from loadbench.compare import VERDICT, compare
from loadbench.errors import SpecError
from loadbench.model import End, Record, plain
from loadbench.summary import summarise
from tests.records import start, window


def snapshot(run: str, latency_ms: float) -> dict[str, Any]:
    records: list[Record] = [
        start(run=run),
        *(window(s, [latency_ms] * 500) for s in range(3)),
        End(2, "done"),
    ]
    return {
        "run": run,
        "spec": {"load": {"seed": 7, "phases": []}, "engine": {"max_batch": 32}, "request": []},
        "phases": [],
        "target": {"model": "mlp", "device": "cpu"},
        "machine": {"cores": 2, "packages": {"torch": "2.13.0"}},
        "summary": plain(summarise(records)),
    }


def test_figures_and_no_verdict_from_single_runs() -> None:
    found = compare(snapshot("0001-a", 50.0), snapshot("0002-b", 40.0))
    assert found.comparable
    assert found.differences == ()
    rows = {row.metric: row for row in found.rows}
    assert rows["p99"].delta == pytest.approx(-0.2, abs=2e-3)
    assert {row.verdict for row in found.rows} == {VERDICT}
    assert rows["p99"].n == (1, 1)
    assert "batch wait" not in rows  # neither side has it
    assert [note.code for note in found.notes] == ["single-runs"]


def test_what_differs_comes_first_by_its_deepest_key() -> None:
    a, b = snapshot("0001-a", 50.0), snapshot("0002-b", 40.0)
    b["spec"]["engine"]["max_batch"] = 8
    b["machine"]["packages"]["torch"] = "2.12.0"
    b["target"]["device"] = "cuda:0"
    found = compare(a, b)
    assert {(d.key, d.a, d.b) for d in found.differences} == {
        ("engine.max_batch", 32, 8),
        ("machine.packages.torch", "2.13.0", "2.12.0"),
        ("target.device", "cpu", "cuda:0"),
    }
    assert found.comparable


def test_different_work_is_said() -> None:
    a, b = snapshot("0001-a", 50.0), snapshot("0002-b", 40.0)
    b["spec"]["load"]["seed"] = 8
    b["target"]["model"] = "encoder"
    found = compare(a, b)
    assert not found.comparable
    assert found.notes[0].code == "different-work"
    assert "load, target" in found.notes[0].text


def test_a_side_that_is_weak_or_unfinished() -> None:
    a = snapshot("0001-a", 50.0)
    b = copy.deepcopy(a)
    b["summary"]["trust"], b["summary"]["reason"] = "doubtful", "stopped"
    codes = [note.code for note in compare(a, b).notes]
    assert codes == ["single-runs", "trust", "incomplete"]
    del b["summary"]
    with pytest.raises(SpecError, match="has no summary"):
        compare(a, b)
