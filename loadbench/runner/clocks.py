"""The machine's clocks over a run. Latencies count by the monotonic clock: what it does not see
(the machine slept) and what bends it (a time server that pulls hard) would stand in no figure.
"""

import time
from typing import NamedTuple

from loadbench.model import Note
from loadbench.units import MS, duration, percent

_SLEPT_NS = MS
_SET_NS = 100 * MS
_BENT = 0.001  # time servers pull by half of it at most, but for chrony when it is far off
_SPAN_NS = 5000 * MS  # the shortest in which that can be told


class Clocks(NamedTuple):
    """Readings of one moment, in ns. `boot` goes on while the machine sleeps; `raw` is the same
    as `monotonic` without the pull of a time server. Both are Linux's."""

    wall: int
    monotonic: int
    boot: int
    raw: int


def read() -> Clocks:
    """All clocks now; where there is no other than the monotonic one, that in its place."""
    monotonic = time.monotonic_ns()
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return Clocks(
        wall=time.time_ns(),
        monotonic=monotonic,
        boot=monotonic if boot is None else boot,
        raw=monotonic if raw is None else time.clock_gettime_ns(raw),
    )


def doubts(before: Clocks, after: Clocks) -> list[Note]:
    """What the clocks say of the time between two readings."""
    wall, passed, boot, raw = (late - early for late, early in zip(after, before, strict=True))
    notes = []
    if boot - passed > _SLEPT_NS:
        text = f"the machine slept for {duration(boot - passed)} during the run"
        notes.append(Note("suspended", text, "no latency knows of it: run again"))
    if abs(wall - boot) > _SET_NS:
        text = f"the clock of this machine was set by {duration(abs(wall - boot))} during the run"
        notes.append(Note("clock-set", text, "times of day in the log are off; latencies are not"))
    if raw > _SPAN_NS and abs(passed - raw) > _BENT * raw:
        text = f"the clock of this machine ran {percent(abs(passed - raw) / raw)} % off its pace"
        notes.append(Note("clock-drift", text, "all times are off by it: let the clock settle"))
    return notes
