"""How many rows a batch may have on one device now, and what says so.

What limits a batch: the settings, the model itself, the memory that is free, the knee of its times
beyond which more rows gain nothing, and a lack of memory that was met. Who reads the memory and
the times is `place`'s business.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loadbench.units import MS

RECOVERY = 64  # good batches after which a batch size cut for lack of memory grows by a row
MARGIN = 0.1  # of the memory that could be had, left alone: others take some between two looks
GAIN = 0.97  # a row of a larger batch must cost less than so much of a row's time …
OVERHEAD_NS = MS // 5  # … the time to bring a batch about included
OOM = "oom"
MEMORY = "memory"  # it comes and goes


class Footprint(NamedTuple):
    """The memory that a batch of b rows takes while it runs: `fixed` + `per_row` · b bytes."""

    fixed: float
    per_row: float

    @classmethod
    def fit(cls, peaks: Mapping[int, int]) -> "Footprint | None":
        """From the peaks (bytes) of batches by their rows: the slope by least squares, and so high
        that none of them lies above. None where more rows took no more memory."""
        if len(peaks) < 2:
            return None
        rows = sum(peaks) / len(peaks)
        size = sum(peaks.values()) / len(peaks)
        spread = sum((n - rows) ** 2 for n in peaks)
        slope = sum((n - rows) * (peak - size) for n, peak in peaks.items()) / spread
        if slope <= 0:
            return None
        return cls(max(0.0, *(peak - slope * n for n, peak in peaks.items())), slope)

    def rows(self, room: float) -> int:
        """The largest batch that takes at most `room` bytes; 0: not even one row fits."""
        return max(0, int((room - self.fixed) // self.per_row))


class Room:
    """The limit of one device's batches. `most` is the least of all limits and at least one row;
    with `sizes` (the only ones that the model runs, rising) it is one of them. `bound` names the
    limit that binds."""

    def __init__(self, most: int, why: str = "max_batch", sizes: Sequence[int] = ()) -> None:
        self._sizes = sizes
        self._limits = {why: most}
        self._good = 0
        self._weigh()

    def limit(self, why: str, rows: int | None) -> None:
        """Sets a limit, or with None takes it off."""
        if rows is None:
            self._limits.pop(why, None)
        else:
            self._limits[why] = max(1, rows)
        self._weigh()

    def ran(self) -> None:
        """A batch found room. After enough of them a limit met by a lack of memory is raised."""
        if OOM not in self._limits:
            return
        self._good += 1
        if self._good >= RECOVERY:
            self._good = 0
            self.limit(OOM, self._limits[OOM] + 1)

    def ran_out(self, rows: int) -> None:
        """A batch of so many rows found no room: half of them may."""
        self._good = 0
        self.limit(OOM, min(self._limits.get(OOM, rows), rows // 2))

    def _weigh(self) -> None:
        lasting = [rows for why, rows in self._limits.items() if why not in (OOM, MEMORY)]
        if self._limits.get(OOM, 0) >= min(lasting):
            self._limits.pop(OOM, None)
        self.bound = min(self._limits, key=self._limits.__getitem__)
        self.most = self._limits[self.bound]
        if self._sizes:
            fitting = [size for size in self._sizes if size <= self.most]
            self.most = max(fitting, default=self._sizes[0])


def knee(times: Mapping[int, int]) -> int | None:
    """The rows beyond which no larger batch does a row in noticeably less time, from the shortest
    times (ns) of batches by their rows. None: the largest is still the best."""
    per_row = {rows: (ns + OVERHEAD_NS) / rows for rows, ns in sorted(times.items())}
    for rows, ns in per_row.items():
        larger = [other for n, other in per_row.items() if n > rows]
        if larger and min(larger) > GAIN * ns:
            return rows
    return None
