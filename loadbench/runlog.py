"""Run folders: where a run's files lie, how they are written once and read by everyone.

    results/0147-spike-resnet-tiny/
      run.json       the snapshot; replaced by rename, so that a reader never sees half of it
      log.ndjson     one Record a line, appended and flushed each second
      log.idx        where the minutes and all but the seconds lie, written at the end: long runs
                     open from these
      arrivals.bin   engine.log   load.log   as the children wrote them
      SHA256SUMS     of run.json and log.ndjson, written when the run is over

The runner is the only writer of run.json and log.ndjson. A killed run is a log without an End.

The two sides of an A/B are `a/` and `b/` in a folder whose run.json has "kind": "ab". A series of
repeats is one numbered folder with a run.json of its own and a run folder for each
repeat, by its number:

    results/0148-steady-mlp/
      run.json       "kind": "series", "repeats": ["1", "2"] in the order they were made
      SHA256SUMS     of this run.json
      1/   2/        run folders as above
"""

import json
import os
import platform
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from loadbench.errors import RunError, SpecError
from loadbench.hiding import Hiding
from loadbench.logindex import INDEX, LONGEST, Contents
from loadbench.merge import merge
from loadbench.model import End, Minute, Record, Window, decode_record, encode
from loadbench.snapshots import files, schema, sums

R = TypeVar("R", bound=Record)
LOG = "log.ndjson"
SNAPSHOT = "run.json"
SCHEMA = schema.SCHEMA  # of run.json
_NUMBERED = re.compile(r"(\d{4,})-")
_REPEAT = re.compile(r"[1-9]\d{0,3}")
SERIES = "series"  # the kind of a snapshot that has repeats
FIND = "find"  # of one that searched for a rate: the runs it took, in their order, as repeats
AB = "ab"  # and of one that has two sides, `a/` and `b/`
_SIDE = re.compile(r"[ab]")


def results_folder(given: str | None = None) -> Path:
    """Where runs land: what was given, else $LOADBENCH_RESULTS, else ./results."""
    return Path(given or os.environ.get("LOADBENCH_RESULTS") or "results")


