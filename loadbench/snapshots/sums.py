"""SHA256SUMS: what a run's files were when it ended, as `sha256sum -c SHA256SUMS` reads it. A
folder of several runs has one for its own run.json, and each of its runs another.

They find what was edited, cut or damaged since; whoever wants to deceive can write new ones. The
figures of an altered file are still shown, with a doubt that travels with them. Readers check what
they read: a list the snapshots alone, as a log may be long.
"""

import errno
import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loadbench.errors import RunError
from loadbench.model import Note
from loadbench.snapshots import files

FILE = "SHA256SUMS"
CODE = "altered"
_LARGEST = 10_000
_LOG = ".ndjson"
_CHUNK = 1_000_000
_LINE = re.compile(rb"([0-9a-f]{64})[ ][ *]([A-Za-z0-9._-]{1,80})")


def write(folder: Path, names: Iterable[str]) -> None:
    """Writes the sums of these files of a run that is over. RunError if that cannot be done."""
    try:
        lines = [f"{_of_file(folder / name)}  {name}\n" for name in names]
        files.put(folder / FILE, "".join(lines).encode("ascii"))
    except OSError as error:
        raise RunError(f"{folder / FILE}: cannot be written: {error.strerror}") from error


def altered(folder: Path, name: str, data: bytes | None = None) -> Note | None:
    """A doubt if a file is not what it was at the end of its run; `data` is what was read of it.
    None also where there are no sums: the run is older, was killed, or goes on. Without `data` the
    file is read: only as much as one of ours can have."""
    try:
        told = files.content(folder / FILE, _LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Note(CODE, f"{FILE} cannot be read ({error.strerror})", "was the run altered?")
    known = {line[2]: line[1] for line in map(_LINE.fullmatch, told.splitlines()) if line}
    wanted = known.get(name.encode())
    if wanted is None:
        return Note(CODE, f"{FILE} says nothing of {name}", "was the run altered?")
    try:
        found = _of_file(folder / name) if data is None else hashlib.sha256(data).hexdigest()
    except FileNotFoundError:
        if name.endswith(_LOG):
            return None  # what is compared is the snapshot: logs may be left out of a repository
        return Note(CODE, f"{name} is gone, and was there at the end of the run", "bring it back")
    except OSError as error:
        if error.errno != errno.EFBIG:
            return Note(CODE, f"{name} is not what it was: {error.strerror}", "was it replaced?")
        found = ""
    if found.encode() == wanted:
        return None
    return Note(CODE, f"{name} was altered after the run", "sha256sum -c SHA256SUMS looks again")


def reopened(folder: Path) -> None:
    """Takes the sums away: the run goes on, and its files change."""
    with suppress(OSError):
        (folder / FILE).unlink()


def doubted(summary: Any, doubt: Note) -> Any:
    """A snapshot's summary with the doubt: its run is not trusted any more. What is no summary is
    left as it is."""
    if not isinstance(summary, dict):
        return summary
    notes = summary.get("notes")
    told = {"code": doubt.code, "text": doubt.text, "hint": doubt.hint}
    trust = "doubtful" if summary.get("trust") == "trusted" else summary.get("trust")
    return {**summary, "notes": [*(notes if isinstance(notes, list) else ()), told], "trust": trust}


def _of_file(path: Path) -> str:
    """OSError EFBIG for what is longer than it can be. A log may have any length; a zero byte is in
    none, and a hole of terabytes costs who made it nothing."""
    if not path.name.endswith(_LOG):
        return hashlib.sha256(files.content(path)).hexdigest()
    found = hashlib.sha256()
    with files.opened(path) as file:
        while data := file.read(_CHUNK):
            if b"\0" in data:
                raise OSError(errno.EFBIG, "it has zero bytes: is no log", str(path))
            found.update(data)
    return found.hexdigest()
