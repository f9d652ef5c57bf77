"""Writes arrivals.bin (its format: `loadbench.arrivals`) as requests end."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from loadbench.arrivals import MAGIC, MOST, OUTCOMES, RECORD
from loadbench.engine.job import Job
from loadbench.errors import RunError


class ArrivalLog:
    """Keeps what is added until `flush`, which writes it at once."""

    def __init__(self, path: Path, start_ns: int) -> None:
        try:
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        self._file.write(MAGIC + start_ns.to_bytes(8, "little"))
        self._start = start_ns
        self._left = MOST
        self._held: list[tuple[int, int, int, int, int]] = []

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
        if self._held:
            self._file.write(np.array(self._held, RECORD).tobytes())
            self._held.clear()

    def close(self) -> None:
        """Writes the rest and closes the file."""
        self.flush()
        self._file.close()
