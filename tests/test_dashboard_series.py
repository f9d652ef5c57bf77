"""A series of repeats on the screen: one after the other, and what came of all of them."""

import asyncio
import os
from pathlib import Path

import pytest

from dashboard.app import Dashboard
from dashboard.follow import Follow
from loadbench import runlog
from tests.ended import finished
from tests.stage import until_told
from tests.test_dashboard_run import FAKE, only_run, terminal


def begun(results: Path, made: int, wanted: int = 3) -> Path:
    """A series that goes on: this process would be its runner."""
    parts = [finished(results / "made", f"r{n}", 10.0 * n) for n in range(1, made + 1)]
    folder = runlog.create(results, "series")
    own = {"kind": "series", "run": folder.name, "wanted": wanted, "state": "running"}
    own |= {"pid": os.getpid(), "summary": None, "overall": None, "repeats": []}
    write(folder, {"schema": 2, "began": "2026-01-05T14:02:00+00:00", **own})
    for path in parts:
        add(folder, path)
    return folder


def write(folder: Path, snapshot: dict[str, object]) -> None:
    runlog.write_snapshot(folder, snapshot)


def add(folder: Path, made: Path) -> None:
    """One more repeat."""
    series = runlog.read_snapshot(folder)
    number = str(len(series["repeats"]) + 1)
    made.rename(folder / number)
    write(folder, {**series, "repeats": [*series["repeats"], number]})


def test_the_screen_goes_on_to_the_next_repeat(tmp_path: Path) -> None:
    folder = begun(tmp_path, 1)

    async def walk() -> None:
        app = Dashboard(folder / "1", Follow(folder / "1"), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            found = await until_told(pilot, "the next one follows")
            assert "repeat 1 of 3" in found
            found = await until_told(pilot, "s = stop")
            assert "R = run again" not in found
            await pilot.press("2")
            add(folder, finished(tmp_path / "made", "later", 30.0))
            await until_told(pilot, "repeat 2 of 3")
            assert app.folder == folder / "2"
            assert app.screen is app.get_screen("engine")
            write(folder, {**runlog.read_snapshot(folder), "state": "done"})
            assert "R = run again" in await until_told(pilot, "R = run again")
            await pilot.press("4")
            assert folder.name in await until_told(pilot, "1 run")  # the results', not the series'

    asyncio.run(walk())


def test_who_looks_at_the_past_stays_there(tmp_path: Path) -> None:
    folder = begun(tmp_path, 1)

    async def walk() -> None:
        app = Dashboard(folder / "1", Follow(folder / "1"), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "the next one follows")
            await pilot.press("space")
            add(folder, finished(tmp_path / "made", "later", 30.0))
            await pilot.pause(2.5)
            assert app.folder == folder / "1"
            await pilot.press("space")
            await until_told(pilot, "repeat 2 of 3")

    asyncio.run(walk())


def test_an_earlier_repeat_is_looked_at_for_itself(tmp_path: Path) -> None:
    folder = begun(tmp_path, 2)

    async def walk() -> None:
        app = Dashboard(folder / "1", Follow(folder / "1"), theme="loadbench")
        async with app.run_test(size=(80, 24)) as pilot:
            assert "repeat 1 of 3" in await until_told(pilot, "DONE")
            await pilot.pause(2.5)
            assert app.folder == folder / "1"

    asyncio.run(walk())


@pytest.mark.alone
def test_a_series_that_is_started_here(tmp_path: Path) -> None:
    arguments = [*FAKE, "--duration", "3s", "--repeats", "2", "--out", str(tmp_path)]
    with terminal(*arguments) as screen:
        screen.until("repeat 1 of 2")
        screen.until("repeat 2 of 2")
        screen.until("run again")
        screen.press("q")
        assert screen.end() == 0
    assert [path.name for path in runlog.repeats(only_run(tmp_path))] == ["1", "2"]
