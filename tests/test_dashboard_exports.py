"""What is made of a run for others, by keys of Live and of the list of runs."""

import asyncio
import os
from pathlib import Path

import pytest

from dashboard.app import Dashboard
from dashboard.exporting import opened
from dashboard.follow import Follow
from loadbench import runlog
from tests.ended import finished, killed
from tests.stage import until_told


@pytest.fixture(autouse=True)
def no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("first", ["live", "runs"])
def test_r_writes_the_report_and_a_key_the_table(tmp_path: Path, first: str) -> None:
    folder = finished(tmp_path, "one", 20.0)

    async def walk() -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench", first=first)
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "v = summary" if first == "runs" else "c = compare")
            await pilot.press("r")
            await until_told(pilot, f"loadbench report {folder}")
            await until_told(pilot, f"written: {folder / 'report.html'}")
            await pilot.press("w" if first == "runs" else "x")
            await until_told(pilot, f"written: {folder / 'seconds.csv'}")

    asyncio.run(walk())
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert len((folder / "seconds.csv").read_text().splitlines()) == 4  # its head, three seconds


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)
    (folder / "report.html").mkdir()

    async def walk() -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "c = compare")
            await pilot.press("r")
            await until_told(pilot, "report.html: cannot be written")

    asyncio.run(walk())


def test_there_is_no_report_of_a_run_that_goes_on(tmp_path: Path) -> None:
    going = killed(tmp_path, "going", pid=os.getpid())

    async def walk() -> None:
        app = Dashboard(going, Follow(going), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "RUNNING")
            await pilot.press("r")
            await until_told(pilot, "Nothing to report yet")

    asyncio.run(walk())


def test_its_command_line_is_copied_and_one_that_is_none_is_not(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)
    snapshot = runlog.read_snapshot(folder)
    words = ["loadbench", "run", "my file.toml", "--print-folder"]

    async def walk() -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "c = compare")
            await pilot.press("y")
            await until_told(pilot, "does not say how it was started")
            runlog.write_snapshot(folder, {**snapshot, "command": ["rm", "-r", "x"]})
            await pilot.press("y")
            assert app.clipboard == ""
            runlog.write_snapshot(folder, {**snapshot, "command": words})
            await pilot.press("y")
            await until_told(pilot, "copied: loadbench run 'my file.toml'")
            assert app.clipboard == "loadbench run 'my file.toml'"

    asyncio.run(walk())


def test_f_says_where_the_runs_lie(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)

    async def walk() -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "c = compare")
            await pilot.press("f")
            await until_told(pilot, f"runs lie in: {tmp_path}")

    asyncio.run(walk())


def test_a_desktop_is_handed_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {told}.new && mv {told}.new {told}\n')
    program.chmod(0o755)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert not opened(tmp_path)  # no windows
    monkeypatch.setenv("DISPLAY", ":0")
    assert opened(tmp_path / "report.html")
    while not told.exists():
        pass
    assert told.read_text() == str(tmp_path / "report.html")
