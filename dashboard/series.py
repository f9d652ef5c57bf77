"""A series of runs while one of them is shown: which it is, of how many, and which comes next."""

from pathlib import Path
from typing import NamedTuple

from loadbench import runlog
from loadbench.errors import SpecError

_CALLED = {runlog.SERIES: "repeat", runlog.FIND: "stage"}


class Series(NamedTuple):
    """`words` say which run of it is shown, `newest` is the one that was begun last, if any was;
    `going`: another one may follow."""

    words: str
    newest: Path | None
    going: bool


def series_of(folder: Path) -> Series | None:
    """What the run in `folder` is a part of, or what is in `folder`; None for a run by itself."""
    whole = runlog.whole(folder)
    try:
        snapshot = runlog.read_snapshot(whole)
    except SpecError:
        return None
    called = _CALLED.get(str(snapshot.get("kind")))
    if called is None:
        return None
    made, wanted = runlog.repeats_of(whole, snapshot), snapshot.get("wanted")
    number = folder.name if folder != whole else "1"
    of = f" of {wanted}" if isinstance(wanted, int) else ""
    going = runlog.state(snapshot) == "running"
    return Series(f"{called} {number}{of}", made[-1] if made else None, going)
