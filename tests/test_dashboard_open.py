"""Turning from one run to another: what belonged to the first is forgotten, nothing leaks."""

import asyncio
import gc
import time
import weakref
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.worker import Worker, WorkerState

from dashboard.app import Dashboard
from dashboard.follow import Follow, Unreadable, ViewChanged
from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import encode
from tests.stage import settle, text
from tests.storyline import Story, records

QUIET = Story(seconds=20, spike=(-1, -1), end=None)
DONE = Story(seconds=60)
OTHER = Story(seconds=60, rate=400.0, spike=(20, 40), seed=8, end=None)  # as long, but another


def recorded(folder: Path, story: Story) -> Path:
    """A run folder whose log tells the story."""
    folder.mkdir()
    with open(folder / runlog.LOG, "wb") as file:
        file.writelines(encode(record) + b"\n" for record in records(story))
    return folder


def test_another_run_takes_the_place_of_the_first_on_every_screen(tmp_path: Path) -> None:
    first, second = recorded(tmp_path / "0001-a", OTHER), recorded(tmp_path / "0002-b", DONE)

    async def look(app: Dashboard, pilot: Pilot[None]) -> str:
        found = ""
        for name in ("engine", "alerts", "live"):
            app.action_go(name)
            await settle(pilot)
            found += text(app)
        return found

    async def opened(app: Dashboard, pilot: Pilot[None], folder: Path, newest: int) -> None:
        app.open_run(folder)
        while app.folder != folder or app.run_view.newest != newest:
            await pilot.pause(0.05)
        app.redraw()
        await settle(pilot)

    async def walk() -> None:
        fresh = Dashboard(second, Follow(second), theme="loadbench")
        async with fresh.run_test(size=(120, 40)) as pilot:
            while fresh.run_view.end is None:
                await pilot.pause(0.05)
            as_first = await look(fresh, pilot)
        app = Dashboard(first, Follow(first), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            while app.run_view.newest != 60:
                await pilot.pause(0.05)
            assert await look(app, pilot) != as_first
            await pilot.press("3", "question_mark")
            await opened(app, pilot, second, 60)
            assert app.screen is app.get_screen("live")  # the help is gone with the first run
            assert await look(app, pilot) == as_first
            await opened(app, pilot, first, 60)
            assert "■ DONE" not in text(app)
            assert app.run_view.end is None

    asyncio.run(walk())


def test_what_the_old_reader_had_posted_is_not_taken_for_the_new_run(tmp_path: Path) -> None:
    first, second = recorded(tmp_path / "0001-a", DONE), recorded(tmp_path / "0002-b", QUIET)

    async def walk() -> None:
        app = Dashboard(first, Follow(first), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            while app.run_view.end is None:
                await pilot.pause(0.05)
            app.post_message(ViewChanged(app.run_view, time.monotonic()))
            app.post_message(Unreadable("the log is damaged"))
            app.open_run(second)
            while app.run_view.newest != 20:
                await pilot.pause(0.05)
            assert app.problem == ""
            assert app.run_view.end is None
            assert isinstance(app.reader, Follow)

    asyncio.run(walk())


def test_a_finished_run_is_opened_as_a_replay_and_one_without_a_log_is_not(tmp_path: Path) -> None:
    first, second = recorded(tmp_path / "0001-a", QUIET), recorded(tmp_path / "0002-b", DONE)
    (tmp_path / "0003-c").mkdir()

    async def walk() -> None:
        app = Dashboard(first, Follow(first), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            with pytest.raises(SpecError, match="0003-c"):
                app.open_run(tmp_path / "0003-c", "replay")
            app.open_run(second, "replay")
            while app.folder != second or app.run_view.newest is None:
                await pilot.pause(0.05)
            await settle(pilot)
            assert app.sight.speed == 1
            assert "↺ REPLAY" in text(app).split("\n")[0]

    asyncio.run(walk())


def test_a_reader_that_ends_is_drawn_but_for_one_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recorded(tmp_path / "0001-a", QUIET)

    async def walk() -> None:
        app = Dashboard(first, Follow(first), theme="loadbench")
        async with app.run_test(size=(120, 40)):
            reader = next(worker for worker in app.workers if worker.name == "reader")
            ended = Worker.StateChanged(reader, WorkerState.SUCCESS)
            drawn = list[None]()
            with monkeypatch.context() as patched:
                patched.setattr(app, "redraw", lambda: drawn.append(None))
                app.on_worker_state_changed(ended)
                assert len(drawn) == 1
                reader.cancel()
                app.on_worker_state_changed(ended)
                assert len(drawn) == 1

    asyncio.run(walk())


def test_a_run_that_was_left_is_forgotten(tmp_path: Path) -> None:
    """Hours of one would stay as long as the dashboard does: what was there is frozen."""
    first, second = recorded(tmp_path / "0001-a", QUIET), recorded(tmp_path / "0002-b", DONE)

    async def walk() -> None:
        app = Dashboard(first, Follow(first), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            while app.run_view.newest != 20:
                await pilot.pause(0.05)
            left = (weakref.ref(app.reader), weakref.ref(app.reader.past))
            app.open_run(second)
            while app.run_view.newest != 60:
                await pilot.pause(0.05)
            await settle(pilot)
            gc.collect()
            assert (left[0](), left[1]()) == (None, None)

    asyncio.run(walk())
