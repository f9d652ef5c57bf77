"""Each key by each of its names, pressed on its screen, reaches its action; what that does is
tested where the action is. The keys of alerts are in palette and help, as those of the others are.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from dashboard.app import Dashboard
from dashboard.keys import ACTIONS, ALERTS, NEW_RUN, RUNS, Action
from dashboard.screens.help import Help
from tests.stage import settle, shown, text, told
from tests.storyline import Story
from tests.test_dashboard_runs import listed, several
from tests.test_launcher import launcher

RUNNING = Story(end=None)
SCREENS = ("live", "engine", "alerts", "runs", "new run")
# a list or a chart in focus has it first, and then tells its screen
_FOCUSED = ("run-open", "episode")


def of(screen: str) -> Sequence[Action]:
    """The screen's own, and those of all screens that it does not have keys of its own for."""
    own = {"alerts": ALERTS, "runs": RUNS, "new run": NEW_RUN}.get(screen, ())
    shared = ACTIONS if screen in ("live", "engine", "alerts") else ()
    taken = {key for action in own for key in action.key.split(",")}
    free = [action for action in shared if not taken & set(action.key.split(","))]
    return [action for action in (*own, *free) if action.id not in _FOCUSED]


@pytest.mark.parametrize("screen", SCREENS)
def test_each_name_of_each_key_reaches_its_action(
    screen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []

    async def note(app: App[Any], action: object, *_: object) -> bool:
        ran.append(action)
        return True

    def opened() -> AbstractAsyncContextManager[Any]:
        if screen == "runs":
            several(tmp_path)
            return listed(tmp_path)
        if screen == "new run":
            return launcher(tmp_path, monkeypatch)
        return shown(told(RUNNING), folder=tmp_path)

    async def walk() -> None:
        async with opened() as (*_, pilot):
            if screen in ("engine", "alerts"):
                await pilot.press({"engine": "2", "alerts": "3"}[screen])
                await settle(pilot)
            with monkeypatch.context() as noting:
                noting.setattr(App, "run_action", note)
                for action in of(screen):
                    for key in action.key.split(","):
                        await check(pilot, key, action)

    async def check(pilot: Pilot[Any], key: str, action: Action) -> None:
        ran.clear()
        await pilot.press(key)
        assert ran == [action.call], f"{key} of {action.id}"

    asyncio.run(walk())


def test_the_keys_of_alerts_are_in_palette_and_help() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (120, 60)) as (app, pilot):
            await pilot.press("3")
            await settle(pilot)
            commands = {command.title for command in app.get_system_commands(app.screen)}
            assert {f"{action.group}: {action.title}" for action in (*ALERTS, *ACTIONS)} <= commands
            await pilot.press("question_mark")
            await settle(pilot)
            assert isinstance(app.screen, Help)
            assert isinstance(app, Dashboard)
            for action in ALERTS:
                assert action.title in text(app)

    asyncio.run(walk())
