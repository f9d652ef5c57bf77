"""The palette itself, opened, typed into and entered, on every screen: what was chosen happens on
the screen that one sees, and what is refused is said there."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from dashboard.app import Dashboard
from dashboard.screens.help import Help
from dashboard.screens.live import Live
from tests.stage import settle, shown, text, told
from tests.storyline import Story
from tests.test_dashboard_runs import listed, several
from tests.test_launcher import launcher

RUNNING = Story(end=None)
KEYS = {
    "live": "1", "engine": "2", "alerts": "3", "tail": "t", "difference": "d", "latency": "enter",
}  # fmt: skip
SCREENS = (*KEYS, "runs", "new run")


async def chosen(pilot: Pilot[Any], words: str) -> None:
    """The first that has these words."""
    await pilot.press("ctrl+p")
    await settle(pilot)
    assert isinstance(pilot.app.screen, CommandPalette)
    pilot.app.screen.query_one(Input).value = words  # at once: each key would search again
    found = pilot.app.screen.query_one(OptionList)
    for _ in range(200):
        if found.option_count == 1:
            break
        await pilot.pause(0.05)
    await pilot.press("enter")
    for _ in range(200):
        await settle(pilot)
        if not CommandPalette.is_open(pilot.app):
            return
    raise AssertionError("the palette stays open")


def opened(
    screen: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AbstractAsyncContextManager[Any]:
    if screen == "runs":
        several(folder)
        return listed(folder)
    if screen == "new run":
        return launcher(folder, monkeypatch)
    return shown(told(RUNNING), folder=folder)


@pytest.mark.parametrize("screen", SCREENS)
def test_what_is_chosen_happens(
    screen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with opened(screen, tmp_path, monkeypatch) as (*_, pilot):
            if screen in KEYS:
                await pilot.press(KEYS[screen])
                await settle(pilot)
            before = pilot.app.screen
            await chosen(pilot, "All keys")
            assert isinstance(pilot.app.screen, Help)
            await pilot.press("escape")
            await settle(pilot)
            assert pilot.app.screen is before
            await chosen(pilot, "Screen 1: Live")
            assert isinstance(pilot.app.screen, Live)

    asyncio.run(walk())


def test_the_next_panel_gets_the_focus_on_the_screen_below() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            await pilot.press("2")
            await settle(pilot)
            await chosen(pilot, "The next panel")
            assert app.screen is app.get_screen("engine")
            assert app.focused is app.screen.query_one("#sizes")

    asyncio.run(walk())


@pytest.mark.parametrize("screen", SCREENS)
def test_what_is_refused_is_said_where_one_looks(
    screen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with opened(screen, tmp_path, monkeypatch) as (*_, pilot):
            if screen in KEYS:
                await pilot.press(KEYS[screen])
                await settle(pilot)
            before = pilot.app.screen
            await chosen(pilot, "Keep this moment")
            said = "Nothing has been recorded" if screen == "runs" else "A is kept"
            for _ in range(100):
                if said in text(pilot.app):
                    break
                await pilot.pause(0.05)
            assert said in text(pilot.app)
            assert pilot.app.screen is before

    asyncio.run(walk())


def test_notices_of_what_was_done_are_seen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several(tmp_path)
    tested = App.run_test

    def noticing(app: App[Any], **given: Any) -> Any:
        return tested(app, **given, notifications=True)

    monkeypatch.setattr(App, "run_test", noticing)

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            await chosen(pilot, "Make it the baseline")
            assert isinstance(pilot.app, Dashboard)
            for _ in range(100):
                if "baseline of" in text(pilot.app):
                    return
                await pilot.pause(0.05)
            raise AssertionError(text(pilot.app))

    asyncio.run(walk())
