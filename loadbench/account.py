"""The account of a run: its recorded windows added up, whole or broken off.

`asked = sent + unsent` and `sent = done + failed + unfinished + lost` hold exactly, in a run that
was stopped or killed too. Warm-up has its own windows and is in no figure.
"""

from collections.abc import Iterable

from loadbench import evidence, units
from loadbench.evidence import Evidence
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    End,
    Mark,
    Minute,
    Note,
    Record,
    Remark,
    Shown,
    Start,
    Value,
    Window,
)


class Account(Value, frozen=True):
    """The recorded windows of a run, added up."""

    start: Start
    end: End | None
    whole: Window  # stages load and drain
    load: Window | None  # the whole seconds of the stage load alone
    seconds: float  # of `load`
    alerts: tuple[AlertChange, ...]
    notes: tuple[Note, ...]
    evidence: Evidence  # of how it was measured
    steady: tuple[Window, ...]  # the whole seconds of the stage load, one by one
    rest: tuple[Window, ...] = ()  # what was recorded after them
    shown: dict[str, Shown] = {}  # the checks that were, while it went on
    overdue: int | None = None  # of a run that goes on: what is open and late already

    @property
    def unfinished(self) -> int:
        return self.whole.in_flight

    @property
    def unsent(self) -> int:
        """Of a killed run, what was waiting when its log broke off was never sent either."""
        return self.whole.unsent + self.whole.waiting

    @property
    def missed(self) -> int:
        """Asked and not answered well. While the run goes on, what is open may still be."""
        known = sum(self.whole.failed.values()) + self.whole.unsent + self.whole.lost
        left = self.whole.waiting + self.unfinished
        return known + (left if self.overdue is None else self.overdue)


def account(records: Iterable[Record], running: bool = False) -> Account | None:
    """Adds up a log; None if it has no Start. Without any recorded window all counts are 0.
    `running`: the log goes on."""
    start: Start | None = None
    end: End | None = None
    load: list[Window] = []
    drain: list[Window] = []
    alerts: list[AlertChange] = []
    notes: list[Note] = []
    shown: dict[str, Shown] = {}
    for record in records:
        match record:
            case Start():
                start = record
            case Window(stage="load"):
                load.append(record)
            case Window(stage="drain"):
                drain.append(record)
            case AlertChange():
                alerts.append(record)
            case Mark(shown=Shown() as found):
                shown[found.check] = found
            case Remark():
                notes.append(record.note)
            case End():
                end = record
            case Window() | Minute() | _:
                pass  # warm-up is in no figure; a minute repeats its seconds
    if start is None:
        return None
    whole = [*load, *drain]
    if end and (end.reason != "done" or end.early) and len(load) > 1:
        load.pop()  # it was broken off within this second: that would spoil the rates
    seconds = float(len(load))
    if end and end.reason == "done" and start.planned_ns:
        seconds = min(seconds, start.planned_ns / units.SECOND)
    return Account(
        start=start,
        end=end,
        whole=merge(whole) if whole else Window(second=0, stage="load"),
        load=merge(load) if load else None,
        seconds=seconds,
        alerts=tuple(alerts),
        notes=(*start.notes, *notes),
        evidence=evidence.gather(evidence.begin(start), whole),
        steady=tuple(load),
        rest=tuple(whole[len(load) :]),
        shown=shown,
        overdue=whole[-1].overdue if whole and running and end is None else None,
    )
