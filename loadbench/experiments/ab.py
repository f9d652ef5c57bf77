"""Two targets beside each other in one session: `loadbench ab`.

Each side is a whole run of the runner in a folder of its own (`a/`, `b/`), with an engine that is
started once and kept. Both loads have the same arrivals and begin at the same moment; each stands
still while the other has its turn (`judge.blocks`). So the logs hold everything: the figures are
made from them, here after each pair, and by `report.ab` for whoever looks later.
"""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from loadbench import runlog
from loadbench.errors import LoadbenchError, RunError
from loadbench.experiments.several import begun, now
from loadbench.experiments.shadowing import beside
from loadbench.experiments.sides import Side, differences, held
from loadbench.judge.blocks import SIDES, Layout
from loadbench.judge.paired import limits
from loadbench.judge.session import Answers, Terms, failing, rows_of
from loadbench.model import Start, Window, decode_record, plain
from loadbench.report.ab import read_session
from loadbench.report.comparison import signed
from loadbench.runner import Options, Run
from loadbench.runner.target import Target
from loadbench.units import MS

_LEAD_NS = 1000 * MS  # from when all is ready to the beginning: the loads have to hear of it
_APART_NS = 300 * MS  # that the loads may begin apart: what is left out of a block covers it
_LOOK_S = 0.2
_LAST_S = 30.0  # for engines to end, where nothing is waited for any more


@dataclass(frozen=True, slots=True)
class Plans:
    """What a session is to do."""

    layout: Layout
    terms: Terms
    shadow_s: int = 0  # so long both get the same requests at the same time, before the blocks


class _LeftAlone(RunError):
    """Not the reason: the other side has that."""


class _Meeting:
    """Where both runs wait until the other is ready; there the moment to begin is made up."""

    def __init__(self, both: Callable[[Target, Target], None]) -> None:
        self._both = both
        self._targets: dict[str, Target] = {}
        self._barrier = threading.Barrier(2, action=self._agree)
        self._begin = 0
        self.arrived = threading.Event()  # one of them
        self.begun = threading.Event()

    def __call__(self, side: str, target: Target) -> int:
        self._targets[side] = target
        self.arrived.set()
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise _LeftAlone("the other side could not begin") from None
        return self._begin

    def _agree(self) -> None:
        self._both(self._targets["a"], self._targets["b"])
        self._begin = time.monotonic_ns() + _LEAD_NS
        self.begun.set()

    def abort(self) -> None:
        self._barrier.abort()


class Tail:
    """The windows of a log that is being written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / runlog.LOG
        self._at = 0
        self.origin: int | None = None
        self.windows: list[Window] = []

    def follow(self) -> None:
        """Reads on. A line that is not whole yet is left for the next time."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for record in map(decode_record, whole.splitlines()):
            if isinstance(record, Window):
                self.windows.append(record)
            elif isinstance(record, Start):
                self.origin = record.origin_ns


