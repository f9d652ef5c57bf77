"""Driving the run that is shown: stop it, mark it, steer its load and its engine; what keys, the
palette and the panel ask for goes through the run's own control socket.
"""

import errno
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from dashboard.exporting import copy_command, opened, report, seconds
from dashboard.screens.ask import Choice, Word
from dashboard.screens.runs import Runs
from dashboard.screens.steer import Steer
from dashboard.starting import command_line, once_more, start
from dashboard.steering import Helm, Refused, Row, Wish, rows
from loadbench import control
from loadbench.errors import LoadbenchError

if TYPE_CHECKING:
    from dashboard.app import Dashboard

RUN = "Run it"
NOW, STOP, LEAVE, STAY = "End at once", "Stop it", "Leave it running", "Stay"


class Driver:
    """Of one run; another one has its own."""

    def __init__(self, app: "Dashboard") -> None:
        self._app = app
        self._helm = Helm()

    @property
    def listens(self) -> bool:
        """Whether the run takes commands, by what was read of it last."""
        return bool(self._app.snapshot.get("control")) and not (self._app.ended or self.elsewhere)

    @property
    def elsewhere(self) -> str:
        """The machine on which alone it can be driven; "" where it can be from here."""
        return control.elsewhere(self._app.snapshot)

    def _is_over(self, what: str) -> bool:
        """Whether the run takes no commands any more, or none from here; then that is said."""
        if self._app.ended:
            self._app.say(f"Nothing to {what}: this run is over.")
            return True
        self._app.read_snapshot()
        if host := self.elsewhere:
            self._app.say(f"Nothing to {what} from here: the run is driven at {host}.")
        return bool(host)

    def ask_stop(self) -> None:
        """Asks whether, and how."""
        if not self._is_over("stop"):
            self._app.run_worker(self._asked_stop())

    async def _asked_stop(self) -> None:
        choice = Choice("Stop the run?", (NOW, STOP, STAY))
        answer = await self._app.push_screen_wait(choice)
        if answer in (NOW, STOP):
            self.stop(at_once=answer == NOW)

    def ask_mark(self) -> None:
        """Asks for a word."""
        if not self._is_over("mark"):
            self._app.run_worker(self._asked_mark())

    async def _asked_mark(self) -> None:
        word = await self._app.push_screen_wait(Word("Mark: what happened?"))
        if word:
            self.command({"command": "mark", "text": word}, f"marked: {word}")

    def adjust(self) -> None:
        """Opens the panel."""
        if not self._is_over("adjust"):
            line = partial(control.written, self._app.folder)
            self._app.push_screen(Steer(self._driven, self._tell, line))

    def _driven(self) -> list[Row]:
        view = self._app.run_view
        return rows(self._helm.standing(view), view, self._app.snapshot)

    def again(self) -> None:
        """The same run once more; asks first where it was not started from here."""
        app = self._app
        if not self._goes_on("run again"):
            app.read_snapshot()
            arguments = once_more(app.snapshot, app.child is not None)
            if arguments is None:
                app.notify("Its run.json does not say how it was started: n = new run.")
            else:
                app.run_worker(self._again(arguments))

    async def _again(self, arguments: list[str]) -> None:
        app = self._app
        if app.child is None:
            choice = Choice(f"Run it again?\n$ {command_line(arguments)}", (RUN, STAY))
            if await app.push_screen_wait(choice) != RUN:
                return
        await start(app, arguments)

    def report(self) -> None:
        """Writes the HTML page; of a series that of all its runs."""
        if not self._goes_on("report"):
            self._app.run_worker(report(self._app, self._app.whole))

    def export(self) -> None:
        """Writes its seconds, as far as it has come."""
        if self._app.opened:
            self._app.run_worker(seconds(self._app, self._app.folder))

    def copy_command(self) -> None:
        """The command line that made it."""
        if self._app.opened:
            copy_command(self._app, self._app.folder)

    def folder(self) -> None:
        """Opens the folder of all runs, or says where it is."""
        found = self._app.whole.parent.absolute()
        told = "opened" if opened(found) else "runs lie in"
        self._app.notify(f"{told}: {found}", markup=False)

    def compare(self) -> None:
        """With the scenario's baseline, or else with the run of it before this one."""
        app = self._app
        if not self._goes_on("compare"):
            runs = app.get_screen("runs", Runs)
            runs.compare_with_former(app.whole.name)
            app.action_go("runs")

    def _goes_on(self, what: str) -> bool:
        """Whether there is no run that is over; then that is said."""
        if not self._app.opened:
            self._app.say(f"Nothing to {what}: no run is open. 4 = runs")
        elif not self._app.ended:
            self._app.say(f"Nothing to {what} yet: this run goes on. s = stop")
        return not self._app.opened or not self._app.ended

    def steer(self, wish: Wish) -> None:
        """By a key: 10 % more or less, the arrivals, a spike."""
        if self._is_over("steer"):
            return
        try:
            self.command(self._helm.wanted(wish, self._app.run_view))
        except Refused as refused:
            self._app.notify(str(refused), severity="error")

    def stop(self, at_once: bool = False) -> None:
        """By the run's socket; before it has one, and between two repeats, by a signal to the
        runner."""
        app = self._app
        app.read_snapshot()
        text = "stopping: no more requests, waiting for the answers"
        text = "ending at once: what is open stays unfinished" if at_once else text
        if app.snapshot.get("control") and app.run_view.end is None:
            self.command({"command": "kill" if at_once else "stop"}, text)
            return
        pid = app.child.pid if app.child else app.snapshot.get("pid")
        try:
            if not isinstance(pid, int):
                raise ProcessLookupError(errno.ESRCH, "its process is not known yet")
            os.kill(pid, signal.SIGTERM)
        except OSError as error:
            app.notify(f"cannot stop it: {error.strerror}", severity="error")
        else:
            app.notify(text)

    def command(self, command: dict[str, Any], done: str = "") -> None:
        """Tells the run, and people what came of it: what the run says, or `done`."""
        self._app.run_worker(self._told(command, done))

    async def _told(self, command: dict[str, Any], done: str) -> None:
        app = self._app
        try:
            did = await self._tell(command)
        except LoadbenchError as error:
            app.notify(error.said, severity="error", markup=False)
        else:
            app.notify(f"{done or did}\n{control.written(app.folder, command)}", markup=False)

    async def _tell(self, command: dict[str, Any]) -> str:
        path = self._app.snapshot.get("control")
        done = await self._helm.tell(path, command, self._app.run_view)
        self._app.redraw()
        return done
