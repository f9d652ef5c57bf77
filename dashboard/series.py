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


class Part:
    """The run that is shown as a part of a series, if it is one. Who looks at the newest goes with
    the series to the next; who opens an earlier one wants to see that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.series = series_of(folder)
        newest = self.series.newest if self.series else None
        self.goes_with = newest in (None, folder) or folder == runlog.whole(folder)

    @property
    def words(self) -> str:
        """`repeat 2 of 6`; "" for a run by itself."""
        return self.series.words if self.series else ""

    @property
    def follows(self) -> bool:
        """Whether another run may follow the one shown."""
        return self.series is not None and self.goes_with and self.series.going

    def next(self) -> Path | None:
        """The run to turn to, now that the one shown is over or has not begun."""
        if self.series is None or not self.goes_with:
            return None
        self.series = series_of(self._folder)
        newest = self.series.newest if self.series else None
        return None if newest == self._folder else newest
