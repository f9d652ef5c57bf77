"""Baselines: named, kept in a file that lives in git, and refused where they make no sense."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadbench import baseline, runlog
from loadbench.errors import SpecError
from tests.ended import finished, killed
from tests.running import loadbench


def test_set_list_show_and_forget(tmp_path: Path) -> None:
    results = tmp_path / "results"
    finished(results, "one", 10.0)
    finished(results, "two", 20.0, scenario="spike")
    finished(results, "three", 30.0)
    assert "baseline steady is 0001-one" in loadbench("baseline", "set", "1", cwd=tmp_path).stdout
    assert "p99 10.0" in loadbench("baseline", "show", cwd=tmp_path).stdout  # the only one
    loadbench("baseline", "set", "2", "--name", "before the fix", cwd=tmp_path)
    said = loadbench("baseline", "set", cwd=tmp_path).stdout
    assert said == "baseline steady is 0003-three (before: 0001-one)\n"
    assert json.loads((results / baseline.FILE).read_text()) == {
        "before the fix": "0002-two", "steady": "0003-three",
    }  # fmt: skip
    listed = loadbench("baseline", "list", cwd=tmp_path).stdout
    assert "before the fix: 0002-two" in listed
    assert "30.0" in listed
    assert "p99 20.0" in loadbench("baseline", "show", "before the fix", cwd=tmp_path).stdout
    assert "before the fix, steady" in loadbench("baseline", "show", cwd=tmp_path, code=2).stderr
    loadbench("baseline", "forget", "steady", cwd=tmp_path)
    assert set(baseline.read(results)) == {"before the fix"}
    assert "no baseline 'steady'" in loadbench("baseline", "forget", "steady", cwd=tmp_path,
                                               code=2).stderr  # fmt: skip


def test_compare_with_a_baseline(tmp_path: Path) -> None:
    results = tmp_path / "results"
    one = finished(results, "one", 20.0)
    finished(results, "two", 10.0)
    said = loadbench("compare", "baseline", cwd=tmp_path, code=2).stderr
    assert "there is no baseline 'steady'" in said
    baseline.put(results, "steady", one)
    for name in ("baseline", "steady"):
        text = loadbench("compare", name, cwd=tmp_path).stdout
        assert text.startswith("A 0001-one   vs   B 0002-two")
    shutil.rmtree(one)
    said = loadbench("compare", "baseline", cwd=tmp_path, code=2).stderr
    assert "baseline 'steady' is 0001-one, which is not in results" in said
    assert "✗ this run is gone" in loadbench("baseline", "list", cwd=tmp_path).stdout


def test_many_set_at_once_are_all_kept(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 10.0)
    names = [f"name {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as hands:
        list(hands.map(lambda name: baseline.put(tmp_path, name, folder), names))
    assert set(baseline.read(tmp_path)) == set(names)


@pytest.mark.parametrize("name", ["12", "last", "baseline", "", "a/b", "x\n", "-a", "é" * 3])
def test_names_that_could_mean_something_else(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path, "one", 10.0)
    with pytest.raises(SpecError, match="cannot name a baseline"):
        baseline.put(tmp_path, name, folder)
    assert baseline.read(tmp_path) == {}


def test_a_baseline_lies_beside_its_runs(tmp_path: Path) -> None:
    outside = finished(tmp_path / "other", "one", 10.0)
    with pytest.raises(SpecError, match="is not in"):
        baseline.put(tmp_path / "results", "steady", outside)
    kept = finished(tmp_path / "results" / "reference", "kept", 10.0)  # as in a repository
    baseline.put(tmp_path / "results", "steady", kept)
    assert baseline.read(tmp_path / "results") == {"steady": "reference/0001-kept"}
    assert baseline.find("steady", tmp_path / "results") == kept


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": "' + "x" * 1_000_001 + '"}'])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / baseline.FILE).write_text(text)
    with pytest.raises(SpecError, match=r"baselines\.json: cannot be read"):
        baseline.read(tmp_path)
    with pytest.raises(SpecError, match="cannot be read"):
        baseline.put(tmp_path, "steady", killed(tmp_path, "one"))
    assert (tmp_path / baseline.FILE).read_text() == text  # nothing was overwritten


def test_a_name_that_no_folder_can_have_is_one_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / baseline.FILE).write_text(json.dumps({"steady": "x" * 400}))
    with pytest.raises(SpecError, match="which is not in"):
        baseline.find("steady", tmp_path)
    said = loadbench("baseline", "list", "--out", tmp_path, cwd=tmp_path).stdout
    assert "cannot be read" in said


def test_what_has_no_figures_of_one_side_is_no_baseline(tmp_path: Path) -> None:
    results = tmp_path / "results"
    one, search, both = (finished(results, name, 10.0) for name in ("one", "search", "both"))
    for folder, kind in ((search, runlog.FIND), (both, runlog.AB)):
        runlog.write_snapshot(folder, {**runlog.read_snapshot(folder), "kind": kind})
    said = loadbench("baseline", "set", "2", cwd=tmp_path, code=2).stderr
    assert "is a search for a rate" in said
    assert "two sides" in loadbench("baseline", "set", "3", cwd=tmp_path, code=2).stderr
    assert "no repeats" in loadbench("compare", "1", "2", cwd=tmp_path, code=2).stderr
    assert baseline.read(results) == {}
    one.rename(both / "a")
    for _ in range(2):
        said = loadbench("baseline", "set", "3/a", "--name", "side", cwd=tmp_path).stdout
        assert said == "baseline side is 0003-both/a\n"
