"""Keys that come faster than they are dealt with: each has its effect, in their order."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key, Paste
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Input

from dashboard.app import Dashboard
from dashboard.keyboard import Keyboard
from dashboard.screens.alerts import Alerts
from dashboard.screens.runs import Runs
from dashboard.screens.steer import Steer
from dashboard.widgets.alerting import Rules
from tests.stage import settle, shown, told, until
from tests.storyline import Story
from tests.test_dashboard_runs import listed, several
from tests.test_launcher import launcher

RUNNING = Story(end=None)


def burst(pilot: Pilot[Any], *typed: str | Paste) -> None:
    """Keys and pastes all at once, as a terminal hands over what was typed while the machine was
    busy."""
    for one in typed:
        key = one if isinstance(one, Paste) else Key(one, one if len(one) == 1 else None)
        pilot.app.post_message(key)


def rate_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str], **values: str
) -> None:
    """Types all at once into the rate of a new run, until these are the settings of the draft."""

    async def walk() -> None:
        async with launcher(folder, monkeypatch) as (_, screen, pilot):
            screen.query_one("#rate", Input).focus()
            await settle(pilot)
            burst(pilot, *keys)
            await until(pilot, lambda: screen.draft.values == values)
            await until(pilot, lambda: screen._reported == screen.draft)

    asyncio.run(walk())


def test_letters_and_editing_keys_stay_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [*"129", "backspace", *"35", "left", "backspace", *"4", "end", *"0"]
    rate_typed(tmp_path, monkeypatch, keys, rate="12450")


def test_what_is_typed_behind_tab_and_enter_is_the_next_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [*"500", "tab", *"30s", "enter", *"16"]
    rate_typed(tmp_path, monkeypatch, keys, rate="500", duration="30s", max_batch="16")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([Paste("spi"), "k"], "spik"),
        ([*"rbnq"], "rbnq"),  # which are no keys of the list: report, baseline, new run, quit
    ],
)
def test_what_is_typed_behind_the_key_of_a_filter_is_in_it(
    tmp_path: Path, typed: list[str | Paste], words: str
) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            burst(pilot, "slash", *typed)
            await until(pilot, lambda: screen.query_one("#filter", Input).value == words)
            assert isinstance(pilot.app.screen, Runs)
            assert not pilot.app._notifications

    asyncio.run(walk())


def test_a_question_gets_what_is_typed_behind_its_key(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            burst(pilot, "3", "slash", *"queue", "enter", "slash", *"gpu", "enter", "a", *"scal")
            await until(pilot, lambda: isinstance(app.screen, Steer))
            await until(pilot, lambda: app.screen.query_one(Input).value == "scal")
            assert app.get_screen("alerts", Alerts).query_one(Rules).words == "gpu"

    asyncio.run(walk())


def test_a_key_that_is_held_down_does_not_wait_for_pictures(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            drawn: list[object] = []
            whole = app.screen._compositor_refresh
            app.screen._compositor_refresh = lambda: drawn.append(whole())  # type: ignore[method-assign]
            burst(pilot, *["minus", "plus"], *["left"] * 40, "i")
            await until(pilot, lambda: app.sight.cursor is not None)
            assert len(drawn) < 20

    asyncio.run(walk())


def test_a_key_that_is_lost_does_not_stop_those_behind_it(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            lose_next(app)
            burst(pilot, "2", "3")
            await until(pilot, lambda: isinstance(app.screen, Alerts))

    def lose_next(app: Dashboard) -> None:
        screen, whole = app.screen, app.screen.post_message

        def losing(message: Message) -> bool:
            if not isinstance(message, Keyboard.Followed):
                return whole(message)
            screen.post_message = whole  # type: ignore[method-assign]
            return True

        screen.post_message = losing  # type: ignore[method-assign]

    asyncio.run(walk())
