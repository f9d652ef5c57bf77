"""The list of runs: what stands in it, what it says of runs that cannot be read, and its cost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from loadbench import catalogue, runlog
from loadbench.catalogue import Entry, entries
from loadbench.errors import LoadbenchError
from loadbench.snapshots import files
from loadbench.summary import CheckResult
from tests.ended import GONE, finished, killed


def listed(results: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries(results)}


def test_newest_first_with_its_figures(tmp_path: Path) -> None:
    finished(tmp_path, "one", 10.0)
    finished(tmp_path, "two", 10.0, failed={"http 503": 400})
    new, old = entries(tmp_path)
    assert (new.name, old.name) == ("0002-two", "0001-one")
    assert (old.number, old.state, old.scenario, old.trust) == ("0001", "done", "steady", "trusted")
    assert old.done_per_s == pytest.approx(500)
    assert old.p99_ms == pytest.approx(10.0, rel=1e-3)
    assert (old.failed, old.passed, len(old.checks)) == (0.0, 1, 1)
    assert new.p99_ms is None  # among the failed: over the limit
    assert new.limit_ms == 100.0
    assert new.passed == 0


def test_checks_without_data_are_undecided_and_not_failed() -> None:
    def checked(*states: Literal["passed", "failed", "no data"]) -> str:
        checks = tuple(CheckResult("p99", state, None, None, 100.0, "ms", "") for state in states)
        return Entry("0001-steady", "0001-steady", "done", checks=checks).checked

    assert checked() == ""
    assert checked("passed", "passed") == "✓ 2/2"
    assert checked("no data", "no data") == "○ 0/2"
    assert checked("passed", "no data") == "○ 1/2"
    assert checked("failed", "no data") == "✗ 0/2"


def test_a_run_that_cannot_be_read_is_a_line_that_says_why(tmp_path: Path) -> None:
    folders = [finished(tmp_path, f"r{n}", 10.0) for n in range(7)]
    cut, odd, other, big, pipe, none, foreign = (folder / runlog.SNAPSHOT for folder in folders)
    cut.write_bytes(cut.read_bytes()[:500])
    odd.write_text('{"schema": 1, "summary": {"checks": 7}}')
    snapshot = runlog.read_snapshot(other.parent)
    runlog.write_snapshot(other.parent, {**snapshot, "schema": 99, "loadbench": "9.1", "target": 3})
    with open(big, "wb") as file:
        file.truncate(files.LARGEST + 1)
    pipe.unlink()
    os.mkfifo(pipe)  # reading it would never end
    none.unlink()
    foreign.write_text('{"name": "of another tool", "summary": {}}')
    found = listed(tmp_path)
    states = [entry.state for entry in reversed(found.values())]
    assert states == [
        "unreadable", "unreadable", "other version", "unreadable", "unreadable", "not begun",
        "unreadable",
    ]  # fmt: skip
    said = [entry.problem for entry in reversed(found.values())]
    assert "damaged" in said[0]
    assert "damaged" in said[1]
    assert "$.summary.checks" in said[1]
    assert "written by loadbench 9.1" in said[2]
    assert said[3] == said[4] == said[6] == "run.json is no snapshot of a run"
    assert "starting" in said[5]


def test_what_a_snapshot_holds_cannot_steer_the_terminal(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 10.0)
    hostile = "\x1b]0;owned\x07\u202e\n"
    snapshot = {**runlog.read_snapshot(folder), "scenario": hostile, "title": hostile * 1000}
    (folder / runlog.SNAPSHOT).write_text(json.dumps({**snapshot, "target": {"name": hostile}}))
    (entry,) = entries(tmp_path)
    for text in (entry.scenario, entry.title, entry.target):
        assert text.isprintable()
        assert 0 < len(text) <= 300


def test_a_killed_run_and_one_of_another_machine(tmp_path: Path) -> None:
    folder = killed(tmp_path, "here")
    assert listed(tmp_path)["0001-here"].state == "killed"
    snapshot: dict[str, Any] = {**runlog.read_snapshot(folder), "host": "elsewhere.example"}
    runlog.write_snapshot(folder, snapshot)
    assert listed(tmp_path)["0001-here"].state == "running"  # its log was just written
    long_ago = time.time() - 3600
    os.utime(folder / runlog.LOG, (long_ago, long_ago))
    assert listed(tmp_path)["0001-here"].state == "killed"
    # a running one is looked at again even if its snapshot has not changed
    os.utime(folder / runlog.LOG)
    before = listed(tmp_path)
    assert before["0001-here"].state == "running"
    os.utime(folder / runlog.LOG, (long_ago, long_ago))
    assert next(entries(tmp_path, before)).state == "killed"


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    finished(tmp_path, "one", 10.0)
    second = finished(tmp_path, "two", 10.0)
    before = listed(tmp_path)
    runlog.write_snapshot(second, {**runlog.read_snapshot(second), "title": "another"})
    after = {entry.name: entry for entry in entries(tmp_path, before)}
    assert after["0001-one"] is before["0001-one"]
    assert after["0002-two"].title == "another"


def test_a_thousand_runs_take_less_than_a_second_of_cpu(tmp_path: Path) -> None:
    data = (finished(tmp_path, "one", 10.0) / runlog.SNAPSHOT).read_bytes()
    data += b" " * (8000 - len(data))  # as large as those of real runs
    for at in range(2, 1001):
        folder = tmp_path / f"{at:04d}-more"
        folder.mkdir()
        (folder / runlog.SNAPSHOT).write_bytes(data)
    code = (
        "import sys, time; from pathlib import Path; from loadbench.catalogue import entries\n"
        "begun = time.process_time(); found = list(entries(Path(sys.argv[1])))\n"
        "print(len(found), time.process_time() - begun)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    number, cpu = done.stdout.split()
    assert int(number) == 1000
    assert float(cpu) < 1.0


def test_removing_takes_the_run_and_only_a_run(tmp_path: Path) -> None:
    results = tmp_path / "results"
    keep, folder = finished(results, "keep", 10.0), finished(results, "gone", 10.0)
    catalogue.remove(folder, results)
    assert runlog.runs(results) == [keep]
    outside = finished(tmp_path / "elsewhere", "other", 10.0)
    link = results / "0009-link"
    link.symlink_to(outside)
    for wrong in (outside, link, results):
        with pytest.raises(LoadbenchError, match="is no run folder"):
            catalogue.remove(wrong, results)
    assert (outside / runlog.LOG).exists()


def test_a_run_that_goes_on_is_not_removed(tmp_path: Path) -> None:
    going = killed(tmp_path, "going", pid=os.getpid())
    with pytest.raises(LoadbenchError, match="goes on"):
        catalogue.remove(going, tmp_path)
    starting = runlog.create(tmp_path, "starting")
    with pytest.raises(LoadbenchError, match="may be starting"):
        catalogue.remove(starting, tmp_path)
    assert len(runlog.runs(tmp_path)) == 2
    over = killed(tmp_path, "over", pid=GONE)
    catalogue.remove(over, tmp_path)
    assert not over.exists()
