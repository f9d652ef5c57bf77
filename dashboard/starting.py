"""Runs that are started from here: put together on the launcher, or once more what was seen."""

import asyncio
import shlex
from typing import TYPE_CHECKING

from dashboard.child import Child
from loadbench.errors import LoadbenchError

if TYPE_CHECKING:
    from dashboard.app import Dashboard

_OURS = ("loadbench", "run")
_WITHOUT = ("--print-folder", "--json")  # of who started it
_TRUST = "--trust"


def command_line(arguments: list[str]) -> str:
    """As one would type it."""
    return shlex.join(["loadbench", "run", *arguments])


def once_more(snapshot: object, ours: bool) -> list[str] | None:
    """The arguments of `loadbench run` that made a run; None where its run.json has none.

    `ours`: it was started from here. That code may run is only taken from such a one: run.json is
    a file like any other, and anybody may have written it."""
    found = snapshot.get("command") if isinstance(snapshot, dict) else None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        return None
    if tuple(found[:2]) != _OURS:
        return None
    without = _WITHOUT if ours else (*_WITHOUT, _TRUST)
    return [word for word in found[2:] if word not in without]


async def start(app: "Dashboard", arguments: list[str]) -> None:
    """Starts a run and turns to it; says so, with its command line, or why there is none."""
    child = Child(arguments)
    try:
        folder = await asyncio.to_thread(child.folder)
    except asyncio.CancelledError:  # the dashboard is left: nobody was told of a run that goes on
        child.give_up()
        raise
    if folder is None:
        app.notify(f"✗ {child.failure()}", severity="error", timeout=20, markup=False)
        child.forget()
        return
    try:
        app.open_run(folder, "live", child)
    except LoadbenchError as error:
        app.notify(f"✗ {error.message}", severity="error", markup=False)
    app.notify(command_line(arguments), title="started", markup=False)