def create(results: Path, name: str) -> Path:
    """A new, empty run folder with the next free number. mkdir decides between two at once."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "run"
    try:
        results.mkdir(parents=True, exist_ok=True)
        number = max((_number(path) for path in results.iterdir()), default=0)
        while True:
            number += 1
            folder = results / f"{number:04d}-{slug}"
            if any(_number(path) == number for path in results.iterdir()):
                continue
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise RunError(
            f"{results}: results cannot be written there: {error.strerror or error}",
            "choose another folder with --out DIR",
        ) from error


def inner(folder: Path, name: str) -> Path:
    """The folder of one of several runs, made; an empty one that was left behind will do. RunError
    if it cannot be made."""
    made = folder / name
    try:
        made.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{made}: cannot be made: {error.strerror or error}") from error
    return made


def _number(path: Path) -> int:
    """0 of what is no run folder, also of a name that could steer the terminal that it is shown in:
    none that we give is such."""
    match = _NUMBERED.match(path.name)
    return int(match[1]) if match and path.name.isprintable() else 0


def runs(results: Path) -> list[Path]:
    """All run folders, oldest first."""
    if not os.path.isdir(results):  # unlike Path's, of no name at all an error
        return []
    found = [path for path in results.iterdir() if _number(path) and path.is_dir()]
    return sorted(found, key=lambda path: (_number(path), path.name))


def listing(results: Path) -> list[str]:
    """The names in a results folder, sorted, for who finds many in it."""
    return sorted(os.listdir(results)) if os.path.isdir(results) else []


def find(name: str, results: Path, listed: Sequence[str] | None = None) -> Path:
    """A run by its folder, its number (147 or 0147), its folder's name, or `last`; one repeat of a
    series by what finds the series and its own number (147/3). `listed` is its `listing`, where
    that is known."""
    path = Path(name)
    if os.path.exists(path / LOG) or os.path.exists(path / SNAPSHOT):
        return path
    whole, _, repeat = name.rpartition("/")
    if whole and _REPEAT.fullmatch(repeat):
        return _repeat(find(whole, results), repeat)
    if whole and _SIDE.fullmatch(repeat) and is_ab(folder := find(whole, results)):
        return folder / repeat
    if found := _named(name, results, listed):
        return found
    known = runs(results)
    if name == "last" and known:
        return known[-1]
    hint = f"{len(known)} runs in {results}: loadbench list" if known else f"no runs in {results}"
    raise SpecError(f"there is no run {name!r}", hint)


def _named(name: str, results: Path, listed: Sequence[str] | None) -> Path | None:
    """By its number or its folder's name; only folders that may be it are looked at, since there
    may be thousands, and thousands that are asked for."""
    if _NUMBERED.match(name) and "/" not in name and name.isprintable():
        return results / name if os.path.isdir(results / name) else None
    if not re.fullmatch(r"[0-9]{1,15}", name):
        return None
    wanted = f"{int(name):04d}-"
    names = listing(results) if listed is None else listed
    first = bisect_left(names, wanted)
    found = list(takewhile(lambda one: one.startswith(wanted), islice(names, first, None)))
    paths = (results / one for one in reversed(found) if one.isprintable())
    return next((path for path in paths if path.is_dir()), None)


def _repeat(folder: Path, number: str) -> Path:
    known = repeats(folder)
    for path in known:
        if path.name == number and path != folder:
            return path
    made = f"has {len(known)}" if known != [folder] else "is one run"
    raise SpecError(f"{folder.name} has no repeat {number}: it {made}", f"loadbench show {folder}")


def repeats(folder: Path) -> list[Path]:
    """The run folders in a series, in the order they were made; `[folder]` for a single run."""
    try:
        snapshot = read_snapshot(folder)
    except SpecError:
        return [folder]  # damaged or missing: who opens it is told
    return repeats_of(folder, snapshot)


def repeats_of(folder: Path, snapshot: dict[str, Any]) -> list[Path]:
    """`repeats` of a folder whose snapshot has been read."""
    if snapshot.get("kind") not in (SERIES, FIND):
        return [folder]
    named = snapshot.get("repeats")
    names = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    fine = [one for one in dict.fromkeys(names) if _REPEAT.fullmatch(one)]
    paths = [folder / one for one in fine]
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def is_find(folder: Path) -> bool:
    """Whether the folder holds a search for a rate."""
    try:
        return read_snapshot(folder).get("kind") == FIND
    except SpecError:
        return False


def is_led(folder: Path) -> bool:
    """Whether a search led this run from rate to rate."""
    return whole(folder) != folder and is_find(whole(folder))


def is_series(folder: Path) -> bool:
    """Whether the folder holds repeats rather than a log of its own."""
    return repeats(folder) != [folder]


def latest(folder: Path) -> Path:
    """The run in a folder; of a series the repeat that goes on or was the last, of an A/B its B."""
    if is_ab(folder):
        return folder / "b"
    return (repeats(folder) or [folder])[-1]


def is_ab(folder: Path) -> bool:
    """Whether the folder holds the two sides of an A/B."""
    try:
        return read_snapshot(folder).get("kind") == AB
    except SpecError:
        return False


def single(folder: Path) -> Path:
    """The one run in a folder. SpecError for a series of several: one has to be named."""
    if is_ab(folder):
        raise SpecError(f"{folder.name} has two sides", f"name one: {folder.name}/a")
    found = repeats(folder)
    if len(found) == 1:
        return found[0]
    last = f"{folder.name}/{found[-1].name}" if found else "another run"
    many = f"{len(found)} settings" if is_find(folder) else f"{len(found)} repeats"
    raise SpecError(f"{folder.name} has {many}", f"name one: {last}")


def whole(folder: Path) -> Path:
    """The folder that lies in the results: the series' or the A/B's of one of their runs, else the
    run's own."""
    part = _REPEAT.fullmatch(folder.name) or _SIDE.fullmatch(folder.name)
    return folder.parent if part and _number(folder.parent) else folder


def called(folder: Path) -> str:
    """What a run is called: its folder's name, with the series' before it if it is a repeat."""
    found = whole(folder)
    return folder.name if found == folder else f"{found.name}/{folder.name}"


def is_usual(results: Path) -> bool:
    """Whether commands look for runs there without being told to."""
    return results.resolve() == results_folder().resolve()


def named(folder: Path) -> str:
    """How a command here names a run: by its number (`0147`, `0147/3`) where it lies in the usual
    results, else by its folder."""
    whole_one = whole(folder)
    number = whole_one.name.partition("-")[0]
    if not is_usual(whole_one.parent) or not number.isdigit():
        return str(folder)
    return number if whole_one == folder else f"{number}/{folder.name}"


