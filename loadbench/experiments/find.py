"""A search on a real target: one run that is led from rate to rate, its stages in the snapshot.

A find is a folder whose run.json has `"kind": "find"` and under `find` what was searched for and,
for each setting, the stages and the result. Each setting is a run in a folder of its own, so that
engine and load are started once for all of its stages; another if it is broken off and resumed.
The snapshot is written after each stage: a kill loses the stage at work. How a search goes on is
decided in `loadbench.judge`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from loadbench import runlog
from loadbench.bounds import whose
from loadbench.environment import kept
from loadbench.errors import LoadbenchError, SpecError
from loadbench.experiments.several import GivenUp, InTurns, at_work, begun, facts, now
from loadbench.judge.pilot import Order, Pilot, longest_s
from loadbench.judge.search import Terms
from loadbench.judge.searches import Hunt, Setting
from loadbench.judge.stage import Seen
from loadbench.model import Window, plain
from loadbench.plan import Plan
from loadbench.report.find import stage_line
from loadbench.runner import Options, Run
from loadbench.runner.target import Target
from loadbench.shape import Phase
from loadbench.snapshots import sums
from loadbench.spec import Scenario
from loadbench.targetspec import TargetSpec
from loadbench.units import SECOND

_HALF = 0.5  # of what full batches could do: where a search begins
PACED = ("constant", "poisson", "gamma")


def searchable(scenario: Scenario, start: float | None = None) -> None:
    """SpecError if the scenario's arrivals have no rate that could be searched for, or if nothing
    says where to begin: neither `start` nor an engine's batches nor the scenario."""
    arrivals = scenario.spec.load.arrivals
    if arrivals not in PACED:
        raise SpecError(
            f"{arrivals} arrivals have no rate to search for",
            f"find needs an open loop: load.arrivals = {', '.join(PACED)}",
        )
    ours = scenario.spec.target.url.startswith("local:")
    if start is None and not ours and _first(scenario) is None:
        raise SpecError("a search does not begin at a rate in %", "give --start RATE")


def _first(scenario: Scenario) -> float | None:
    """The scenario's own first rate; None if it is one in %: nothing is calibrated here."""
    phase = scenario.spec.load.phases[0]
    asked = phase.rate or phase.start
    return None if asked is None or asked.relative else asked.value


Told = Callable[[Seen, float, float], None]  # a stage, the first rate, the seconds spent


class Leader:
    """One setting's run: knows where to begin, and asks the pilot for the rest."""

    def __init__(self, setting: Setting, terms: Terms, first: float | None, told: Told) -> None:
        """`first` is the scenario's own first rate."""
        self._setting = setting
        self._first = first
        self._terms = terms
        self._told = told
        self.pilot: Pilot | None = None

    def planned(self, plan: Plan, target: Target) -> Plan:
        start = self._setting.start or self._terms.start or _start(self._first, target, self._terms)
        terms = msgspec.structs.replace(self._terms, start=start)
        if terms.claim.of and not target.endpoint.streams:
            raise SpecError(
                f"{terms.claim.text!r} is of answers that come token by token",
                'this target has none: search for "p99 < 100 ms"',
            )
        before = self._setting
        self.pilot = Pilot(
            terms,
            lambda seen, spent: self._told(seen, start, spent),
            before.seen,
            before.spent_s,
        )
        rate = self.pilot.probe.rate if self.pilot.probe else start
        length = longest_s(terms) * SECOND
        return msgspec.structs.replace(
            plan,
            phases=(Phase(rate, rate, length),),
            limit_ns=plan.limit_ns if terms.claim.of else terms.claim.limit_ns or plan.limit_ns,
        )

    def see(self, window: Window) -> Order | None:
        return self.pilot.see(window) if self.pilot else None


def _start(first: float | None, target: Target, terms: Terms) -> float:
    """Half of what the engine's batches could do by its warm-up, those of which two fit into the
    limit; of a server that does not tell, the scenario's own first rate."""
    limit = terms.claim.limit_ns
    fitting = {
        rows: ns for rows, ns in target.warm_ns.items() if ns and (not limit or 2 * ns <= limit)
    }
    if not fitting:
        return first or 1.0
    best = max(rows / ns for rows, ns in fitting.items()) * SECOND
    return float(f"{_HALF * best * int(target.settings.get('instances') or 1):.3g}")


