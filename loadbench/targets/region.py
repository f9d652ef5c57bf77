"""A piece of this machine's memory from which a server on it reads inputs, and into which it writes
outputs (KServe's system shared memory), so that requests carry but their places.

All requests in flight write each output to the same place, as those of perf_analyzer do: nobody
reads it. The memory has a name only while a server opens it: a process that is killed at any other
time leaves nothing behind. It is kept open here, so that a server which is restarted can be given
it again. And it is locked here, which ends with the process however that ends: memory with a name
and without a lock is nobody's any more, and is swept.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from loadbench.errors import SpecError

NAME, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
_FOLDER = Path("/dev/shm")  # where Linux keeps what shm_open makes
_NAMED = "loadbench"
_OURS = re.compile(rf"{_NAMED}-\d+-[0-9a-f]{{8}}")  # a user's own may begin so, too
_ALIGNED = 64  # bytes: a cache line
NO_REGION = "no_region"  # how a request fails whose server does not know the region (any more)


class Place(NamedTuple):
    """Where in which region a tensor is."""

    region: str
    offset: int
    size: int

    @property
    def parameters(self) -> dict[str, Any]:
        """As a request says it."""
        return {NAME: self.region, _OFFSET: self.offset, _SIZE: self.size}


class Region:
    """Grows with what is kept in it, until it is `forgotten`. SpecError where there is no such
    memory."""

    def __init__(self) -> None:
        self.name = f"{_NAMED}-{os.getpid()}-{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self.size = 0
        self._outputs: dict[tuple[str, int], Place] = {}
        self._path = _FOLDER / self.name
        self._shown = self._over = False
        try:
            self._file = self._made()
        except OSError as error:
            raise SpecError(
                f"no shared memory can be had: {self._path}: {error.strerror}",
                "leave target.shared_memory out",
            ) from error

    def _made(self) -> FileIO:
        """Without a name. Where the system cannot name it later, it has its name from the start."""
        try:
            file = os.open(_FOLDER, os.O_RDWR | os.O_TMPFILE, 0o600)
        except OSError:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)  # before anything is in it
        return FileIO(file, "r+")

    def keep(self, data: bytes) -> Place:
        """Puts an input there."""
        place = self._room(len(data))
        try:
            done = 0
            while done < len(data):  # where it becomes full a part is written, and then none
                done += os.pwrite(self._file.fileno(), memoryview(data)[done:], place.offset + done)
        except OSError as error:  # the machine has no more of it
            self.forget()
            raise SpecError(
                f"the inputs do not fit into {_FOLDER}: {error.strerror}", "a smaller pool does"
            ) from error
        return place

    def output(self, name: str, size: int) -> Place:
        """Where an output of so many bytes goes."""
        if (name, size) not in self._outputs:
            self._outputs[name, size] = self._room(size)
        return self._outputs[name, size]

    def _room(self, size: int) -> Place:
        place = Place(self.name, self.size, size)
        self.size += -(-max(1, size) // _ALIGNED) * _ALIGNED
        os.ftruncate(self._file.fileno(), self.size)
        return place

    def show(self) -> None:
        """Gives it its name until `hide`. The system names memory once: again it takes a copy.
        SpecError where there is no room for one."""
        try:
            if self._shown:
                self._copy()
            self._shown = True
            self._link()
        except OSError as error:
            self.hide()
            hint = f"a smaller pool, or a larger {_FOLDER}: for a moment it is there twice"
            full = error.errno == errno.ENOSPC
            text = f"the shared memory gets no name: {error.strerror}"
            raise SpecError(text, hint if full else "") from error
        if self._over:  # another thread has ended it meanwhile: nobody else takes the name away
            self.hide()

    def _copy(self) -> None:
        """Goes on with a copy, which has had no name."""
        copy = self._made()
        try:
            done = 0
            while done < self.size:
                sent = os.sendfile(copy.fileno(), self._file.fileno(), done, self.size - done)
                if not sent:
                    raise OSError(errno.EIO, "somebody has made it smaller")
                done += sent
        except BaseException:
            copy.close()
            raise
        self._file.close()
        self._file = copy

    def _link(self) -> None:
        folder = os.open(_FOLDER, os.O_RDONLY | os.O_DIRECTORY)  # else it is two file systems to it
        try:
            with contextlib.suppress(FileExistsError):  # it has it from the start
                own = f"/proc/self/fd/{self._file.fileno()}"
                os.link(own, self._path, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def hide(self) -> None:
        """Takes its name away. Whoever has opened it keeps it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def end(self) -> None:
        """From now on it has no name, also where another thread is about to show it."""
        self._over = True
        self.hide()

    def forget(self) -> None:
        """Nothing more is to be done with it."""
        self.end()
        self._file.close()


def sweep() -> None:
    """Takes away the names of memory whose process was killed while it had one, as it could not
    itself. A process's number would not tell whose it is: containers that share this folder count
    their own, and numbers come again."""
    for path in _FOLDER.glob(f"{_NAMED}-*"):
        with contextlib.suppress(OSError):  # another user's, or taken away meanwhile
            if _OURS.fullmatch(path.name) and _left(path):
                path.unlink()


def _left(path: Path) -> bool:
    """Whether nobody holds it any more. What is empty may be about to be locked."""
    with FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
