"""The dashboard: follows one run, hands scenes to the screen in front, and does what keys ask.

It only reads the run's folder. What it changes about a run goes through the run's own control
socket, so a dashboard that dies takes nothing with it.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.driver import Driver as TerminalDriver
from textual.events import Event, Key, Paste
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from dashboard import ending
from dashboard.child import Child
from dashboard.commands import commands
from dashboard.driver import LEAVE, STAY, STOP, Driver
from dashboard.follow import Follow, Unreadable, ViewChanged, until_cancelled
from dashboard.keyboard import Keyboard
from dashboard.pacing import Pacing
from dashboard.ringing import Way, ring
from dashboard.scene import Scene, Sight, Source, scene
from dashboard.screens.alerts import Alerts
from dashboard.screens.ask import Choice
from dashboard.screens.difference import Difference
from dashboard.screens.engine import Engine
from dashboard.screens.help import Help
from dashboard.screens.latency import Latency
from dashboard.screens.live import LatencyChart, Live
from dashboard.screens.logs import Logs
from dashboard.screens.run import RunScreen, Said
from dashboard.screens.runs import Runs
from dashboard.screens.tail import Tail
from dashboard.series import Part
from dashboard.steering import Wish
from dashboard.terminal import is_gone, lasting
from dashboard.theme import THEMES, fitting
from dashboard.travel import EVERY_S, Travel
from dashboard.widgets.board import Inspect
from dashboard.widgets.chart import Dragged, Wheel
from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.units import SECOND
from loadbench.view import View

NO_RUN = "no run"  # a folder of results that no runner makes
_SCREENS: dict[str, type[Screen[Any]]] = {
    "live": Live, "engine": Engine, "alerts": Alerts, "runs": Runs, "latency": Latency,
    "difference": Difference, "tail": Tail,
}  # fmt: skip


class Dashboard(App[None]):
    """`reader` is where records come from; `child` the run if we started it. `open_run` turns to
    another run; `started` are all that were started from here, by their folders. No run is open
    while `folder` is called NO_RUN. `first` is the screen to begin with."""

    CSS_PATH = "dashboard.tcss"
    TITLE = "loadbench"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS = [Binding("ctrl+q", "leave", show=False, priority=True)]

    def __init__(
        self,
        folder: Path,
        reader: Follow,
        child: Child | None = None,
        theme: str = "",
        first: str = "live",
    ) -> None:
        super().__init__()
        self._first = first
        self.started: dict[Path, Child] = {folder.resolve(): child} if child else {}  # by `whole`
        self._first_theme = theme
        self._pace = Pacing(self, self._draw)
        self._keyboard = Keyboard(self, super().on_event)
        self._leaving = False
        self.notify_by: Way = "auto"
        self._turn_to(folder, reader)

    def _turn_to(self, folder: Path, reader: Follow) -> None:
        """All that belongs to one run is set here, and so forgotten with it."""
        self.folder, self.reader = folder, reader
        self.whole = runlog.whole(folder)  # the series that it is of, or itself
        self.part = Part(folder)
        self.child = self.started.get(self.whole.resolve())
        self.run_view = View()
        self.sight = Sight()
        self.travel = Travel(self, reader.play)
        self.snapshot: dict[str, Any] = {}
        self._came: float | None = None  # when the newest data came
        self.problem, self.killed = "", False
        self.driver = Driver(self)
        self._gone = 0  # ticks since the runner was first seen to be gone

    def on_mount(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):  # so that the terminal is given back whole
            asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._first_theme or fitting(self.console.color_system, self.no_color)
        self.theme_changed_signal.subscribe(self, lambda _: self.redraw())
        for name, kind in _SCREENS.items():
            self.install_screen(kind(), name)
        self._pace.begin()
        self._keyboard.begin()
        self.push_screen(self._first)
        self._read()
        self.set_interval(1.0, self._tick)
        self.set_interval(EVERY_S, lambda: self.travel.tick())

    def get_driver_class(self) -> type[TerminalDriver]:
        return lasting(super().get_driver_class())

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key | Paste) and not event.is_forwarded:
            await self._keyboard.type(event)
        else:
            await super().on_event(event)

    def on_keyboard_followed(self, message: Keyboard.Followed) -> None:
        self._keyboard.followed(message)

    def _handle_exception(self, error: Exception) -> None:
        """A screen that was just being opened when the dashboard ended was left without inside."""
        if self.return_code is None or not isinstance(error, NoMatches):
            super()._handle_exception(error)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        grey = "ansi_bright_black"
        return {"quiet": grey, "frame": grey, "chosen": "ansi_cyan"}

    # ── which run ────────────────────────────────────────────────────────────

    def open_run(
        self, folder: Path, mode: Literal["live", "replay"] = "live", child: Child | None = None
    ) -> None:
        """Shows another run on Live from now on: `live` one that may still go on, `replay` a
        finished one by the clock; of a series its last repeat. The run shown until now is left
        alone. `child` is given by who has just started it. Raises SpecError for a replay without
        a log."""
        folder = runlog.latest(folder)
        if mode == "replay" and not (folder / runlog.LOG).is_file():
            raise SpecError(f"{folder / runlog.LOG} is not there", "it was killed before it began")
        if child is not None:
            self.started[runlog.whole(folder).resolve()] = child
        self._open(folder, Follow(folder, play=int(mode == "replay")))
        self.call_later(self.action_go, "live")

    def _open(self, folder: Path, reader: Follow, sight: Sight | None = None) -> None:
        """After what the old reader has posted already has been dealt with."""
        self.workers.cancel_group(self, "reader")
        self.call_later(self._opened, folder, reader, sight or Sight())

    def _opened(self, folder: Path, reader: Follow, sight: Sight) -> None:
        self._turn_to(folder, reader)
        self.sight = sight
        self._read()
        self.redraw()

    def _follow_series(self) -> None:
        """To the next run of a series, unless somebody looks at the past of this one."""
        begun, over = self.run_view.start is not None, self.run_view.end is not None
        if begun and not over:
            return
        newest = self.part.next()
        if newest is not None and self.sight.at is None:
            kept = self.sight
            sight = Sight(zoom=kept.zoom, everything=kept.everything, log=kept.log)
            self._open(newest, Follow(newest), sight)
        elif self.part.words:
            self.redraw()

    def _read(self) -> None:
        run = self.reader.run(self.post_message)
        past = self.reader.past.run(self.hurry, lambda why: self.post_message(Unreadable(why)))
        self.run_worker(until_cancelled(run), name="reader", group="reader", exit_on_error=True)
        self.run_worker(until_cancelled(past), name="past", group="reader", exit_on_error=True)

    # ── data in, scenes out ──────────────────────────────────────────────────

    def on_view_changed(self, message: ViewChanged) -> None:
        ring(self, message.view)
        first = self._came is None
        self.run_view, self._came = message.view, message.at
        start = message.view.start
        if start is not None and start.planned_ns and self.sight.planned is None:
            self.sight = replace(self.sight, planned=round(start.planned_ns / SECOND))
        if message.view.end is not None:
            self.read_snapshot()
        self.travel.tick()  # a run that is to be played is shown from its beginning
        if first:
            self._pace.now()  # what is waited for: the last picture was of nothing
        else:
            self._pace.soon()

    def on_unreadable(self, message: Unreadable) -> None:
        self.problem = message.reason
        self.redraw()

    def redraw(self) -> None:
        """The whole of the present scene, as soon as the terminal keeps up."""
        self._pace.now()

    def hurry(self) -> None:
        """The same for somebody who is on the way through the run."""
        self._pace.hurry()

    def _draw(self) -> bool:
        shown = self._run_screen()
        if shown is None or not self.is_running:  # its parts go one by one when the app ends
            return False
        if not shown.is_mounted:  # it is being put together
            shown.call_after_refresh(self.redraw)
            return False
        shown.show(self.scene())
        return True

    def on_terminal_supports_synchronized_output(self) -> None:
        self._pace.answered()

    def scene(self) -> Scene:
        age = None if self._came is None else max(0.0, time.monotonic() - self._came)
        said = self.child.last_words() if self.child and self.run_view.latest is None else ""
        view = self.travel.seen(self.reader.past)
        run = str(self.folder) if self.opened else ""
        source = Source(
            age_s=age,
            problem=self.problem,
            killed=self.killed,
            said=said,
            snapshot=self.snapshot,
            run=run,
            name=runlog.named(self.folder) if run else "",
            part=self.part.words,
            follows=self.part.follows,
            verdict=self.child.verdict() if self.child and self.run_view.end else "",
            hasty=self._pace.hasty,
        )
        return scene(view, self.sight, source)

    def say(self, text: str) -> None:
        """What came of a key, in few words, on the uppermost screen that has a place for them: the
        palette, which is just closing, has none."""
        places = (place for one in reversed(self.screen_stack) for place in one.query(Said))
        if (place := next(places, None)) is not None:  # none while the dashboard ends
            place.say(text)

    def _run_screen(self) -> RunScreen | None:
        """The uppermost screen of the run, also when a question lies over it."""
        found = (screen for screen in reversed(self.screen_stack) if isinstance(screen, RunScreen))
        return next(found, None)

    def _tick(self) -> None:
        """Once a second: what happens without a record coming."""
        if not self.is_headless and is_gone(sys.__stdin__):
            self.exit(None, 128 + signal.SIGHUP)
            return
        self._watch_runner()
        self._follow_series()
        self._pace.breathe()
        waiting = self.run_view.latest is None
        stale = self._came is not None and time.monotonic() - self._came > 2
        if self._pace.late or waiting or (stale and self.run_view.end is None):
            self.redraw()

    def _watch_runner(self) -> None:
        """A runner that is gone without having written an end: say so."""
        if self.problem:
            return
        if not self.snapshot:
            self.read_snapshot()
        if self._leaving and self.ended:
            self.exit()
        if self.run_view.end is not None:
            if "summary" not in self.snapshot:
                self.read_snapshot()
                self.redraw()
            return
        state = runlog.state(self.snapshot)
        dead, killed = state in ("killed", "failed"), state == "killed"
        if self.child is not None:
            dead, killed = self.child.code is not None, self.child.killed
        self._gone = self._gone + 1 if dead else 0
        if self._gone >= 2:  # what it wrote last has been read by now
            said = self.child.failure() if self.child else ""
            self.problem, self.killed = said or "the runner is gone: killed?", killed
            self.redraw()

    def read_snapshot(self) -> None:
        self.snapshot = ending.snapshot(self.folder)

    @property
    def opened(self) -> bool:
        """Whether there is a run to be shown at all."""
        return self.folder.name != NO_RUN

    @property
    def ended(self) -> bool:
        gone = self.child is not None and self.child.code is not None
        over = self.run_view.end is not None or bool(self.problem)
        return gone or (over and not self.part.follows) or not self.opened

    # ── the view ─────────────────────────────────────────────────────────────

    def action_look(self, verb: str, *given: int) -> None:
        """Where one looks and when: the verbs are those of `Travel`."""
        getattr(self.travel, verb)(*given)

    def on_inspect(self, message: Inspect) -> None:
        self.travel.inspect(message.second)

    def on_dragged(self, message: Dragged) -> None:
        self.travel.drag(message.end)

    def on_wheel(self, message: Wheel) -> None:
        self.travel.zoom(message.steps, message.second)

    def bring(self, begin: int, end: int) -> None:
        """Live, paused, with these seconds in view."""
        self.travel.bring(begin, end)
        self.action_go("live")

    def action_go(self, name: str) -> None:
        """Another screen of the run; what lies over the present one goes."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        if self._run_screen() is not self.get_screen(name):
            self.switch_screen(name)
        self.call_after_refresh(self.redraw)

    def action_maximise(self) -> None:
        """The focused panel large, or back; the latency panel brings its distribution."""
        shown = self._run_screen()
        if shown is None:
            return
        if isinstance(shown, Latency):
            self.action_go("live")
        elif shown.maximized is not None:
            shown.minimize()
        elif isinstance(shown, Live) and isinstance(shown.focused, LatencyChart | None):
            self.action_go("latency")
        elif shown.focused is None:
            self.say("No panel is in focus: tab brings the next one into it.")
        else:
            shown.enlarge(shown.focused)

    def action_restore(self) -> None:
        shown = self._run_screen()
        if shown is not None and shown.maximized is not None:
            shown.minimize()
        elif isinstance(shown, Latency | Tail | Difference):
            self.action_go("live")
        elif self.sight.cursor is not None:
            self.travel.inspect()

    def action_new_run(self) -> None:
        from dashboard.screens.launcher import Launcher  # reads scenarios: not for who only watches

        if not self.is_screen_installed("launcher"):
            self.install_screen(Launcher(), "launcher")
        if self.get_screen("launcher") not in self.screen_stack:
            self.push_screen("launcher")

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_logs(self) -> None:
        self.push_screen(Logs(self.folder, self.child.said() if self.child else ""))

    def action_picture(self) -> None:
        name = f"screen-{time.strftime('%H%M%S')}.svg"
        folder = self.folder if os.access(self.folder, os.W_OK) else Path.cwd()
        try:
            self.notify(f"saved {self.save_screenshot(name, str(folder))}", markup=False)
        except OSError as error:
            text = f"no picture could be saved in {folder}: {error.strerror}"
            self.notify(text, severity="error", markup=False)

    # ── the run ──────────────────────────────────────────────────────────────

    def action_drive(self, verb: str) -> None:
        """What is done to the run, or made of it: the verbs are those of `Driver`."""
        getattr(self.driver, verb)()

    def action_steer(self, wish: Wish) -> None:
        self.driver.steer(wish)

    @work
    async def action_leave(self) -> None:
        if self.child is None or self.ended:
            self.exit()
            return
        question = "The run goes on. Quit, and …"
        answer = await self.push_screen_wait(Choice(question, (STOP, LEAVE, STAY)))
        if answer == LEAVE:
            self.exit()
        elif answer == STOP:
            self._leaving = True
            self.driver.stop()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        worker, ended = event.worker, event.state is WorkerState.SUCCESS
        if worker.name == "reader" and ended and not worker.is_cancelled:  # else its run was left
            self.redraw()

    # ── the palette ──────────────────────────────────────────────────────────

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        return commands(self, screen)

    def action_colours(self, theme: str) -> None:
        self.theme = theme