class Finder(InTurns):
    """Finds the rates of all settings of a hunt, one after the other."""

    def __init__(
        self,
        hunt: Hunt,
        scenarios: Sequence[Scenario],
        options: Options,
        say: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        """A scenario for each setting. With a `folder` its hunt is gone on with."""
        super().__init__()
        self._hunt = hunt
        self._scenarios = scenarios
        self._options = options
        self._say = say
        self._leader: Leader | None = None
        self._whys: set[str] = set()  # that were told
        name = options.name or f"find-{scenarios[0].name}"
        self.folder = folder or runlog.create(options.results, name)
        known = runlog.read_snapshot(folder) if folder else {}
        sums.reopened(self.folder)
        self._snapshot = {**known, **at_work(), "text": ""} if folder else self._begun()
        self._write()

    @property
    def recording(self) -> bool:
        """Whether there is something measured that a stop must keep."""
        measured = any(setting.seen for setting in self._hunt.settings)
        return measured or (self._current is not None and self._current.recording)

    @property
    def failed(self) -> bool:
        """Whether a run broke down, of the engine or the load."""
        return self._reason == "failed"

    def execute(self) -> Hunt:
        """Raises what a setting raises that cannot be measured; those before it are kept."""
        try:
            for number in range(len(self._hunt.settings)):
                if not self._ending and self._hunt.settings[number].found is None:
                    self._search(number)
        except GivenUp:
            pass
        except LoadbenchError as error:
            self._reason, self._text = "failed", error.message
            raise
        finally:
            self._given_up = True
            self._close()
        return self._hunt

    def _search(self, number: int) -> None:
        setting = self._hunt.settings[number]
        if setting.over:
            of = f"{number + 1} of {len(self._hunt.settings)}"
            self._say(f"setting {of}: {setting.name}")
        names = self._snapshot["repeats"]
        folder = runlog.inner(self.folder, str(max(map(int, names), default=0) + 1))
        self._snapshot = {**self._snapshot, "repeats": [*names, folder.name]}
        self._put(number, runs=(*setting.runs, folder.name))
        spec = self._scenarios[number].spec
        terms = _bounded(self._hunt.terms, spec.target)
        first = _first(self._scenarios[number])
        self._leader = Leader(setting, terms, first, lambda *told: self._told(number, *told))
        options = replace(self._options, folder=folder, lead=self._leader)
        self._current = Run(self._scenarios[number], options, lambda _: None)
        try:
            outcome = self._current.execute()
        finally:
            self._current = None
            if not folder.exists():  # nothing was measured
                self._snapshot = {**self._snapshot, "repeats": names}
                self._put(number, runs=setting.runs)
        pilot = self._leader.pilot
        if outcome.summary.reason == "failed" and not self._ending:
            self._reason, self._text = "failed", outcome.summary.text
            self._ending = True
        if pilot and pilot.found is None and outcome.summary.reason == "stopped":
            self._ending, self._reason = True, "stopped"  # told so from elsewhere, too
            self._text = self._text or outcome.summary.text
        elif pilot and not self._ending:
            self._put(number, found=pilot.stop())

    def _told(self, number: int, seen: Seen, start: float, spent_s: float) -> None:
        stages = (*self._hunt.settings[number].seen, seen)
        self._put(number, seen=stages, start=start, spent_s=spent_s)
        self._say(stage_line(seen, self._hunt.terms.claim))
        if seen.no_bands and seen.no_bands not in self._whys:  # once: most stages are as short
            self._whys.add(seen.no_bands)
            self._say(f"where a percentile has no ±: {seen.no_bands}")
        pilot = self._leader.pilot if self._leader else None
        if pilot and pilot.found:
            self._put(number, found=pilot.found)

    def _put(self, number: int, **changes: Any) -> None:
        settings = list(self._hunt.settings)
        settings[number] = msgspec.structs.replace(settings[number], **changes)
        self._hunt = msgspec.structs.replace(self._hunt, settings=tuple(settings))
        self._write()

    def _begun(self) -> dict[str, Any]:
        known = begun(self.folder, runlog.FIND, self._options)
        return {**known, **facts(self._scenarios[0]), "repeats": []}

    def _write(self) -> None:
        find = plain(self._hunt)
        find["overrides"] = kept(find["overrides"])
        self._snapshot = {**self._snapshot, "find": find}
        runlog.write_snapshot(self.folder, self._snapshot)

    def _close(self) -> None:
        """The snapshot as it stays; without a run there is nothing to keep."""
        if not self._snapshot["repeats"]:
            (self.folder / runlog.SNAPSHOT).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            return
        self._snapshot |= {"state": self._reason, "text": self._text, "ended": now()}
        self._write()
        runlog.seal(self.folder)


def _bounded(terms: Terms, target: TargetSpec) -> Terms:
    """With no higher rate than the target may be asked for."""
    cap = target.cap
    if cap is None or (terms.most is not None and terms.most <= cap):
        return terms
    return msgspec.structs.replace(terms, most=cap, capped="; ".join(filter(None, whose(target))))
