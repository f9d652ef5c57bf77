"""What a report is made of: a run's log and snapshot, read once.

A short log is read whole. Of a long one the minutes are read, found by the index, and only its last
seconds: a report of days takes as long as one of half an hour. The summary of a long run is what
the runner wrote at its end; of one that has none (killed, or it goes on) it is made of the minutes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadbench import logindex, runlog
from loadbench.account import Account, account
from loadbench.assurance import Blocks
from loadbench.errors import SpecError
from loadbench.logindex import Contents
from loadbench.merge import merge
from loadbench.model import AlertChange, Minute, Record, Start, Window
from loadbench.snapshots import files
from loadbench.snapshots.reading import told
from loadbench.summary import Summary, summary_of
from loadbench.view import LENGTHS, View, fold

_WHOLE = LENGTHS[0] // 60 + 2  # minutes up to which a log is read whole
_LAST = 2  # minutes of a longer one whose seconds are read


@dataclass(frozen=True)
class Material:
    """A run. `snapshot` is empty where there is none that can be read; `coarse` tells that the run
    was read from its minutes, `led` that a search chose its rates."""

    folder: Path
    snapshot: dict[str, Any]
    start: Start
    view: View
    total: Account
    summary: Summary
    blocks: Blocks
    coarse: bool
    led: bool = False

    @property
    def name(self) -> str:
        return self.summary.run or self.folder.name

    @property
    def number(self) -> str:
        """What people call it: 0147."""
        return self.name.partition("-")[0]


def read(folder: Path) -> Material:
    """Raises SpecError if nothing was recorded, or the log is damaged."""
    log = folder / runlog.LOG
    try:
        contents = _contents(log)
    except OSError as error:
        raise SpecError(f"{log}: cannot be read: {error.strerror}") from error
    coarse = len(contents.blocks) > _WHOLE
    running = runlog.goes_on(folder)
    records = list(_coarse(log, contents) if coarse else runlog.read(folder))
    view = View()
    for record in records:
        view = fold(view, record)
    total = _from_minutes(records, view, running) if coarse else account(records, running)
    if total is None:
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    snapshot = _snapshot(folder)
    summary = (_written(snapshot) if coarse and not running else None) or summary_of(total, running)
    summary = told(summary, folder)
    blocks = Blocks(total.steady, total.rest, total.missed)
    return Material(
        folder, snapshot, total.start, view, total, summary, blocks, coarse, runlog.is_led(folder)
    )


def _contents(log: Path) -> Contents:
    found = logindex.read(log)
    if found is None:
        for found in logindex.scan(log):  # noqa: B007  # the last one is whole
            pass
    return found or Contents()


def _coarse(log: Path, contents: Contents) -> Iterator[Record]:
    """Minutes and all that is neither minute nor second, then the last seconds."""
    blocks = contents.blocks
    cut = blocks[-_LAST].begin
    minutes = [block.end for block in blocks[: -_LAST - 1]]  # the next one stands at the cut
    early = [at for at in contents.others if at < cut] + minutes
    for line in logindex.lines_at(log, sorted(early)):
        yield logindex.decode(line)
    with files.opened(log) as file:
        file.seek(cut)
        for line in files.lines(file, logindex.LONGEST):
            if not line.endswith(b"\n"):
                return
            yield logindex.decode(line[:-1])


def _from_minutes(records: Sequence[Record], view: View, running: bool) -> Account | None:
    """As `account` does it, with minutes for what was not read by the second."""
    if view.start is None:
        return None
    seconds = [record for record in records if isinstance(record, Window)]
    cut = seconds[0].second if seconds else 1 << 60
    minutes = [
        record
        for record in records
        if isinstance(record, Minute) and record.window.second < cut
        if record.window.stage != "warmup"
    ]
    steady = tuple(minute.window for minute in minutes)
    rest = tuple(window for window in seconds if window.stage != "warmup")
    loaded = [*steady, *(window for window in rest if window.stage == "load")]
    last = len(loaded) - len(steady)
    return Account(
        start=view.start,
        end=view.end,
        whole=merge([*steady, *rest]) if steady or rest else Window(second=0, stage="load"),
        load=merge(loaded) if loaded else None,
        seconds=float(sum(minute.seconds for minute in minutes) + last),
        alerts=tuple(record for record in records if isinstance(record, AlertChange)),
        notes=view.notes,
        evidence=view.evidence,
        steady=steady,
        rest=rest,
        overdue=rest[-1].overdue if rest and running and view.end is None else None,
    )


def _snapshot(folder: Path) -> dict[str, Any]:
    try:
        return runlog.read_snapshot(folder)
    except SpecError:
        return {}


def _written(snapshot: dict[str, Any]) -> Summary | None:
    """The summary as the runner wrote it; None if there is none, or it is damaged."""
    try:
        return msgspec.convert(snapshot.get("summary"), Summary)
    except (msgspec.ValidationError, TypeError):
        return None
