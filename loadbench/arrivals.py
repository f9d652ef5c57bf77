"""arrivals.bin: when each request reached the batcher and what became of it, 16 bytes each.

The file begins with 16 bytes: `LBARRIV1` and the monotonic clock (ns, u64) when the engine was
ready. Then `RECORD`s in the order of their ends, little-endian; readers sort by arrival. Only the
first `MOST` are kept, so that the file stays small on a long run. `engine.arrivals` writes it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.snapshots import files

FILE = "arrivals.bin"
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


class Arrivals(NamedTuple):
    """What a file holds: `RECORD`s by arrival, and whether it was full before the run was over."""

    start_ns: int
    records: NDArray[Any]
    full: bool


def read(path: Path) -> Arrivals:
    """All whole records of a file; a kill may leave a part of one. Raises SpecError."""
    try:
        with files.opened(path) as file:
            data = file.read(len(MAGIC) + 8 + MOST * RECORD.itemsize)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    head = len(MAGIC) + 8
    if len(data) < head or not data.startswith(MAGIC):
        raise SpecError(f"{path}: holds no arrivals: it does not begin with {MAGIC.decode()}")
    number = (len(data) - head) // RECORD.itemsize
    found = np.frombuffer(data, RECORD, number, head)
    start_ns = int.from_bytes(data[len(MAGIC) : head], "little")
    ordered = found[np.argsort(found["arrived_ns"], kind="stable")]
    return Arrivals(start_ns, ordered, number >= MOST)
