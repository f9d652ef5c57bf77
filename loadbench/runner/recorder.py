"""What the runner writes down as the run goes on: windows, alerts, marks, remarks, the end."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from loadbench import alerts, runlog
from loadbench.hiding import Hiding
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    End,
    Mark,
    Note,
    Remark,
    Server,
    Start,
    Window,
)
from loadbench.runner.courier import Courier, message
from loadbench.runner.ruling import rewritten
from loadbench.runner.verdicts import Verdicts
from loadbench.standing import Standing
from loadbench.units import SECOND, clock, ms, percent, significant

_EVERY_S = 5  # seconds between two lines of progress
_CHANGED = Note(
    "versions",
    "the target's model changed versions during the run: the marks tell when and how",
    "compare runs of one version",
)


class Recorder:
    """The log of one run and the watch over its alerts. Marks may come from other threads."""

    def __init__(
        self,
        folder: Path,
        start: Start,
        gpu: int | None,
        say: Callable[[str], None],
        sent: tuple[str, ...] = (),
        hide: Hiding | None = None,
    ) -> None:
        self._say = say
        self._writer = runlog.Writer(folder, hide)
        self._noted = set(start.notes)
        start = self._writer.write(start)
        self._rules = {rule.name: rule for rule in start.rules}
        self._watch = alerts.Watch(start.rules, gpu)
        self._verdicts = Verdicts(start.device, start.ours, sent)
        self._start = start
        self.courier: Courier | None = None
        self.second = 0
        self._newest = Window(second=0, stage="drain")
        self._recent: list[Window] = []
        self._lock = threading.RLock()
        self._changed = self._progressed = False

    def window(self, window: Window) -> Window:
        """The second as it was written."""
        if window.server and (window.server.remarks or window.server.changes):
            window = self._told(window, window.server)
        with self._lock:
            window = self._writer.write(window)
        self.second, self._newest = window.second, window
        if window.stage == "load":
            with self._lock:
                firing = self._watch.standing(window.second)
                self._verdicts.see(window, ((self._rules[on.rule], on) for on in firing))
                self._changes(self._watch.see(window))
            self._progress(window)
        return window

    def _told(self, window: Window, server: Server) -> Window:
        """Takes what the server remarked out of its figures: it stands in the log by itself."""
        for note in server.remarks:
            self.remark(note, window.second)
            self._say(note.text)
        for text in server.changes:
            self.mark(text, window.second)
        if server.changes and not self._changed:
            self._changed = True
            self.remark(_CHANGED, window.second)
        return replace(window, server=replace(server, remarks=(), changes=()))

    def silence(self, origin: int, silence_s: float) -> None:
        """No window for so long: the generator stands still, or the machine does."""
        self.second = max(self.second, (time.monotonic_ns() - origin) // SECOND)
        with self._lock:
            self._changes(self._watch.silent(self.second, silence_s))

    def mark(self, text: str, second: int, standing: Standing | None = None) -> None:
        self.put(Mark(second, text, standing))

    def put(self, mark: Mark) -> None:
        with self._lock:
            mark = self._writer.write(mark)
            self._verdicts.mark(mark)
        self._say(f"{clock(mark.second * SECOND)}  ◆ {mark.text}")

    def rule(self, command: dict[str, Any], second: int) -> str:
        """Changes an alert rule, or takes note that somebody has seen an alert; what was done.
        ValueError if it cannot be done."""
        with self._lock:
            if command["command"] == "acknowledge":
                name = str(command.get("rule"))
                self._writer.write(self._watch.acknowledge(name, second))
                return f"acknowledged: {alerts.describe(self._rules[name])}"
            rules, text = rewritten(command, self._watch.rules)
            changes = self._watch.change(rules, second)
            self._changes(changes)
            self._rules = {rule.name: rule for rule in rules}
            self.put(Mark(second, text, rules=rules))
        return text

    def remark(self, note: Note, second: int | None = None) -> None:
        """What came up in this second, or in the newest that is known."""
        with self._lock:
            self._noted.add(note)
            self._writer.write(Remark(self.second if second is None else second, note))

    def remark_rest(self, notes: Iterable[Note], second: int | None = None) -> None:
        """Those of the notes that have not been told yet."""
        for note in notes:
            if note not in self._noted:
                self.remark(note, second)

    def rest(self, server: Server | None) -> None:
        """What the server still counted after the last window."""
        if self._newest.stage == "warmup":
            return  # it keeps an account of its own, what it left in flight included
        if server and (server.requests or server.failed or server.shed):
            self.window(
                Window(
                    second=self.second + 1,
                    stage="drain",
                    in_flight=self._newest.in_flight,
                    waiting=self._newest.waiting,
                    server=server,
                )
            )

    def end(self, end: End) -> None:
        if self.courier:
            self.courier.close()
        with self._lock:
            for standing in self._watch.standing(self.second):
                words = self._verdicts.words(self._rules[standing.rule], standing)
                self._writer.write(replace(standing, words=words))
            self._writer.close(end)

    def _changes(self, changes: list[AlertChange]) -> None:
        """Writes them down; of those to and from firing also why, and everybody is told."""
        for change in changes:
            rule, firing = self._rules[change.rule], change.state == "firing"
            told = change.limit is not None
            if told:
                change = replace(change, words=self._verdicts.words(rule, change))
            change = self._writer.write(change)
            if not told:
                continue
            when = clock(change.second * SECOND)
            self._say(f"{when}  {alerts.sign(change)} {alerts.announce(rule, change)}")
            for line in change.words[-2:] if firing else ():
                self._say(f"{' ' * len(when)}    {line}")
            if self.courier:
                self.courier.send(message(self._start, rule, change))

    def _progress(self, window: Window) -> None:
        self._recent.append(window)
        if len(self._recent) < _EVERY_S:
            return
        merged = merge(self._recent)
        seconds = len(self._recent)
        if not self._progressed:
            self._progressed = True
            self._say(f"(each line is of {seconds} s alone: too short for percentiles with ±)")
        self._recent.clear()
        latency, failed = merged.latency, sum(merged.failed.values())
        total = merged.done + failed
        self._say(
            f"{clock((window.second + 1) * SECOND)}"
            f"  asked {significant(merged.asked / seconds)}/s"
            f"  done {significant(merged.done / seconds)}/s"
            f"  p50 {ms(latency.quantile(0.5))}  p99 {ms(latency.quantile(0.99))} ms"
            f"  failed {percent(failed / total if total else None)} %"
            f"  in flight {merged.in_flight}"
        )
