"""The runs of a results folder as lines of a list, each from its run.json alone.

A list must show what is there, so nothing here raises because of one run: a snapshot that is
missing, damaged, or written by another version becomes an entry that says so. Reading a run's log
is left to who opens it.
"""

import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from loadbench import runlog
from loadbench.errors import LoadbenchError, SpecError
from loadbench.judge.checks import altered, why_unjudged
from loadbench.model import Note, Trust, Value
from loadbench.printable import harmless
from loadbench.snapshots import files, schema, sums
from loadbench.snapshots.figures import Figures, words
from loadbench.summary import CheckResult

_NOTES, _CHECKS, _TEXT = 20, 50, 300  # kept of each run
_BANDS = ("p50", "p99")  # what a list shows
_FRESH_S = 30.0  # a log written to so recently has a writer, on whatever machine
_STARTS_S = 600.0  # so long may it take until a run has a run.json
_NONE = "run.json is no snapshot of a run"
State = Literal[
    "running", "done", "stopped", "failed", "killed", "not begun", "unreadable", "other version"
]
Stamp = tuple[int, int, int]


class Entry(Value, frozen=True):
    """One run. Latencies in ms, `failed` a share of the asked; None where there is no figure.
    `problem` says why a run cannot be read."""

    folder: str
    name: str
    state: State
    problem: str = ""
    began: str = ""  # ISO 8601, with its zone
    scenario: str = ""
    title: str = ""
    target: str = ""
    device: str = ""
    commit: str = ""
    seconds: float | None = None
    done_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    bands_ms: dict[str, tuple[float, float | None]] = {}  # percentile → where it lies at 95 %
    no_bands: str = ""  # why they have none
    limit_ms: float | None = None  # that a percentile without a number lies above
    failed: float | None = None
    checks: tuple[CheckResult, ...] = ()
    trust: Trust | None = None
    text: str = ""  # why it ended as it did
    notes: tuple[Note, ...] = ()
    stamp: Stamp | None = None
    repeats: int = 1  # more, or none yet: a series, its figures medians, the worst of its checks

    @property
    def number(self) -> str:
        """What people call it: 0147."""
        return self.name.partition("-")[0]

    @property
    def passed(self) -> int:
        """How many of its checks passed; none where it gets no verdict."""
        if self.unjudged:
            return 0
        return sum(check.state == "passed" for check in self.checks)

    @property
    def checked(self) -> str:
        """`✓ 4/4`, `✗ 3/4`, `○ 0/2` where none failed and some had no data, `▲` where it gets no
        verdict; "" without checks."""
        if not self.checks:
            return ""
        if self.unjudged:
            return "▲"
        sign = "✗" if any(check.state == "failed" for check in self.checks) else "○"
        sign = "✓" if self.passed == len(self.checks) else sign
        return f"{sign} {self.passed}/{len(self.checks)}"

    @property
    def altered(self) -> str:
        """What was altered of it after the run; "" if nothing is known to be."""
        return altered(self.notes)

    @property
    def unjudged(self) -> bool:
        """Whether its checks pass nothing and fail nothing: it was not finished, cannot be trusted
        or was altered."""
        return why_unjudged(self.state, self.trust, self.notes, self.state) != ""

    @property
    def words(self) -> str:
        """All that a filter looks at, in lower case."""
        grade = self.trust or ""
        texts = (self.name, self.scenario, self.target, self.device, self.state, grade)
        return " ".join((*texts, self.title, self.commit)).lower()


class _Target(msgspec.Struct):
    name: str = ""
    device: str = ""


class _Snapshot(msgspec.Struct):
    state: str = "unknown"
    pid: int | None = None
    host: str = ""
    began: str = ""
    scenario: str = ""
    title: str | None = None
    commit: str | None = None
    target: _Target | None = None
    summary: Figures | None = None
    kind: str = "run"
    overall: Figures | None = None  # of a series
    repeats: tuple[str, ...] = ()
    text: str = ""


class _Version(msgspec.Struct):
    schema: int = runlog.SCHEMA
    loadbench: str = "another version"


def entries(results: Path, known: Mapping[str, Entry] | None = None) -> Iterator[Entry]:
    """The runs, newest first. What is `known` (by name) and has not changed is not read again."""
    for folder in reversed(runlog.runs(results)):
        before = known.get(folder.name) if known else None
        found = entry(folder, before)
        if found is not None:
            yield found


def entry(folder: Path, known: Entry | None = None) -> Entry | None:
    """One run; None if its folder is gone."""
    path = folder / runlog.SNAPSHOT
    try:
        status = path.stat()
    except FileNotFoundError:
        return _missing(folder)
    except OSError as error:
        return _unreadable(folder, f"run.json cannot be read: {error.strerror}")
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    if known is not None and known.stamp == stamp and known.state != "running":
        return known
    if not stat.S_ISREG(status.st_mode) or status.st_size > files.LARGEST:
        return _unreadable(folder, _NONE, stamp)
    try:
        return _decoded(folder, files.content(path), stamp)
    except FileNotFoundError:
        return _missing(folder)
    except OSError as error:
        return _unreadable(folder, f"run.json cannot be read: {error.strerror}")
    except SpecError as error:
        return _unreadable(folder, harmless(error.message), stamp)
    except (msgspec.MsgspecError, ValueError) as error:
        return _unreadable(folder, words(error), stamp)
    except RecursionError:
        return _unreadable(folder, "run.json is damaged: it is nested too deep", stamp)


def _missing(folder: Path) -> Entry | None:
    if not folder.is_dir():
        return None
    if (folder / sums.FILE).exists():
        return _unreadable(folder, "run.json is gone, and was there at the end of the run")
    return Entry(
        str(folder), folder.name, "not begun", "no readable run.json: starting, or it never began"
    )


