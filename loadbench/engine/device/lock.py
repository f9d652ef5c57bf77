"""Who uses a card: an advisory lock for each, so that a second engine there is told.

The lock is a file in the user's own runtime folder, locked (flock) as long as the process lives.
Nobody is kept out by it; engines of other users are not seen.
"""

import fcntl
import os
import stat
import tempfile
from pathlib import Path

_ours: set[Path] = set()  # locks that this process holds, until it ends


def runtime_folder() -> Path | None:
    """The user's own, private folder for what lives as long as a process; None if there is none
    that nobody else can write to."""
    told = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(told) if told else Path(tempfile.gettempdir()) / f"loadbench-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return path if private and not found.st_mode & 0o022 else None


def claim(uuid: str, folder: Path | None) -> str:
    """Claims the card for this process, for as long as it lives. Returns "" when it is ours, or
    nobody can tell; else the words for who has it, as `process 4711`."""
    if folder is None or not uuid:
        return ""
    path = folder / f"loadbench-{uuid.replace('/', '_')}.lock"
    if path in _ours:
        return ""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = os.pread(file, 20, 0).decode("ascii", "replace").strip()
        os.close(file)
        return f"process {told}" if told.isdigit() else "another process"
    _ours.add(path)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return ""
