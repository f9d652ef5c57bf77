"""Repeats: one scenario run several times, each a whole run of its own, kept together as a series.

Requests of one run depend on each other, and what a machine does in one minute is not what it does
in the next: only runs made anew say how much a figure moves by itself. An engine that we start is a
fresh process in each; a server that is only found keeps its state, so there is a pause between,
and the snapshot says so. What the repeats come to is for `loadbench.judge`.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.errors import LoadbenchError
from loadbench.experiments.several import GivenUp, InTurns, begun, facts, now
from loadbench.judge.overall import overall
from loadbench.model import plain
from loadbench.runner import Options, Outcome, Run, usual_name
from loadbench.spec import Scenario

COOL_DOWN_S = 5.0  # between two runs against a server that goes on
# of a repeat's snapshot, what holds for all
_SHARED = ("phases", "capacity", "locustfile", "files", "workers", "target", "machine")


class Series(InTurns):
    """Repeats of one run."""

    def __init__(
        self,
        scenario: Scenario,
        options: Options,
        say: Callable[[str], None],
        repeats: int,
        cool_down_s: float | None = None,
    ) -> None:
        super().__init__()
        self._scenario = scenario
        self._options = options
        self._say = say
        self._wanted = repeats
        fresh = scenario.spec.target.url.startswith("local:")
        self._cool_down_s = (0.0 if fresh else COOL_DOWN_S) if cool_down_s is None else cool_down_s
        self._made: list[Outcome] = []
        self._made_results = not options.results.exists()
        self.folder = runlog.create(options.results, options.name or usual_name(scenario))
        self._snapshot = self._begun(fresh)
        runlog.write_snapshot(self.folder, self._snapshot)

    @property
    def recording(self) -> bool:
        """Whether there is something measured that a stop must keep."""
        return bool(self._made) or (self._current is not None and self._current.recording)

    def execute(self) -> list[Outcome]:
        """Makes the repeats; the snapshot is complete however they end. Raises what a repeat
        raises that cannot be made; those before it are kept."""
        try:
            for number in range(1, self._wanted + 1):
                self._rest(number)
                if self._ending or not self._repeat(number):
                    break
        except GivenUp:
            pass
        except LoadbenchError as error:
            self._reason, self._text = "failed", f"repeat {number}: {error.message}"
            raise
        finally:
            self._given_up = True
            self._close()
        return self._made

    def _rest(self, number: int) -> None:
        if number > 1 and self._cool_down_s:
            self._say(f"cooling down for {self._cool_down_s:g} s")
            time.sleep(self._cool_down_s)

    def _repeat(self, number: int) -> bool:
        """One of them; whether another may follow."""
        self._say(f"repeat {number} of {self._wanted}")
        folder = runlog.inner(self.folder, str(number))
        self._snapshot = {**self._snapshot, "repeats": [*self._snapshot["repeats"], folder.name]}
        runlog.write_snapshot(self.folder, self._snapshot)
        options = replace(self._options, folder=folder, capacity=self._capacity)
        run = Run(self._scenario, options, self._say)
        self._current = run
        try:
            made = run.execute()
        finally:
            self._current = None
        self._made.append(made)
        if made.summary.reason != "done" and not self._ending:  # told to stop, or the engine died
            self._reason, self._text = made.summary.reason, f"repeat {number}: {made.summary.text}"
        self._write()
        return made.summary.reason == "done"

    @property
    def _capacity(self) -> float | None:
        """What 100 % is in all of them: repeats at rates of their own would be different work."""
        if self._options.capacity is not None or not self._made:
            return self._options.capacity
        found: float | None = runlog.read_snapshot(self._made[0].folder).get("capacity")
        return found

    def _begun(self, fresh: bool) -> dict[str, Any]:
        """The series' snapshot before anything is known of its target."""
        return {
            **begun(self.folder, runlog.SERIES, self._options),
            **facts(self._scenario),
            "wanted": self._wanted,
            "engine": "fresh for each repeat" if fresh else "the same for all repeats",
            "cool_down_s": self._cool_down_s,
            "repeats": [],
            "overall": None,
        }

    def _write(self) -> None:
        first = runlog.read_snapshot(self._made[0].folder) if self._made else {}
        shared = {key: first[key] for key in _SHARED if key in first}
        whole = overall([plain(made.summary) for made in self._made])
        names = [name for name in self._snapshot["repeats"] if (self.folder / name).is_dir()]
        self._snapshot = {**self._snapshot, **shared, "overall": whole, "repeats": names}
        runlog.write_snapshot(self.folder, self._snapshot)

    def _close(self) -> None:
        """Writes the snapshot as it stays; without a repeat there is nothing to keep."""
        if not any(path.is_dir() for path in self.folder.iterdir()):
            _remove(self.folder)
            if self._made_results:
                with contextlib.suppress(OSError):  # another run may be in it by now
                    self._options.results.rmdir()
            return
        if sys.exc_info()[0] is not None and self._reason == "done":
            self._reason = "failed"
        self._snapshot |= {"state": self._reason, "text": self._text, "ended": now()}
        self._write()
        runlog.seal(self.folder)


def _remove(folder: Path) -> None:
    (folder / runlog.SNAPSHOT).unlink(missing_ok=True)
    folder.rmdir()