class Interleaved:
    """One A/B. `stop` and `kill` are called by a signal handler of the thread that executes it."""

    def __init__(
        self, sides: tuple[Side, Side], plans: Plans, options: Options, say: Callable[[str], None]
    ) -> None:
        self._plans = plans
        self._say = say
        self._sides = dict(zip(SIDES, sides, strict=True))
        self._results = options.results
        self._made_results = not options.results.exists()
        self._state, self._text = "done", ""
        self._errors: list[BaseException] = []
        self._meeting = _Meeting(self._shadow)
        self.folder = runlog.create(options.results, options.name or _name(sides))
        self._snapshot = self._begun(options)
        runlog.write_snapshot(self.folder, self._snapshot)
        self._runs = {side: self._run(side, options) for side in SIDES}
        self._threads = {
            side: threading.Thread(target=self._execute, args=(side,), name=side, daemon=True)
            for side in SIDES
        }

    def _run(self, side: str, options: Options) -> Run:
        own = self._sides[side]
        folder = runlog.inner(self.folder, side)
        made = replace(options, folder=folder, python=own.python, meet=partial(self._meeting, side))
        scenario = held(own.scenario, self._plans.layout.phases(side))
        return Run(scenario, made, lambda text: self._tell(side, text))

    def _tell(self, side: str, text: str) -> None:
        if not self._meeting.begun.is_set():  # then each has its log
            self._say(f"{side.upper()}: {text}")

    @property
    def recording(self) -> bool:
        """Whether there is something measured that a stop must keep."""
        return self._meeting.begun.is_set()

    def stop(self, text: str) -> None:
        """No further blocks."""
        self._end("stopped", text)
        for run in self._runs.values():
            run.stop(text)

    def kill(self, text: str) -> None:
        """Ends at once."""
        self._end("stopped", text)
        for run in self._runs.values():
            run.kill(text)

    def _end(self, state: str, text: str) -> None:
        if not self._text:
            self._state, self._text = state, text

    def execute(self) -> Path:
        """Makes the session; its folder. Raises what made it impossible; without a beginning
        nothing is kept."""
        layout, terms = self._plans.layout, self._plans.terms
        limits(layout.pairs, len(terms.metrics))  # takes its time before anything is measured
        try:
            self._threads["a"].start()
            self._await(lambda: self._meeting.arrived.is_set())
            if not self._errors:  # one after the other: engines time themselves as they start
                self._threads["b"].start()
                self._follow()
        finally:
            self._finish()
        if self._errors:
            raise self._reason
        return self.folder

    @property
    def _reason(self) -> BaseException:
        """Of the errors the one that made the other."""
        return min(self._errors, key=lambda error: isinstance(error, _LeftAlone))

    def _execute(self, side: str) -> None:
        """A side's own thread."""
        try:
            made = self._runs[side].execute()
        except BaseException as error:  # noqa: BLE001 - is raised in the thread that waits
            self._errors.append(error)
            self._meeting.abort()
            return
        if made.summary.reason == "failed":
            self._end("failed", f"{side.upper()}: {made.summary.text}")
            self._runs["b" if side == "a" else "a"].stop(self._text)

    def _await(self, there: Callable[[], bool]) -> None:
        while not there() and not self._errors:
            time.sleep(_LOOK_S)

    def _follow(self) -> None:
        """Looks at each pair as it ends, and stops when all is decided."""
        layout, tails = self._plans.layout, [Tail(self.folder / side) for side in SIDES]
        looked = 0
        while any(thread.is_alive() for thread in self._threads.values()):
            time.sleep(_LOOK_S)
            if self._errors:
                self._meeting.abort()
                return
            for tail in tails:
                tail.follow()
            _together(*(tail.origin for tail in tails))
            seen = min((tail.windows[-1].second if tail.windows else -1) for tail in tails)
            if looked < layout.pairs and seen >= layout.end(looked) - 1:
                looked += 1
                if self._look(looked, tails) and looked < layout.pairs:
                    self._decided(looked)
                    looked = layout.pairs

    def _look(self, number: int, tails: list[Tail]) -> bool:
        a, b = (tail.windows for tail in tails)
        rows = rows_of(self._plans.layout, self._plans.terms, a, b)
        gated = [row for row in rows if row.word]
        shifts = (f"{row.metric} {signed(row.shift)} {row.word}" for row in gated)
        self._say(f"pair {number} of {self._plans.layout.pairs}: {', '.join(shifts)}")
        if not all(row.decided for row in gated):
            return False
        return any(row.word == "worse" for row in gated) or not self._behind(a, b)

    def _behind(self, a: list[Window], b: list[Window]) -> bool:
        """Whether B fails more often until now: whether it surely does takes all pairs to tell."""
        shares = failing(self._plans.layout, a, b)
        return sum(other - one for one, other in shares) > 0

    def _decided(self, number: int) -> None:
        if not self._text:
            self._text = f"decided after {number} pairs"
            for run in self._runs.values():
                run.stop(self._text)

    def _shadow(self, a: Target, b: Target) -> None:
        if not self._plans.shadow_s:
            return
        seconds = self._plans.shadow_s
        self._say(f"the same requests to both for {seconds} s, to compare their answers")
        specs = tuple(self._sides[side].scenario.spec for side in SIDES)
        found = beside((a, b), (specs[0], specs[1]), self._plans.layout.rate, seconds)
        self._keep(found)

    def _keep(self, found: Answers) -> None:
        self._snapshot["answers"] = plain(found)
        runlog.write_snapshot(self.folder, self._snapshot)

    def _finish(self) -> None:
        """Both sides end, whatever happened; the snapshot says how."""
        self._meeting.abort()
        begun = self.recording
        if sys.exc_info()[0] is not None or self._errors:
            for run in self._runs.values():
                if run.recording:
                    run.kill(self._text or "the session broke off")
        for thread in self._threads.values():
            if thread.ident is not None and (begun or self._errors):
                thread.join(_LAST_S)
        if not any((self.folder / side / runlog.LOG).exists() for side in SIDES):
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._made_results:
                with contextlib.suppress(OSError):  # another run may be in it by now
                    self._results.rmdir()
            return
        if self._errors or sys.exc_info()[0] is not None:
            self._state = "failed"
            self._text = self._text or self._broken
        self._snapshot |= {"state": self._state, "text": self._text, "ended": now()}
        runlog.write_snapshot(self.folder, self._snapshot)
        rows = [] if self._state == "failed" else read_session(self.folder).gated
        told = ", ".join(f"{row.metric} {signed(row.shift)} {row.word}" for row in rows)
        text = "; ".join(filter(None, (told, self._text)))
        runlog.write_snapshot(self.folder, {**self._snapshot, "text": text})
        runlog.seal(self.folder)

    @property
    def _broken(self) -> str:
        error = self._reason if self._errors else sys.exc_info()[1]
        return error.message if isinstance(error, LoadbenchError) else "the session broke off"

    def _begun(self, options: Options) -> dict[str, Any]:
        a, b = self._sides["a"], self._sides["b"]
        return {
            **begun(self.folder, runlog.AB, options),
            "scenario": f"{a.scenario.name} vs {b.scenario.name}",
            "title": a.scenario.spec.title,
            "target": {"name": f"{a.facts['url']} vs {b.facts['url']}"},
            "layout": msgspec.to_builtins(self._plans.layout),
            "terms": msgspec.to_builtins(self._plans.terms),
            "sides": {side: self._sides[side].facts for side in SIDES},
            "differs": differences(a, b),
            "answers": None,
        }


def _together(a: int | None, b: int | None) -> None:
    """Raises RunError for loads that did not begin at the same moment."""
    if a is not None and b is not None and abs(a - b) > _APART_NS:
        raise RunError(
            f"the loads began {abs(a - b) / MS:.0f} ms apart, so their turns overlap",
            "this machine is too busy to measure on",
        )


def _name(sides: tuple[Side, Side]) -> str:
    names = [side.scenario.name for side in sides]
    return "ab-" + "-".join(dict.fromkeys(names))
