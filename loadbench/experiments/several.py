"""What experiments of several runs share: how the run.json of their folder begins, and how they
are told to stop."""

import os
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from loadbench import __version__, runlog
from loadbench.environment import shown, typed
from loadbench.runner import Options, Run
from loadbench.runner.snapshot import commit
from loadbench.spec import Scenario


def begun(folder: Path, kind: str, options: Options) -> dict[str, Any]:
    """The folder's snapshot before anything is known but who makes it."""
    return {
        "schema": runlog.SCHEMA,
        "kind": kind,
        "loadbench": __version__,
        "run": folder.name,
        **at_work(),
        "began": now(),
        "commit": commit(),
        "command": typed(options.command),
        "summary": None,
    }


def at_work() -> dict[str, Any]:
    """That this process is at it."""
    return {"state": "running", "pid": os.getpid(), "host": platform.node()}


def facts(scenario: Scenario) -> dict[str, Any]:
    """What is run, where all the runs are of one scenario."""
    return {
        "scenario": scenario.name,
        "scenario_file": scenario.file,
        "title": scenario.spec.title,
        "spec": scenario.spec.facts(),
        "target": {"name": shown("url", scenario.spec.target.url)},
    }


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class GivenUp(Exception):
    """A signal came while nothing was being measured: what is being started is not wanted."""


class InTurns:
    """Runs one after the other. `stop` and `kill` are called by a signal handler of the thread
    that executes them: the run that goes on ends, and none follows."""

    def __init__(self) -> None:
        self._current: Run | None = None
        self._reason, self._text = "done", ""
        self._ending = self._given_up = False

    def stop(self, text: str) -> None:
        """The run that goes on ends gently."""
        self._end(text, lambda run: run.stop(text))

    def kill(self, text: str) -> None:
        """The run that goes on ends at once."""
        self._end(text, lambda run: run.kill(text))

    def _end(self, text: str, tell: Callable[[Run], None]) -> None:
        if not self._ending:
            self._reason, self._text = "stopped", text
        self._ending = True
        if self._current is not None and self._current.recording:
            tell(self._current)
        elif not self._given_up:  # once: what this starts must not be broken off itself
            self._given_up = True
            raise GivenUp