def write_snapshot(folder: Path, snapshot: dict[str, Any]) -> None:
    """Replaces run.json as a whole."""
    text = json.dumps(snapshot, indent=2, ensure_ascii=False) + "\n"
    partial = folder / f".{SNAPSHOT}.new"
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / SNAPSHOT)
    except OSError as error:
        raise RunError(f"{folder / SNAPSHOT}: cannot be written: {error.strerror}") from error


def seal(folder: Path) -> None:
    """Writes the checksums of a run, or of a folder of several, that is over: nothing of it is
    changed from here on."""
    sums.write(folder, [name for name in (SNAPSHOT, LOG) if (folder / name).exists()])


def read_snapshot(folder: Path) -> dict[str, Any]:
    """run.json in today's form, with a doubt in its summary if it was altered after the run.
    SpecError if it is missing, damaged or of a later version."""
    path = folder / SNAPSHOT
    try:
        data = files.content(path)
        snapshot = files.value(data)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: cannot be read, it is damaged: {error}") from error
    if not isinstance(snapshot, dict):
        raise SpecError(f"{path}: is no run snapshot")
    found = schema.migrated(snapshot, str(path))
    doubt = sums.altered(folder, SNAPSHOT, data)
    if doubt is None:
        return found
    told = {name: found[name] for name in ("summary", "overall") if name in found}
    return {**found, **{name: sums.doubted(summary, doubt) for name, summary in told.items()}}


def state(snapshot: dict[str, Any]) -> str:
    """`running`, `done`, `stopped`, `failed`; `killed` for a run of this machine whose runner is
    gone. Of one on another machine nothing more is known than what it wrote."""
    found = str(snapshot.get("state", "unknown"))
    gone = found == "running" and here(snapshot) and not _alive(snapshot.get("pid"))
    return "killed" if gone else found


def here(snapshot: Mapping[str, Any]) -> bool:
    """Whether the runner is, or was, a process of this machine."""
    return snapshot.get("host") in (None, "", platform.node())


def goes_on(folder: Path) -> bool:
    """Whether the run's runner is alive and at it."""
    try:
        return state(read_snapshot(folder)) == "running"
    except SpecError:
        return False  # no snapshot, or a damaged one: nobody is known to be at it


def _alive(pid: Any) -> bool:
    if type(pid) is not int or pid <= 0:  # those name groups of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return True


class Writer:
    """Appends records; every line is in the file (not only in a buffer) when `write` returns, and
    `hide` keeps secrets out of all of them."""

    def __init__(self, folder: Path, hide: Hiding | None = None) -> None:
        self._folder = folder
        self._hide = hide or Hiding()
        self._file: BinaryIO = open(folder / LOG, "ab", buffering=0)  # noqa: SIM115
        self._minute: list[Window] = []
        self._index = Contents()

    def write(self, record: R) -> R:
        """The record as it was written, which is how it may be told on."""
        record = self._hide(record)
        if isinstance(record, Window):
            warm = record.stage == "warmup"
            if self._minute and warm != (self._minute[-1].stage == "warmup"):
                self._flush_minute()  # warm-up is in no figure: it has minutes of its own
            self._minute.append(record)
        self._append(record)
        if len(self._minute) == 60:
            self._flush_minute()
        return record

    def _append(self, record: Record) -> None:
        line = encode(record)
        try:
            self._file.write(line + b"\n")
        except OSError as error:
            raise RunError(
                f"{self._folder / LOG}: cannot be written: {error.strerror}",
                "what was measured until now is kept",
            ) from error
        self._index.add(line)

    def _flush_minute(self) -> None:
        self._append(Minute(merge(self._minute), len(self._minute)))
        self._minute.clear()

    def close(self, end: End) -> None:
        """Writes the last minute, the End and the index."""
        if self._minute:
            self._flush_minute()
        self._append(self._hide(end))
        self._file.close()
        (self._folder / INDEX).write_text(self._index.text())


def read(folder: Path) -> Iterator[Record]:
    """All records of a log. A half-written last line, as a kill leaves it, ends the log there."""
    path = folder / LOG
    try:
        file = files.opened(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and os.path.lexists(folder / SNAPSHOT):
            read_snapshot(folder)  # of a series that is damaged nothing else says that it is one
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        for number, line in enumerate(_lines(path, file), 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decode_record(line)
            except (msgspec.MsgspecError, ValueError) as error:
                raise SpecError(f"{path} line {number}: is no record: {error}") from error


def _lines(path: Path, file: BufferedReader) -> Iterator[bytes]:
    try:
        yield from files.lines(file, LONGEST)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
