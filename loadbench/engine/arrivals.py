"""arrivals.bin: when each request reached the batcher and what became of it, 16 bytes each.

The file begins with 16 bytes: `LBARRIV1` and the monotonic clock (ns, u64) when the engine was
ready. Then `RECORD`s in the order of their ends, little-endian; readers sort by arrival. Only the
first `MOST` are kept, so that the file stays small on a long run.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from loadbench.engine.job import Job
from loadbench.errors import RunError

MAGIC = b"LBARRIV1"
MOST = 2_000_000
RECORD = np.dtype(
    [
        ("arrived_ns", "<u8"),  # since the start in the head
        ("took_us", "<u4"),  # from there to its end as the batcher saw it
        ("batch", "<u2"),  # rows of the batch it was part of; 0: it never ran
        ("rows", "u1"),  # its own, at most 255
        ("outcome", "u1"),  # an index into OUTCOMES
    ]
)
OUTCOMES = ("done", "failed", "shed", "refused", "cancelled")


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
