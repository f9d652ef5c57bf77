"""A run that is over: once more, or beside the one before it."""

import asyncio
import os
from pathlib import Path

import pytest

from dashboard.app import Dashboard
from dashboard.driver import RUN
from dashboard.follow import Follow
from dashboard.screens.ask import Choice
from dashboard.screens.runs import Runs
from dashboard.starting import once_more
from loadbench import baseline, runlog
from tests.ended import finished, killed
from tests.stage import settle, text, until_told

COMMAND = ["loadbench", "run", "steady", "--rate", "50", "--trust", "--print-folder"]


@pytest.mark.parametrize("based", [False, True], ids=["former", "baseline"])
def test_c_compares_with_the_baseline_or_the_run_before(tmp_path: Path, based: bool) -> None:
    first = finished(tmp_path, "first", 20.0)
    finished(tmp_path, "other", 20.0, scenario="spike")
    finished(tmp_path, "former", 15.0)
    last = finished(tmp_path, "last", 10.0)
    if based:
        baseline.put(tmp_path, "steady", first)

    async def walk() -> None:
        app = Dashboard(last, Follow(last), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "c = compare")
            await pilot.press("c")
            found = await until_told(pilot, "vs   B 0004")
            assert isinstance(app.screen, Runs)
            assert f"Compare   A {'0001 (baseline)' if based else '0003'}   vs   B 0004" in found

    asyncio.run(walk())


def test_a_run_that_goes_on_is_neither_compared_nor_run_again(tmp_path: Path) -> None:
    going = killed(tmp_path, "going", pid=os.getpid())

    async def walk() -> None:
        app = Dashboard(going, Follow(going), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "RUNNING")
            for key, what in (("c", "compare"), ("R", "run again"), ("r", "report")):
                await pilot.press(key)
                await until_told(pilot, f"Nothing to {what} yet")
            assert "run again" not in text(app).split("\n")[1]

    asyncio.run(walk())


def test_shift_r_shows_what_it_would_start_where_somebody_else_did(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 20.0)
    snapshot = runlog.read_snapshot(folder)
    command = ["loadbench", "run", "no-such-scenario", "--trust", "--print-folder"]
    runlog.write_snapshot(folder, {**snapshot, "command": command})

    async def walk() -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "R = run again")
            await pilot.press("R")
            found = await until_told(pilot, "$ loadbench run no-such-scenario")
            assert "--trust" not in found  # a file cannot allow that
            assert isinstance(app.screen, Choice)
            app.screen.dismiss(RUN)
            await until_told(pilot, "there is no scenario 'no-such-scenario'")
            await settle(pilot)

    asyncio.run(walk())


@pytest.mark.parametrize("found", [None, "loadbench run x", ["rm", "-r", "x"], ["loadbench", 1]])
def test_a_damaged_command_is_none(found: object) -> None:
    assert once_more({"command": found}, ours=True) is None
    assert once_more(None, ours=True) is None


def test_what_was_started_here_is_trusted_as_it_was() -> None:
    assert once_more({"command": COMMAND}, ours=True) == ["steady", "--rate", "50", "--trust"]
    assert once_more({"command": COMMAND}, ours=False) == ["steady", "--rate", "50"]
