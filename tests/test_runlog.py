"""Run folders and logs: numbered once, readable at any moment, whole after a kill."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadbench import logindex, runlog
from loadbench.errors import RunError, SpecError
from loadbench.merge import merge
from loadbench.model import End, Mark, Minute, Record, Window
from tests.records import start, window


def test_folders_are_numbered_and_named(tmp_path: Path) -> None:
    first = runlog.create(tmp_path / "new", "steady mlp/..;x")
    second = runlog.create(tmp_path / "new", "spike")
    assert [first.name, second.name] == ["0001-steady-mlp-..-x", "0002-spike"]
    assert runlog.runs(tmp_path / "new") == [first, second]


def _create(results: Path) -> str:
    return runlog.create(results, f"run-{os.getpid()}").name


def test_two_at_once_get_two_numbers(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.map(_create, [tmp_path] * 24)
    assert len(set(names)) == 24


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        runlog.create(tmp_path / "file", "x")


def test_runs_are_found_by_number_name_and_last(tmp_path: Path) -> None:
    made = [runlog.create(tmp_path, name) for name in ("a", "b")]
    runlog.write_snapshot(made[0], {})
    assert runlog.find("1", tmp_path) == made[0]
    assert runlog.find("0002", tmp_path) == made[1]
    assert runlog.find("0001-a", tmp_path) == made[0]
    assert runlog.find("last", tmp_path) == made[1]
    assert runlog.find(str(made[0]), Path("elsewhere")) == made[0]
    with pytest.raises(SpecError, match="there is no run 'c'"):
        runlog.find("c", tmp_path)


def test_a_log_is_read_back_as_written(tmp_path: Path) -> None:
    records: list[Record] = [
        start(),
        window(0, [5.0, 7.0]),
        Mark(0, "hand"),
        window(1, [], {"timeout": 2}),
    ]
    writer = runlog.Writer(tmp_path)
    for record in records:
        writer.write(record)
    assert list(runlog.read(tmp_path)) == records  # before it is closed
    writer.close(End(1, "done"))
    *_, minute, end = runlog.read(tmp_path)
    assert end == End(1, "done")
    assert isinstance(minute, Minute)
    assert minute.seconds == 2
    assert minute.window == merge([records[1], records[3]])  # type: ignore[list-item]


def test_minutes_and_their_index(tmp_path: Path) -> None:
    writer = runlog.Writer(tmp_path)
    writer.write(start())
    for second in range(150):
        writer.write(window(second, [5.0]))
    writer.close(End(149, "done"))
    index = json.loads((tmp_path / logindex.INDEX).read_text())["minutes"]
    with open(tmp_path / runlog.LOG, "rb") as file:
        for second, offset in index:
            file.seek(offset)
            assert json.loads(file.readline())["window"]["second"] == second
    minutes = [record for record in runlog.read(tmp_path) if isinstance(record, Minute)]
    assert [minute.seconds for minute in minutes] == [60, 60, 30]
    assert sum(minute.window.done for minute in minutes) == 150


def test_warm_up_has_minutes_of_its_own(tmp_path: Path) -> None:
    writer = runlog.Writer(tmp_path)
    writer.write(start())
    for second in range(-3, 60):
        writer.write(window(second, [5.0], stage="warmup" if second < 0 else "load"))
    writer.close(End(59, "done"))
    minutes = [record for record in runlog.read(tmp_path) if isinstance(record, Minute)]
    found = [(m.window.second, m.window.stage, m.seconds) for m in minutes]
    assert found == [(-3, "warmup", 3), (0, "load", 60)]


def test_a_killed_writer_leaves_every_whole_second(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from loadbench import logindex, runlog
from tests.records import start, window
writer = runlog.Writer(Path({str(tmp_path)!r}))
writer.write(start())
for second in range(7):
    writer.write(window(second, [5.0]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    with open(tmp_path / runlog.LOG, "ab") as file:
        file.write(b'{"kind":"window","seco')  # as a kill in the middle of a write leaves it
    seconds = [r.second for r in runlog.read(tmp_path) if isinstance(r, Window)]
    assert seconds == list(range(7))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / runlog.LOG).write_bytes(b'{"kind":"mark","second":1,"text":"x"}\nrubbish\n')
    with pytest.raises(SpecError, match="line 2"):
        list(runlog.read(tmp_path))
    with pytest.raises(SpecError, match="cannot be read"):
        list(runlog.read(tmp_path / "none"))


def test_snapshots_are_replaced_whole(tmp_path: Path) -> None:
    runlog.write_snapshot(tmp_path, {"run": "é"})
    assert runlog.read_snapshot(tmp_path) == {"run": "é"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(SpecError, match="no run snapshot"):
        runlog.read_snapshot(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SpecError, match="cannot be read"):
        runlog.read_snapshot(tmp_path)


def test_a_run_is_found_by_what_names_it(tmp_path: Path) -> None:
    for name in ("0007-a", "0007-b", "0012-a", "10000-a", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "0013-file").write_text("")
    numbered = {"12": "0012-a", "0012": "0012-a", "012": "0012-a", "7": "0007-b"}
    named = {"10000": "10000-a", "0007-a": "0007-a", "last": "10000-a"}
    for asked, found in {**numbered, **named}.items():
        assert runlog.find(asked, tmp_path) == tmp_path / found
    for asked in (
        "1",
        "0",
        "13",
        "0013-file",
        "notes",
        "²",
        "-7",
        "9" * 5000,
        "",
        "0012-a/",
        "a/b",
    ):
        with pytest.raises(SpecError):
            runlog.find(asked, tmp_path)


def test_a_folder_that_was_left_behind_empty_is_taken_and_one_that_cannot_be_made_is_said(
    tmp_path: Path,
) -> None:
    assert runlog.inner(tmp_path, "1") == runlog.inner(tmp_path, "1") == tmp_path / "1"
    (tmp_path / "2").write_text("")
    with pytest.raises(RunError, match="2: cannot be made: File exists"):
        runlog.inner(tmp_path, "2")
    with pytest.raises(RunError, match="cannot be made"):
        runlog.inner(tmp_path / "gone", "1")
