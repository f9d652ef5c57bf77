"""A dashboard on a stage: given records instead of a file, its screen read back as text."""

import functools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from dashboard.app import Dashboard
from dashboard.follow import Follow, Post, ViewChanged
from loadbench.model import Record
from loadbench.view import View, fold
from tests.storyline import Story, records

PATIENCE = 1200  # looks of 25 ms


class Script(Follow):
    """A reader that knows all it will ever know: the records, posted at once."""

    def __init__(self, view: View, folder: Path) -> None:
        super().__init__(folder)
        self.view = view

    async def run(self, post: Post) -> None:
        """As of an hour from now: however busy this machine is, they do not get old."""
        post(ViewChanged(self.view, time.monotonic() + 3600))


def folded(records: Iterable[Record]) -> View:
    """All that the records tell."""
    return functools.reduce(fold, records, View())


@functools.cache
def told(story: Story) -> View:
    """All that a story tells; many tests look at the same one."""
    return folded(records(story))


def text(app: Dashboard) -> str:
    """What the terminal would show, without trailing blanks."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


@asynccontextmanager
async def shown(
    view: View,
    size: tuple[int, int] = (120, 40),
    folder: Path = Path("nowhere"),
    theme: str = "loadbench",
) -> AsyncIterator[tuple[Dashboard, Pilot[Any]]]:
    """The app on its first screen with all of the view read."""
    app = Dashboard(folder, Script(view, folder), theme=theme)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield app, pilot


async def settle(pilot: Pilot[Any]) -> None:
    """Until all that keys and records caused has been drawn."""
    for _ in range(3):  # record → message → scene → cells: each pause sees the queues empty
        await pilot.pause(0.01)
    app = pilot.app
    for _ in range(50):  # new data are drawn twice a second
        if not (isinstance(app, Dashboard) and app._pace._scheduled):
            break
        await pilot.pause(0.02)


async def until(pilot: Pilot[Any], came: Callable[[], object]) -> None:
    """Waits for what threads, processes and the next look at a folder bring."""
    for _ in range(PATIENCE):
        if came():
            await settle(pilot)
            return
        await pilot.pause(0.025)
    raise AssertionError(f"it never came:\n{text(pilot.app)}")  # type: ignore[arg-type]


async def until_told(pilot: Pilot[Any], words: str) -> str:
    """The screen, as soon as it or a notice has the words."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    for _ in range(PATIENCE):
        told = [one.message for one in app._notifications]
        if any(words in found for found in (text(app), *told)):
            return text(app)
        await pilot.pause(0.025)
    raise AssertionError(f"{words!r} never came:\n{text(app)}")


async def ended(app: Dashboard) -> None:
    """Until all that keys have set going has ended; what reads the log goes on."""
    if own := [worker for worker in app.workers if worker.group != "reader"]:
        await app.workers.wait_for_complete(own)
