"""The runner: one run from its scenario to its snapshot.

It owns the run folder and is the only writer of its log. It starts the engine (for a `local:`
target) and the load as processes, reads machine and server once a second, watches the alerts,
passes commands on, and stops everything, whatever happens.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadbench import alerts, bounds, inputfiles, runlog, yardstick
from loadbench.environment import typed
from loadbench.errors import LoadbenchError, RunError
from loadbench.hiding import hiding
from loadbench.model import End, Mark, Note, Rule, Start, Window, plain
from loadbench.plan import AHEAD, Command, Finished, Noted, Plan, Workers, keys_told, planned
from loadbench.probe import NO_GPU, Nvml, Probe
from loadbench.runner import clocks, helm, ruling, workers
from loadbench.runner.children import last_notes
from loadbench.runner.courier import Courier
from loadbench.runner.decision import Decision
from loadbench.runner.desk import Desk
from loadbench.runner.loading import Loading, calibrated
from loadbench.runner.permission import may_run
from loadbench.runner.readings import Readings
from loadbench.runner.recorder import Recorder
from loadbench.runner.snapshot import others, snapshot
from loadbench.runner.target import Target, open_target
from loadbench.serverside import with_timing
from loadbench.shape import Steering, length_ns
from loadbench.spec import Scenario
from loadbench.standing import Standing
from loadbench.summary import Summary, summarise
from loadbench.units import SECOND

_SILENCE_S = 3.0
_OVERTIME_S = 5.0  # how long a load may take beyond its drain before it is ended

_HELM = ", ".join((*ruling.COMMANDS, *helm.COMMANDS))
_STOPPED = "the load generator was stopped by a signal from outside"

Reason = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a scenario is run, beside what it says itself."""

    results: Path
    name: str = ""
    command: tuple[str, ...] = ()  # to be typed to get the same run again
    trust: bool = False
    python: str = ""  # the interpreter of another build, to start its engine with
    meet: Callable[[Target], int] | None = None  # all is ready: gives the moment (monotonic ns)
    workers: Workers | None = None  # None: one load process
    lead: helm.Lead | None = None  # who says as it goes on which rate comes next, and when it ends
    decide: bool = False  # it ends as soon as its checks are decided
    folder: Path | None = None  # a repeat's, in that of its series; None: the next numbered one
    # what 100 % is to be, by another run's calibration; None: by its own
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that was made: its folder and what it came to."""

    folder: Path
    summary: Summary


class Run:
    """One run. `stop` and `kill` may be called from a signal handler or another thread."""

    def __init__(self, scenario: Scenario, options: Options, say: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._options = options
        self._hide = hide = hiding(scenario.spec)
        self._say: Callable[[str], None] = lambda text: say(hide(text))
        self._loading: Loading | None = None
        self._deadline: float | None = None
        self._reason: Reason = "done"
        self._hurried = False  # told to end at once
        self._text = ""
        self._steering, self._standing = Steering(), Standing()
        self._capacity: float | None = None  # what 100 % is, once it is calibrated
        self._decision: Decision | None = None
        self._clocks = clocks.read()
        self._made_results = not options.results.exists()
        self.folder = options.folder or runlog.create(
            options.results, options.name or usual_name(scenario)
        )

    @property
    def recording(self) -> bool:
        """Whether there is something measured that a stop must keep."""
        return self._loading is not None

    @property
    def _told(self) -> bool:
        """Whether it ends as it should, with time for what is found out at the end."""
        return self._reason != "failed" and not self._hurried

    def stop(self, text: str) -> None:
        """No further arrivals; what is in flight is awaited."""
        self._end("stopped", text, Command("stop"), self._scenario.spec.load.drain / SECOND)

    def kill(self, text: str) -> None:
        """Ends at once; what is in flight stays unfinished."""
        self._hurried = True
        self._end("stopped", text, Command("kill"), 0.0)

    def _end(self, reason: Reason, text: str, command: Command, wait_s: float) -> None:
        if self._reason == "done":
            self._reason, self._text = reason, text
        self._deadline = time.monotonic() + wait_s + _OVERTIME_S
        if self._loading:
            self._loading.say(command)

    def execute(self) -> Outcome:
        """Makes the run. If it fails before anything was recorded, its folder is removed."""
        try:
            may_run(
                self._scenario, self._options.trust, self._options.workers, self._options.decide
            )
            trust, python = self._options.trust, self._options.python
            with open_target(self._scenario, self.folder, trust, self._say, python) as target:
                return self._measure(target)
        finally:
            if not (self.folder / runlog.LOG).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                if self._made_results:
                    with contextlib.suppress(OSError):  # another run may be in it by now
                        self._options.results.rmdir()

    def _measure(self, target: Target) -> Outcome:
        nvml = Nvml.open()
        files = inputfiles.digests(self._scenario.spec)  # large ones take time: before the load
        device = nvml.numbered(target.device, target.card)
        settings = target.settings | inputfiles.of_model(self._scenario.spec.target.url)
        target = replace(target, device=device, settings=settings)
        plan, rules, notes = self._plan(target)
        target.statistics()  # what it counted until now, calibration included, is not this run's
        if target.engine and not nvml.read():
            notes = (*notes, NO_GPU)
        meet = partial(self._options.meet, target) if self._options.meet else None
        plan = msgspec.structs.replace(plan, workers=self._options.workers, waits=bool(meet))
        loading = self._loading = Loading(plan, self.folder, self._say, meet)
        probe = Probe(nvml, lambda: _pids(target, loading))
        first = -math.ceil(plan.warmup_ns / SECOND)
        readings = Readings(loading.origin, first, probe.read, target.statistics, target.seen)
        start = self._start(
            plan, rules, target, (*notes, *workers.notes(plan.workers), *loading.notes)
        )
        self._decision = Decision(start) if self._options.decide else None
        own = () if plan.journey else plan.requests
        sent = keys_told(self._scenario.spec.target.headers, plan.endpoint, own)
        recorder = Recorder(self.folder, start, target.gpu, self._say, sent, self._hide)
        recorder.courier = Courier(self._scenario.spec.alerts, self.folder, recorder.remark)
        desk = Desk(lambda command: self._command(recorder, plan, target, command))
        try:
            begun = snapshot(self._scenario, start, target, plan, nvml, files)
            begun |= {"control": desk.path, "command": typed(self._options.command)}
            begun |= {"capacity": self._capacity, "target": self._hide(begun["target"])}
            runlog.write_snapshot(self.folder, begun)
            self._follow(loading, recorder, readings, target)
            recorder.rest(readings.last())
            recorder.remark_rest(readings.notes)
            if target.engine and self._told:
                loading.stop()  # it leaves the engine nothing to finish
                recorder.remark_rest(last_notes(target.engine))
            return self._close(recorder, begun, start)
        finally:
            readings.stop()
            desk.close()
            loading.stop()

    def _plan(self, target: Target) -> tuple[Plan, tuple[Rule, ...], tuple[Note, ...]]:
        """The plan of the load, the alert rules, and what is to be said of both."""
        spec = self._scenario.spec
        own = [(alerts.parse_rule(rule.when, rule.length), rule.off) for rule in spec.alert]
        writes = target.endpoint.streams
        rules = alerts.changed(alerts.built_in(target.on_cards, writes), own)
        limit = alerts.latency_limit(rules, spec.checks)
        plan = planned(spec, target.endpoint, (), limit, target.replicas)
        if self._options.lead:
            return self._options.lead.planned(plan, target), rules, target.notes
        found, notes = None, (*target.notes, *_unheeded(spec.load.unheeded))
        if spec.load.calibrate is not None:
            width = 2 * spec.engine.max_batch
            size = (spec.load.calibrate, width)
            known = self._options.capacity
            found, note = calibrated(plan, size, self.folder, self._say, known)
            self._capacity, notes = found, (*notes, note)
        if plan.journey:
            aimed = msgspec.structs.replace(plan.journey, host=target.url.rstrip("/"))
            plan = msgspec.structs.replace(plan, journey=aimed)
        return msgspec.structs.replace(plan, phases=spec.load.resolve(found)), rules, notes

    def _start(
        self, plan: Plan, rules: tuple[Rule, ...], target: Target, notes: tuple[Note, ...]
    ) -> Start:
        assert self._loading is not None
        ahead = timedelta(microseconds=(self._loading.origin - time.monotonic_ns()) / 1000)
        began = (datetime.now(UTC) + ahead).astimezone()
        return Start(
            run=runlog.called(self.folder),
            scenario=self._scenario.name,
            target=target.title or self._loading.target or self._scenario.name,
            planned_ns=length_ns(plan.phases) or self._loading.length_ns,
            warmup_ns=plan.warmup_ns,
            limit_ns=plan.limit_ns,
            rules=rules,
            checks=self._scenario.spec.checks,
            wall_time=began.isoformat(timespec="milliseconds"),
            device=target.device,
            settings=target.settings,
            notes=(*notes, *others(self._options.results, self.folder, None)),
            origin_ns=self._loading.origin,
            warm_ns=target.warm_ns,
        )

    def _command(
        self, recorder: Recorder, plan: Plan, target: Target, command: dict[str, Any]
    ) -> dict[str, Any]:
        """A command from outside; ValueError if it is none, or cannot be done."""
        assert self._loading is not None
        now = time.monotonic_ns() - self._loading.origin
        before = self._standing
        match command:
            case {"command": "stop"}:
                text = "stop asked for"
                self.stop("stopped by command")
            case {"command": "kill"}:
                text = "end at once asked for"
                self.kill("ended by command")
            case {"command": "mark", "text": str(text)} if _is_a_text(text):
                pass
            case {"command": name} if name in ruling.COMMANDS:
                return {"ok": True, "mark": recorder.rule(command, now // SECOND)}
            case {"command": name} if name in helm.COMMANDS:
                text = self._steer(recorder, plan, command, now)
            case {"command": "engine"}:
                text = self._retune(recorder, target, command, now)
            case {"command": "mark"}:
                raise ValueError("a mark takes a text of 1 to 200 characters, all on one line")
            case _:
                raise ValueError(
                    'known: stop, kill, engine, mark with a "text" of up to 200, ' + _HELM
                )
        changed = self._standing if self._standing is not before else None
        recorder.mark(text, now // SECOND, changed)
        return {"ok": True, "mark": text}

    def _steer(self, recorder: Recorder, plan: Plan, command: dict[str, Any], now: int) -> str:
        """Changes the load by hand; returns what was done."""
        assert self._loading is not None
        if self._reason != "done":
            raise ValueError("the run is being stopped")
        spec = self._scenario.spec
        then = now + AHEAD if plan.workers else now
        situation = helm.Situation(
            plan.arrivals, self._steering, then, length_ns(plan.phases), self._capacity,
            bounds.highest(spec.load, plan.phases), bounds.most(spec),
        )  # fmt: skip
        steering, text = helm.steer(command, situation)
        self._steering, self._standing = steering, helm.standing(steering, self._standing)
        if not self._loading.say(Command("steer", steering)):
            raise ValueError("the load has ended")
        recorder.remark_rest([helm.STEERED], now // SECOND)
        return text

    def _retune(self, recorder: Recorder, target: Target, command: dict[str, Any], now: int) -> str:
        """Changes the engine by hand; returns what was done."""
        if self._reason != "done":
            raise ValueError("the run is being stopped")
        settings, text = helm.retune(command, target)
        recorder.remark_rest([helm.RETUNED], now // SECOND)
        self._standing = msgspec.structs.replace(self._standing, engine=settings)
        return text

    def _follow(
        self, loading: Loading, recorder: Recorder, readings: Readings, target: Target
    ) -> None:
        """Takes the load's messages until it has finished, or has to be given up."""
        heard = max(time.monotonic(), loading.origin / SECOND)
        while True:
            try:
                message = loading.next(0.25)
            except LoadbenchError as error:
                self._fail(error)
                return
            now = time.monotonic()
            if isinstance(message, Finished):
                for note in message.notes:
                    recorder.remark(note)
                if message.reason == "stopped" and not self._deadline:
                    self._fail(RunError(_STOPPED, "see load.log in the run's folder"))
                return
            if isinstance(message, Mark):
                recorder.mark(message.text, message.second)
            elif isinstance(message, Noted):
                second = (time.monotonic_ns() - loading.origin) // SECOND
                recorder.remark(message.note, second)
                self._say(message.note.text)
            elif isinstance(message, Window):
                heard = now
                machine, server = readings.of(message.second)
                if not target.timed:
                    server = with_timing(server, message.timing)
                message = msgspec.structs.replace(
                    message, machine=machine, server=server, timing={}
                )
                message = recorder.window(message)
                recorder.remark_rest(readings.notes, message.second)
                self._led(loading, recorder, message)
                self._decide(recorder, message)
            elif now - heard > _SILENCE_S:
                recorder.silence(loading.origin, now - heard)
            if target.engine and target.engine.ended() is not None and not self._deadline:
                self._fail(target.engine.error())
            if self._deadline and now > self._deadline:
                text = "the load generator did not end by itself"
                recorder.remark(Note("load-ended", text, "see load.log"))
                return

    def _led(self, loading: Loading, recorder: Recorder, window: Window) -> None:
        """Asks whoever leads the run for what comes next."""
        order = self._options.lead.see(window) if self._options.lead else None
        if order is None or self._deadline:
            return
        if order.steering is None:
            self._end("done", "", Command("stop"), self._scenario.spec.load.drain / SECOND)
        else:
            self._standing = helm.standing(order.steering, self._standing)
            loading.say(Command("steer", order.steering))
        recorder.mark(order.text, window.second + 1, self._standing)

    def _decide(self, recorder: Recorder, window: Window) -> None:
        """Ends a run that goes on until its checks are decided, once they are."""
        if self._decision is None or self._deadline:
            return
        for mark in self._decision.see(window):
            recorder.put(mark)
        if self._decision.made:
            drain_s = self._scenario.spec.load.drain / SECOND
            self._end("done", self._decision.words, Command("stop"), drain_s)

    def _fail(self, error: LoadbenchError) -> None:
        self._end(
            "failed", "; ".join(filter(None, (error.message, error.hint))), Command("kill"), 0.0
        )

    def _close(self, recorder: Recorder, begun: dict[str, Any], start: Start) -> Outcome:
        since = others(self._options.results, self.folder, start.wall_time)
        for note in (*since, *clocks.doubts(self._clocks, clocks.read())):
            if note not in start.notes:
                recorder.remark(note)
        optimum = yardstick.at_end(self.folder) if self._told else None
        early = self._reason == "done" and self._deadline is not None
        if self._reason == "done" and self._decision:
            self._text = self._decision.words
        recorder.end(End(recorder.second, self._reason, self._text, optimum, early))
        summary = summarise(runlog.read(self.folder))
        if summary is None:
            raise RunError(f"{self.folder}: the log has no beginning")
        ended = {
            "state": self._reason,
            "ended": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "control": None,
            "summary": plain(summary),
        }
        runlog.write_snapshot(self.folder, {**begun, **ended})
        runlog.seal(self.folder)
        return Outcome(self.folder, summary)


def _unheeded(text: str) -> tuple[Note, ...]:
    hint = "leave them out, or take arrivals that have a rate: constant, poisson, gamma"
    return (Note("rate-ignored", text, hint),) if text else ()


def _is_a_text(text: str) -> bool:
    """Whether it can stand in a line of any terminal: nothing in it steers one."""
    return 0 < len(text) <= 200 and text.isprintable()


def usual_name(scenario: Scenario) -> str:
    """`steady-resnet-tiny`: the scenario and what it is run against."""
    url = scenario.spec.target.url.partition("?")[0]
    target = url.removeprefix("local:").rstrip("/").rpartition("/")[2]
    return f"{scenario.name}-{target}" if target else scenario.name


def _pids(target: Target, loading: Loading) -> dict[str, int]:
    found = {"load": loading.pid, **loading.pids, "runner": os.getpid()}
    return {**found, "engine": target.engine.pid} if target.engine else found
