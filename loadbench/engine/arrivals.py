"""Writes arrivals.bin (its format: `loadbench.arrivals`) as requests end."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from loadbench.arrivals import MAGIC, MOST, OUTCOMES, RECORD
from loadbench.engine import log
from loadbench.engine.job import Job
from loadbench.errors import RunError
from loadbench.model import Note


class ArrivalLog:
    """Keeps what is added until `flush`, which writes it at once. A disk that takes no more ends
    the log and nothing else."""

    def __init__(self, path: Path, start_ns: int) -> None:
        try:
            with ExitStack() as opened:
                self._file: BinaryIO = opened.enter_context(path.open("wb", buffering=0))
                self._file.write(MAGIC + start_ns.to_bytes(8, "little"))
                opened.pop_all()
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        self._path = path
        self._start = start_ns
        self._left = MOST
        self._held: list[tuple[int, int, int, int, int]] = []
        self.notes: tuple[Note, ...] = ()  # why it ended

    def add(self, jobs: Iterable[Job], outcome: str, batch: int, now: int) -> None:
        """Requests that ended together at `now`, in a batch of so many rows."""
        if self._left <= 0:
            return
        code, start = OUTCOMES.index(outcome), self._start
        ended = [
            (
                max(job.arrived - start, 0),
                min((now - job.arrived) // 1000, (1 << 32) - 1),
                batch,
                min(job.rows, 255),
                code,
            )
            for job in jobs
        ]
        self._held += ended[: self._left]
        self._left -= len(ended)

    def flush(self) -> None:
        """Writes what was added since."""
        if not self._held:
            return
        data = np.array(self._held, RECORD).tobytes()
        self._held.clear()
        try:
            if self._file.write(data) < len(data):
                self._end("only a part of it was taken")
        except OSError as error:
            self._end(error.strerror or str(error))

    def _end(self, why: str) -> None:
        """No more is written: what follows a part of a record could not be read."""
        self._left = 0
        text = f"cannot write {self._path}: {why}; what ended since is not in it"
        self.notes = (Note("arrivals-end", text, "is the disk full?"),)
        log.write(f"note: {text}")

    def close(self) -> None:
        """Writes the rest and closes the file."""
        self.flush()
        self._file.close()
