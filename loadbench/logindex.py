"""Where what lies in a run's log, so that a long run opens without its seconds being read.

The runner writes it as `log.idx` at the end. Of a run that goes on or was killed, and of a log that
is not the one that was indexed, the same is found by going through the lines once: only their
beginnings are looked at. Left to others: following the log as it grows, deciding what to show.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadbench.errors import SpecError
from loadbench.model import Minute, Record, Window, decode_record
from loadbench.snapshots import files

INDEX = "log.idx"
WINDOW, MINUTE = b'{"kind":"window"', b'{"kind":"minute"'
LONGEST = 64_000_000  # bytes of a line: more is no log
_CHUNK = 4_000_000
_MOST_INDEX = 16_000_000  # bytes: a run of a year has less
_SECOND = re.compile(rb'"second":(-?\d+)')


class Block(NamedTuple):
    """A minute of the log: its first second, the offsets between which its seconds lie, and of the
    record that merges them, which ends them."""

    second: int
    begin: int
    end: int


@dataclass
class Contents:
    """What of a log is known by place. `end` is where its last whole line ends that was seen."""

    blocks: list[Block] = field(default_factory=list)
    others: list[int] = field(default_factory=list)  # neither seconds nor minutes
    end: int = 0

    def add(self, line: bytes) -> None:
        """The next line of the log, without its newline."""
        if line.startswith(MINUTE):
            self._block(second_of(line), self.end)
        elif not line.startswith(WINDOW):
            self.others.append(self.end)
        self.end += len(line) + 1

    def _block(self, second: int, offset: int) -> None:
        begin = self.blocks[-1].end if self.blocks else 0
        self.blocks.append(Block(second, begin, offset))

    def text(self) -> str:
        """As `log.idx` holds it."""
        minutes = [(block.second, block.end) for block in self.blocks]
        return json.dumps({"minutes": minutes, "others": self.others, "size": self.end})


def second_of(line: bytes) -> int:
    """The (first) second of a window's or minute's line, without reading the rest."""
    found = _SECOND.search(line, 0, 200)
    if found:
        return int(found[1])
    record = decode(line)
    assert isinstance(record, Minute | Window)
    return record.window.second if isinstance(record, Minute) else record.second


def decode(line: bytes) -> Record:
    """A line of the log; SpecError if it is none."""
    try:
        return decode_record(line)
    except (msgspec.MsgspecError, ValueError) as error:
        text = line[:40].decode("utf-8", "replace")
        raise SpecError(f"the log is damaged at {text!r}: {error}") from error


def read(log: Path) -> Contents | None:
    """From `log.idx`; None if there is none, or it is not of this log as it stands."""
    path = log.with_name(INDEX)
    try:
        found = files.value(files.content(path, _MOST_INDEX))
        if log.stat().st_size != found["size"]:
            return None
        return _checked(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # an older one, or damaged: the log says the same


def _checked(found: Any) -> Contents | None:
    contents = Contents()
    size, before = found["size"], 0
    for second, offset in found["minutes"]:
        if not (type(second) is type(offset) is int and before < offset < size):
            return None
        contents._block(second, offset)
        before = offset
    others = found["others"]
    if not others or not all(type(at) is int and 0 <= at < size for at in others):
        return None
    contents.others, contents.end = others, size
    return contents


def scan(log: Path) -> Iterator[Contents]:
    """Goes through a log to its last whole line; yields the same Contents after each chunk, so
    that a reader with other things to do may do them. Raises SpecError for what is no log, OSError
    for what is no file."""
    contents, rest = Contents(), b""
    with files.opened(log) as file:
        while data := file.read(_CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                contents.add(line)
            if len(rest) > LONGEST:
                raise SpecError(f"{log}: has a line of more than {LONGEST} bytes: is no log")
            yield contents
    yield contents


def lines_at(log: Path, offsets: list[int]) -> Iterator[bytes]:
    """The lines that begin there. OSError if the log is gone."""
    with files.opened(log) as file:
        for offset in offsets:
            file.seek(offset)
            line = file.readline(LONGEST)
            if not line.endswith(b"\n"):
                raise SpecError(f"{log}: ends before its index says: was it cut?")
            yield line[:-1]


def seconds_of(log: Path, block: Block) -> list[bytes]:
    """The lines of a block's seconds, undecoded."""
    with files.opened(log) as file:
        file.seek(block.begin)
        data = file.read(min(block.end - block.begin, LONGEST))
    return [line for line in data.split(b"\n")[:-1] if line.startswith(WINDOW)]
