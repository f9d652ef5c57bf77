"""The schemas hold for what the program writes, each kind from a real run of it."""

import json
from pathlib import Path

import jsonschema
import pytest

from loadbench import runlog
from loadbench.report.schema import schema
from tests.published import holds
from tests.running import loadbench, scenario

pytestmark = pytest.mark.long


def written(results: Path) -> list[str]:
    """The kinds of all run.json there, each held against the schema."""
    kinds = []
    for path in sorted(results.rglob(runlog.SNAPSHOT)):
        found = json.loads(path.read_text())
        holds("run", found)
        kinds.append(found["kind"])
    return kinds


def test_of_a_run_a_series_and_their_history(tmp_path: Path) -> None:
    own = scenario(tmp_path, s=1)
    holds("summary", json.loads(loadbench("run", own, "--json", cwd=tmp_path).stdout))
    series = loadbench("run", own, "--repeats", "2", "--json", cwd=tmp_path)
    holds("series", json.loads(series.stdout))
    holds("history", json.loads(loadbench("history", "--json", cwd=tmp_path).stdout))
    assert written(tmp_path / "results") == ["run", "run", "run", "series"]


def test_of_an_ab(tmp_path: Path) -> None:
    """With the answers of a shadow; its blocks are the shortest there are."""
    own = scenario(tmp_path, 'errors = "20 %", a = "2 ms"', rate="50")
    given = ("--set", "load.warmup=0s", "--shadow", "1s", "--budget", "34s", "--block", "2s")
    found = json.loads(loadbench("ab", own, own, *given, "--json", cwd=tmp_path).stdout)
    holds("ab", found)
    assert found["answers"]["compared"] > 0
    assert written(tmp_path / "results") == ["run", "run", "ab"]
    shown = loadbench("show", "1", "--json", cwd=tmp_path).stdout
    holds("ab", json.loads(shown))


def test_of_a_find(tmp_path: Path) -> None:
    own = scenario(tmp_path, rate="20")
    own.write_text(own.read_text().replace('"constant"', '"poisson"'))
    given = ("--slo", "p99.9 < 5 s", "--stage", "3s", "--settle", "1s", "--budget", "12s")
    over = ("--start", "20", "--max", "30", "--over", "engine.max_batch=4,8")
    found = json.loads(
        loadbench("find", own, *given, *over, "--json", cwd=tmp_path, code=None).stdout
    )
    holds("find", found)
    assert found["slo"].startswith("p99_9 < 5")
    assert all(setting["stages"] for setting in found["settings"])
    known = schema("find")["$defs"]["FindSetting"]["properties"]
    assert all(set(setting) == set(known) for setting in found["settings"])
    assert written(tmp_path / "results") == ["run", "run", "find"]


def test_a_run_file_of_another_kind_is_none() -> None:
    known = {
        "schema": 2, "kind": "ab", "loadbench": "1", "run": "1", "state": "done", "began": "",
        "scenario": "x", "target": {}, "spec": {},
    }  # fmt: skip
    validator = jsonschema.Draft202012Validator(schema("run"))
    assert not validator.is_valid(known)
    assert validator.is_valid({**known, "kind": "run"})
