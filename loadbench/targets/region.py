"""A piece of this machine's memory from which a server on it reads inputs, and into which it writes
outputs (KServe's system shared memory), so that requests carry but their places.

All requests in flight write each output to the same place, as those of perf_analyzer do: nobody
reads it. The name of the memory goes as soon as the server has opened it, so that nothing is left
behind even by a process that is killed. The memory is kept open here, so that a server which is
restarted can be given it again.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from loadbench.errors import SpecError

NAME, _OFFSET, _SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"
_FOLDER = Path("/dev/shm")  # where Linux keeps what shm_open makes
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
        self.name = f"loadbench-{os.getpid()}-{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self.size = 0
        self._outputs: dict[tuple[str, int], Place] = {}
        self._path = _FOLDER / self.name
        try:
            self._file = self._made()
        except OSError as error:
            raise SpecError(
                f"no shared memory can be had: {self._path}: {error.strerror}",
                "leave target.shared_memory out",
            ) from error

    def _made(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def keep(self, data: bytes) -> Place:
        """Puts an input there."""
        place = self._room(len(data))
        try:
            os.pwrite(self._file, data, place.offset)
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
        os.ftruncate(self._file, self.size)
        return place

    def hide(self) -> None:
        """Takes its name away. Whoever has opened it keeps it."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def show(self) -> None:
        """Gives it its name again. That takes a copy: the system has no way to name memory that has
        lost its name. SpecError where there is no room for one."""
        try:
            copy = self._made()
            try:
                done = 0
                while done < self.size:
                    done += os.sendfile(copy, self._file, done, self.size - done)
            except OSError:
                os.close(copy)
                raise
        except OSError as error:
            self.hide()
            raise SpecError(f"no copy of the shared memory can be had: {error.strerror}") from error
        os.close(self._file)
        self._file = copy

    def forget(self) -> None:
        """Nothing more is to be done with it."""
        self.hide()
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1
