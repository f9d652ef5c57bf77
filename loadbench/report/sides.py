"""Run folders as what is judged: the snapshots of their repeats, each with a summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.side import Side
from loadbench.model import Note, plain
from loadbench.printable import harmless
from loadbench.snapshots import figures, sums
from loadbench.snapshots.reading import summary_of


def snapshots(folder: Path) -> list[dict[str, Any]]:
    """Of a run or of all repeats of a series, in the order they were made. The summary of one
    without an end is made from its log; it stays None where nothing was recorded. SpecError if
    a snapshot is damaged."""
    found = runlog.read_snapshot(folder)
    if found.get("kind") == runlog.FIND:
        raise SpecError(
            f"{harmless(folder.name)} is a search for a rate: its stages are no repeats",
            "compare runs at one rate, or series of them: loadbench list",
        )
    if found.get("kind") == runlog.AB:
        folder = runlog.single(folder)  # says which there are
    if found.get("kind") != runlog.SERIES:
        return [_whole(folder, found)]
    doubt = sums.altered(folder, runlog.SNAPSHOT)  # it says which repeats there are
    made = {"cool_down_s": found.get("cool_down_s")}
    return [
        made | _doubted(_whole(path, runlog.read_snapshot(path)), doubt)
        for path in runlog.repeats_of(folder, found)
        if (path / runlog.SNAPSHOT).is_file()  # the next one may be starting just now
    ]


def _doubted(snapshot: dict[str, Any], doubt: Note | None) -> dict[str, Any]:
    """A repeat of a series whose own snapshot is in doubt."""
    if doubt is None:
        return snapshot
    told = Note(doubt.code, f"of the series {doubt.text}", doubt.hint)
    return {**snapshot, "summary": sums.doubted(snapshot.get("summary"), told)}


def side(folders: Sequence[Path], name: str = "") -> Side:
    """Runs and series as one side; its name is theirs if none is given."""
    found = [one for folder in folders for one in snapshots(folder)]
    names = (harmless(runlog.called(folder)) for folder in folders)
    return Side(name or " + ".join(names), tuple(found))


def apart(*sides: Sequence[Path]) -> None:
    """SpecError if the same run stands in the sides twice: it counts once, and says nothing against
    itself."""
    seen: set[Path] = set()
    for path in (made for folders in sides for folder in folders for made in _made(folder)):
        if path.resolve() in seen:
            raise SpecError(
                f"{harmless(runlog.called(path))} is named twice: a run counts once",
                "make it anew with --repeats 6; loadbench list shows what there is",
            )
        seen.add(path.resolve())


def _made(folder: Path) -> list[Path]:
    """The runs in a folder. Where there is a log it is one: of a thousand no snapshot is read for
    that."""
    return [folder] if (folder / runlog.LOG).is_file() else runlog.repeats(folder)


def _whole(folder: Path, snapshot: dict[str, Any]) -> dict[str, Any]:
    name = harmless(runlog.called(folder))
    if not snapshot.get("summary") and (folder / runlog.LOG).is_file():
        snapshot["summary"] = plain(summary_of(folder))
    figures.check(snapshot, name)
    return {**snapshot, "run": name}  # a copy is told by its own name
