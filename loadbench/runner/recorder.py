"""What the runner writes down as the run goes on: windows, alerts, marks, remarks, the end."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from loadbench import alerts, runlog
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
        self, folder: Path, start: Start, gpu: int | None, say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._rules = {rule.name: rule for rule in start.rules}
        self._watch = alerts.Watch(start.rules, gpu)
        self.second = 0
        self._newest = Window(second=0, stage="drain")
        self._recent: list[Window] = []
        self._lock = threading.Lock()
        self._changed = False
        self._noted = set(start.notes)
        self._writer = runlog.Writer(folder)
        self._writer.write(start)

    def window(self, window: Window) -> None:
        if window.server and (window.server.remarks or window.server.changes):
            window = self._told(window, window.server)
        self.second, self._newest = window.second, window
        with self._lock:
            self._writer.write(window)
        if window.stage == "load":
            self._changes(self._watch.see(window))
            self._progress(window)

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
        self._changes(self._watch.silent(self.second, silence_s))

    def mark(self, text: str, second: int, standing: Standing | None = None) -> None:
        with self._lock:
            self._writer.write(Mark(second, text, standing))
        self._say(f"{clock(second * SECOND)}  ◆ {text}")

    def remark(self, note: Note, second: int | None = None) -> None:
        """What came up in this second, or in the newest that is known."""
        with self._lock:
            self._noted.add(note)
            self._writer.write(Remark(self.second if second is None else second, note))

    def remark_rest(self, notes: Iterable[Note]) -> None:
        """Those of the notes that have not been told yet."""
        for note in notes:
            if note not in self._noted:
                self.remark(note)

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
        with self._lock:
            for standing in self._watch.standing(self.second):
                self._writer.write(standing)
            self._writer.close(end)

    def _changes(self, changes: list[AlertChange]) -> None:
        for change in changes:
            with self._lock:
                self._writer.write(change)
            firing = change.state == "firing"
            if firing or (change.state == "ok" and change.since is not None):
                sign = "▲" if firing else "✓"
                text = alerts.announce(self._rules[change.rule], change)
                self._say(f"{clock(change.second * SECOND)}  {sign} {text}")

    def _progress(self, window: Window) -> None:
        self._recent.append(window)
        if len(self._recent) < _EVERY_S:
            return
        merged = merge(self._recent)
        seconds = len(self._recent)
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