def _unreadable(folder: Path, problem: str, stamp: Stamp | None = None) -> Entry:
    return Entry(str(folder), folder.name, "unreadable", problem, stamp=stamp)


def _decoded(folder: Path, data: bytes, stamp: Stamp) -> Entry:
    version = msgspec.json.decode(data, type=_Version)
    if version.schema > runlog.SCHEMA:
        made = harmless(version.loadbench)
        problem = f"written by loadbench {made}: update this one to read it"
        return Entry(str(folder), folder.name, "other version", problem, stamp=stamp)
    if version.schema < runlog.SCHEMA:
        old = schema.migrated(files.value(data), "run.json")
        found = msgspec.convert(old, _Snapshot)
    else:
        found = msgspec.json.decode(data, type=_Snapshot)
    if found.state not in get_args(State):
        return _unreadable(folder, _NONE, stamp)  # of another tool that calls its file so, too
    series = found.kind == runlog.SERIES
    target = found.target or _Target()
    summary = (found.overall if series else found.summary) or Figures()
    doubt = _doubt(folder, data, found)
    trust: Trust | None = "doubtful" if doubt and summary.trust == "trusted" else summary.trust
    return Entry(
        folder=str(folder),
        name=runlog.called(folder),
        state=_state(folder, found),
        began=_line(found.began),
        scenario=_line(found.scenario),
        title=_line(found.title),
        target=_line(target.name),
        device=_line(target.device),
        commit=_line(found.commit),
        seconds=summary.seconds,
        done_per_s=summary.rate.get("done"),
        p50_ms=summary.latency_ms.get("p50"),
        p99_ms=summary.latency_ms.get("p99"),
        bands_ms={name: summary.bands_ms[name] for name in _BANDS if name in summary.bands_ms},
        no_bands=_line(_unbounded(summary)),
        limit_ms=summary.limit_ms if summary.asked else None,
        failed=1 - summary.done / summary.asked if summary.asked else None,
        checks=tuple(map(_check, summary.checks[:_CHECKS])),
        trust=trust,
        text=_line(_text(found, summary, doubt)),
        repeats=len(found.repeats) if series else 1,
        notes=(*((doubt,) if doubt else ()), *map(_note, summary.notes[:_NOTES])),
        stamp=stamp,
    )


def _text(found: _Snapshot, summary: Figures, doubt: Note | None) -> str:
    """That of an A/B is its verdict, which it has no more once it was altered."""
    if found.kind == runlog.AB and doubt:
        return ""
    return found.text if found.kind != "run" else summary.text


def _doubt(folder: Path, data: bytes, found: _Snapshot) -> Note | None:
    """The first of what was altered since: its own snapshot, or that of one of its repeats."""
    if doubt := sums.altered(folder, runlog.SNAPSHOT, data):
        return doubt
    if found.kind != runlog.SERIES:
        return None
    named = {"kind": found.kind, "repeats": list(found.repeats)}
    for repeat in runlog.repeats_of(folder, named):
        if doubt := sums.altered(repeat, runlog.SNAPSHOT):
            return Note(doubt.code, f"{repeat.name}/{doubt.text}", doubt.hint)
    return None


def _state(folder: Path, found: _Snapshot) -> State:
    """As the runner wrote it; of one on another machine its log tells whether it is still there."""
    state = runlog.state({"state": found.state, "pid": found.pid, "host": found.host})
    if state == "running" and not runlog.here({"host": found.host}):
        state = "running" if _written(runlog.latest(folder) / runlog.LOG, _FRESH_S) else "killed"
    known: dict[str, State] = {
        "running": "running", "done": "done", "stopped": "stopped", "failed": "failed",
    }  # fmt: skip
    return known.get(state, "killed")


def _written(path: Path, seconds: float) -> bool:
    """Whether a file or folder was written to so recently."""
    try:
        return time.time() - path.stat().st_mtime < seconds
    except OSError:
        return False


def _unbounded(summary: Figures) -> str:
    """Why its percentiles have no bands; "" where that is not known."""
    whys = summary.no_bands.get("latency_ms", {})
    return "; ".join(dict.fromkeys(whys[name] for name in _BANDS if name in whys))


def _line(text: str | None) -> str:
    return harmless((text or "")[:_TEXT]).replace("\n", " ")[:_TEXT]


def _note(note: Note) -> Note:
    return Note(_line(note.code), _line(note.text), _line(note.hint))


def _check(check: CheckResult) -> CheckResult:
    texts = {name: _line(getattr(check, name)) for name in ("name", "text", "unit", "why")}
    sure = check.certainty and _line(check.certainty)
    return msgspec.structs.replace(check, **texts, certainty=sure)


def remove(folder: Path, results: Path) -> None:
    """Deletes a run. Raises LoadbenchError if it goes on, or is no run folder of these results."""
    if folder.is_symlink() or folder not in runlog.runs(results):
        raise LoadbenchError(f"{folder.name} is no run folder in {results}", "remove it by hand")
    found = entry(folder)
    if found is None:
        return
    starts = found.state == "not begun" and _written(folder, _STARTS_S)
    unclear = found.problem != "" and _written(folder / runlog.LOG, _FRESH_S)
    if starts or unclear or found.state == "running":
        word = "may be starting" if starts else "goes on"
        raise LoadbenchError(f"{folder.name} {word}: it is not deleted", "stop it first")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LoadbenchError(
            f"{folder.name} cannot be deleted: {error.strerror or error}", "remove it by hand"
        ) from error
