"""A run's summary made from its log, with what is known of the log itself."""

from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import Note, Record, Start, Trust
from loadbench.snapshots import schema, sums
from loadbench.snapshots.foreign import believable
from loadbench.summary import Summary, summarise


def summarised(folder: Path) -> tuple[Start, Summary]:
    """The beginning and the Summary of a run: also of one that was killed, or goes on. SpecError
    if nothing was recorded, the log is damaged, or a later loadbench made the run."""
    begun: list[Start] = []
    summary = summary_of(folder, begun)
    if summary is None or not begun:
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    return begun[0], summary


def summary_of(folder: Path, begun: list[Start] | None = None) -> Summary | None:
    """The Summary alone; None if nothing was recorded. Its Start is put into `begun`."""
    with believable(str(folder / runlog.LOG)):
        records = _noted(runlog.read(folder), [] if begun is None else begun)
        summary = summarise(records, runlog.goes_on(folder))
    return None if summary is None else told(summary, folder)


def told(summary: Summary, folder: Path) -> Summary:
    """As it is told of a run that lies there: with a doubt for each of its files that was altered
    since its end; of one that a search led without checks, which would be of all its rates together
    and contradict what was found. SpecError if a later loadbench made it."""
    schema.require_known(folder / runlog.SNAPSHOT)
    if runlog.is_led(folder):
        summary = replace(summary, checks=())
    found = doubts(folder)
    if not found:
        return summary
    trust: Trust = "doubtful" if summary.trust == "trusted" else summary.trust
    return replace(summary, notes=(*summary.notes, *found), trust=trust)


def doubts(folder: Path) -> list[Note]:
    """What was altered since, of the log and of the snapshot."""
    found = (sums.altered(folder, name) for name in (runlog.LOG, runlog.SNAPSHOT))
    return [doubt for doubt in found if doubt]


def _noted(records: Iterator[Record], begun: list[Start]) -> Iterator[Record]:
    """The records as they are; the first one, if it is a beginning, is put into `begun`."""
    for number, record in enumerate(records):
        if number == 0 and isinstance(record, Start):
            begun.append(record)
        yield record
