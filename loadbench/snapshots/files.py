"""Files of run folders, which may come from anybody: read within bounds, written as a whole, with
harm to nothing.

A folder that was unpacked or checked out may hold a pipe that never ends, a link to what is not
the sender's business, gigabytes of nothing, or JSON nested so deep that parsers fall over. All of
these come back as OSError or ValueError with words that can be shown; what the error means for the
reader is left to the reader.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import msgspec

from loadbench.printable import harmless, harmless_value, suspect

LARGEST = 16_000_000  # bytes of a run.json that are read
_STREAMS = ("/dev", "/dev/fd", "/proc/self/fd")  # what is named there is never replaced
_DEEPEST = 64  # levels of JSON: ours has a dozen


def opened(path: Path) -> BufferedReader:
    """A regular file for reading. OSError for anything else, for links too: what they lead to is
    not part of the run."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = "it is a link, and what that leads to is not read"
            raise OSError(errno.ELOOP, text, str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(number, "rb")


def lines(file: BufferedReader, longest: int) -> Iterator[bytes]:
    """The lines of a file with their ends; the last may have none. ValueError for a longer one, of
    which no more is read."""
    while line := file.readline(longest):
        if len(line) == longest and not line.endswith(b"\n"):
            raise ValueError(f"has a line of more than {longest} bytes: is no log")
        yield line


def content(path: Path, most: int = LARGEST) -> bytes:
    """All of a file of at most so many bytes. OSError if it is larger, or none that can be read."""
    with opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def put(path: Path, data: bytes) -> None:
    """Writes a file as a whole, by rename: nobody sees half of one, and no link that lies there is
    followed. What is no file (/dev/stdout, /dev/null, a pipe) is written to. OSError if it cannot
    be written, also of a pipe that nobody reads."""
    if _takes_a_stream(path):
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(number, True)  # only the opening must not wait
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
        return
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f".{secrets.token_hex(8)}.new")
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _takes_a_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or str(path.parent) in _STREAMS


def value(data: bytes) -> Any:
    """What JSON says, with harmless texts. ValueError for what is none: NaN, Infinity, and nesting
    beyond 64 levels too."""
    try:
        found = msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except ValueError as error:  # a msgspec.DecodeError and a UnicodeDecodeError are ValueErrors
        raise ValueError(harmless(str(error))) from error
    if not _within(found, _DEEPEST):
        raise ValueError("it is nested too deep")
    return harmless_value(found) if suspect(data) else found


def _within(found: Any, levels: int) -> bool:
    if isinstance(found, dict):
        return levels > 0 and all(_within(part, levels - 1) for part in found.values())
    if isinstance(found, list):
        return levels > 0 and all(_within(part, levels - 1) for part in found)
    return True
